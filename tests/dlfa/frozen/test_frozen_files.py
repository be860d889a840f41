"""Files of hidden states: there as a whole or not at all, whatever becomes of the process that writes them."""

import copy
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tiny_tasks import make_encoder, make_tokenizer

from dlfa import DLFAModel
from dlfa.data.examples import TaggedSentence
from dlfa.frozen import StateInputs, StateStore
from dlfa.frozen.fingerprints import encoder_fingerprint, sequences_fingerprint, weights_fingerprint
from dlfa.frozen.layer_files import open_layer, remove_abandoned, write_layers
from dlfa.tasks import Encoding, Feature, get_task

ROOT = Path(__file__).resolve().parents[3]
FLOAT = np.dtype("float32")
UDPOS = get_task("udpos")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return DLFAModel.from_encoder(make_encoder(tmp_path_factory.mktemp("encoder")), None)


@pytest.fixture
def features():
    draw = np.random.default_rng(0)
    lengths = (5, 9, 1, 5, 30, 2, 7)
    return [
        Feature({"input_ids": draw.integers(5, 60, size).tolist(), "attention_mask": [1] * size}, index)
        for index, size in enumerate(lengths)
    ]


def test_states_are_those_of_the_encoder(model, features, tmp_path):
    """Against a pass over each sequence by itself."""
    store = StateStore(model, make_tokenizer(), tmp_path, batch_size=3)
    states = store.states(features, (0, 1))
    for layer, index in ((0, 0), (1, 1), (-1, None)):
        for place, feature in enumerate(features):
            with torch.no_grad():
                ids = torch.tensor([feature.inputs["input_ids"]])
                found = model.encoder_states(ids, torch.ones_like(ids), layers=(0, 1))
            expected = found.last if index is None else found.lowers[index]
            assert torch.allclose(states.padded(layer, [place]), expected, atol=1e-5)
    batch = states.padded(1, [2, 4])
    assert batch.shape == (2, 30, 32)
    assert not batch[0, 1:].any()


def test_states_are_without_dropout(model, features, tmp_path):
    training = copy.deepcopy(model).train()
    assert any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in training.modules())
    several = [
        StateStore(each, make_tokenizer(), tmp_path / str(number)).states(features, ()).padded(-1, [0, 1])
        for number, each in enumerate((model, training))
    ]
    assert torch.equal(*several)


def test_states_of_each_precision_have_files_of_their_own(model, features, tmp_path):
    tokenizer = make_tokenizer()
    for number, options in enumerate(({}, {"dtype": "float16"}, {"autocast": torch.bfloat16}), start=1):
        for _ in range(2):
            StateStore(model, tokenizer, tmp_path, **options).states(features, (1,))
            assert len(list(tmp_path.rglob("layer-1.npy"))) == number


def test_damaged_and_foreign_files_are_computed_again(model, features, tmp_path):
    tokenizer = make_tokenizer()
    expected = StateStore(model, tokenizer, tmp_path).states(features, (1,)).padded(1, [4]).clone()
    (path,) = tmp_path.rglob("layer-1.npy")
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no array at all", whole[:60]):
        path.write_bytes(content)
        assert torch.equal(StateStore(model, tokenizer, tmp_path).states(features, (1,)).padded(1, [4]), expected)
    for foreign in (np.zeros((3, 32), dtype=np.float32), np.zeros((59, 32), dtype=np.float16)):
        np.save(path, foreign)
        assert torch.equal(StateStore(model, tokenizer, tmp_path).states(features, (1,)).padded(1, [4]), expected)
    assert path.read_bytes() == whole


def test_an_interrupted_pass_leaves_nothing(model, features, tmp_path, monkeypatch):
    calls = []
    original = DLFAModel.encoder_states

    def stop(self, *args, **more):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *args, **more)

    monkeypatch.setattr(DLFAModel, "encoder_states", stop)
    with pytest.raises(KeyboardInterrupt):
        StateStore(model, make_tokenizer(), tmp_path, batch_size=2).states(features, (1,))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def aged(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_killed_writer_leaves_no_file_under_the_final_name(model, features, tmp_path):
    """SIGKILL half-way: what is left bears a temporary name, and goes when other states are written."""
    code = """
import sys, time, numpy as np
from pathlib import Path
from dlfa.frozen.layer_files import write_layers
with write_layers([Path(sys.argv[1]) / "layer-0.npy"], (1000, 4), np.dtype("float32")) as writer:
    writer.append([np.ones((500, 4), dtype=np.float32)])
    print("half", flush=True)
    time.sleep(60)
"""
    folder = tmp_path / "encoder" / "sequences-float32"
    process = subprocess.Popen([sys.executable, "-c", code, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "half\n"
    (left,) = folder.iterdir()
    aged(left, 3600)
    remove_abandoned(tmp_path)
    assert left.exists()  # the other process is at work on it
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert open_layer(folder / "layer-0.npy", (1000, 4), FLOAT) is None
    aged(left, 0)
    remove_abandoned(tmp_path)
    assert left.exists()  # another process may be about to lock it
    aged(left, 3600)
    StateStore(model, make_tokenizer(), tmp_path).states(features, (1,))
    assert not left.exists()


@pytest.mark.parametrize(("hours", "stays"), [(1, True), (48, False)])
def test_partial_files_go_by_their_age_where_there_are_no_locks(tmp_path, monkeypatch, hours, stays):
    monkeypatch.setattr("dlfa.frozen.layer_files.fcntl", None)
    left, other = tmp_path / ".0123456789abcdef-last.npy", tmp_path / ".my-own.npy"
    for path in (left, other):
        path.touch()
        aged(path, hours * 3600)
    remove_abandoned(tmp_path)
    assert (left.exists(), other.exists()) == (stays, True)


def test_rows_are_on_the_disk_before_a_file_has_its_name(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *values, name=name, real=real: (done.append(name), real(*values)))
    with write_layers([tmp_path / "layer-0.npy", tmp_path / "layer-1.npy"], (1, 4), FLOAT) as writer:
        writer.append([np.ones((1, 4), dtype=np.float32)] * 2)
    assert done == ["fsync", "fsync", "replace", "replace"]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    """In one process, as those of two containers on one cache may have one process id."""
    rows, path = np.arange(4000, dtype=np.float32).reshape(1000, 4), tmp_path / "layer-0.npy"
    with write_layers([path], rows.shape, FLOAT) as first:
        first.append([rows[:500]])
        with write_layers([path], rows.shape, FLOAT) as second:
            second.append([rows[:200]])
            first.append([rows[500:]])
            second.append([rows[200:]])
        assert np.array_equal(open_layer(path, rows.shape, FLOAT), rows)
    assert np.array_equal(open_layer(path, rows.shape, FLOAT), rows)
    assert [item.name for item in tmp_path.iterdir()] == ["layer-0.npy"]


def test_rows_too_few_or_too_many_and_values_out_of_range_are_refused(tmp_path):
    for rows, given in ((1, 16), (3, 48)):
        with (
            pytest.raises(ValueError, match=f"32 bytes were given {given}"),
            write_layers([tmp_path / "a.npy"], (2, 4), FLOAT) as writer,
        ):
            writer.append([np.ones((rows, 4), dtype=np.float32)])
    with (
        pytest.raises(ValueError, match="up to 100000 cannot be kept as float16; keep them as float32"),
        write_layers([tmp_path / "a.npy"], (1, 4), np.dtype("float16")) as writer,
    ):
        writer.append([np.full((1, 4), 1e5, dtype=np.float32)])
    assert not list(tmp_path.iterdir())


def test_fingerprint_tells_sequences_apart(features):
    same = [Feature(dict(feature.inputs), feature.example) for feature in features]
    assert sequences_fingerprint(same) == sequences_fingerprint(features)
    assert sequences_fingerprint(features[::-1]) != sequences_fingerprint(features)
    joined = [Feature({"input_ids": features[0].inputs["input_ids"] + features[1].inputs["input_ids"]}, 0)]
    assert sequences_fingerprint(joined) != sequences_fingerprint(features[:2])
    pairs = [
        Feature({**features[0].inputs, "token_type_ids": [0] * first + [1] * (5 - first)}, 0) for first in (2, 3, 5)
    ]
    assert len({sequences_fingerprint([feature]) for feature in (*pairs, features[0])}) == 4


def test_fingerprint_tells_encoders_apart_by_all_that_decides_a_state(model, monkeypatch):
    encoder = copy.deepcopy(model.encoder)

    def fingerprint(autocast: torch.dtype | None) -> str:
        return encoder_fingerprint(encoder, weights_fingerprint(encoder), autocast)

    first = fingerprint(None)
    encoder.config.name_or_path = "elsewhere"
    assert fingerprint(None) == first
    assert weights_fingerprint(encoder) == weights_fingerprint(model.encoder)
    found = {first, fingerprint(torch.bfloat16), fingerprint(torch.float16)}
    encoder.config.layer_norm_eps *= 2
    found.add(fingerprint(None))
    encoder.config._attn_implementation = "sdpa" if encoder.config._attn_implementation == "eager" else "eager"
    found.add(fingerprint(None))
    with torch.no_grad():
        next(encoder.parameters())[0].fill_(0.5)
    found.add(fingerprint(None))
    for library in (torch, transformers):
        monkeypatch.setattr(f"dlfa.frozen.fingerprints.{library.__name__}.__version__", "99.0")
        found.add(fingerprint(None))
    assert len(found) == 8
    assert weights_fingerprint(encoder) != weights_fingerprint(model.encoder)


def test_no_room_on_the_disk_is_told_before_anything_is_computed(model, features, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(ValueError, match=r"need .* GB .* choose another --states-cache"):
        StateStore(model, make_tokenizer(), tmp_path).states(features, (1,))


def test_no_room_for_all_lists_together_is_told_before_anything_is_computed(model, tmp_path, monkeypatch):
    short, long = ([TaggedSentence(("a",) * words)] for words in (3, 8))
    inputs = StateInputs(
        UDPOS, make_tokenizer(), Encoding(16), StateStore(model, make_tokenizer(), tmp_path, dtype="float16")
    )
    tokens = sum(len(inputs.features(part, training=False)[0].inputs["input_ids"]) for part in (short, long))
    needed = 3 * tokens * 32 * 2  # layers x tokens x width x bytes
    parts = [(short, False), (long, False)]
    free = needed - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(needed, needed - free, free))
    with pytest.raises(ValueError, match=r"need .* GB .* choose another --states-cache"):
        inputs.compute(parts, (0, 1))
    assert not list(tmp_path.rglob("*.npy"))
    free = needed
    inputs.compute(parts, (0, 1))
    assert sum(path.stat().st_size - 128 for path in tmp_path.rglob("*.npy")) == needed
    free = 0
    inputs.compute(parts, (0, 1))  # nothing is missing


def test_room_is_told_after_killed_processes_files_are_gone_and_before_any_process_writes(model, tmp_path, monkeypatch):
    inputs = StateInputs(UDPOS, make_tokenizer(), Encoding(16), StateStore(model, make_tokenizer(), tmp_path))
    left = inputs.store.folder / "sequences" / f".{'0' * 16}-last.npy"
    left.parent.mkdir(parents=True)
    left.touch()
    os.utime(left, (0, 0))
    steps = []

    def usage(_):
        steps.append("left" if left.exists() else "room")
        return shutil._ntuple_diskusage(10**6, 0, 10**6)

    class Processes:
        def wait_for_everyone(self):
            steps.append("all")

    monkeypatch.setattr(shutil, "disk_usage", usage)
    monkeypatch.setattr("dlfa.frozen.inputs.process_state", Processes)
    inputs.compute([([TaggedSentence(("a",))], False)], (0,))
    assert steps == ["room", "all", "room"]


def test_the_bar_of_the_states_tells_their_bytes(model, tmp_path, capsys):
    """Of those not on disk, without padding, and of the same sequences once."""

    def new_inputs():
        return StateInputs(UDPOS, make_tokenizer(), Encoding(16), StateStore(model, make_tokenizer(), tmp_path))

    inputs, long, short = new_inputs(), TaggedSentence(("a",) * 8), TaggedSentence(("a",) * 3)
    parts = [([long, short], False), ([long, short], False), ([], False), ([short], False)]
    inputs.compute(parts, (1,), progress=True)
    said = " ".join(capsys.readouterr().err.split())
    assert "hidden states" in said
    tokens = [len(feature.inputs["input_ids"]) for feature in inputs.features([long, short, short], training=False)]
    size = f"{2 * sum(tokens) * 32 * 4 / 1000:.1f}"
    assert f"{size}/{size} kB" in said
    assert "100%" in said
    new_inputs().compute(parts, (1,), progress=True)
    for path in tmp_path.rglob("*.npy"):
        path.unlink()
    inputs.compute(parts, (1,), progress=True)  # which has them open
    assert capsys.readouterr().err == ""
