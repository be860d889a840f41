"""Sweeps: one ordinary run a cell, kept, resumed, or recorded as failed; a directory of another sweep is refused."""

import dataclasses
import gc
import json
import multiprocessing
import os
import queue
import shutil
import signal
import threading
import time
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import torch
import transformers
from tiny_tasks import make_encoder, make_udpos
from transformers import BertModel, CLIPConfig
from typer.testing import CliRunner

from dlfa.cli import app
from dlfa.files import atomic
from dlfa.models.fusion_names import WITHOUT_LAYER
from dlfa.runs.run_config import RunConfig
from dlfa.sweep import cells as sweep_cells
from dlfa.sweep import run as sweep_run
from dlfa.sweep.config import MODES, Cell, SweepConfig
from dlfa.sweep.run import run_sweep
from dlfa.tasks.loading import TaskData
from dlfa.training import recorded_runs
from dlfa.training.shared_inputs import SharedInputs
from dlfa.training.train import prepare, train


@pytest.fixture(scope="module")
def base(encoder, data_dir, tmp_path_factory):
    return RunConfig(
        task="udpos", model=str(encoder), output_dir=Path("unset"), data_dir=data_dir, learning_rate=1e-2, epochs=1,
        batch_size=8, gradient_accumulation=1, max_length=32, max_train_examples=16, freeze_encoder=True,
        states_cache=tmp_path_factory.mktemp("cache"),
    )  # fmt: skip


@pytest.fixture
def config(base, tmp_path):
    return SweepConfig(base, tmp_path / "sweep", (0, 1), (1, 2), ("last", "aif:gate"))


@pytest.fixture
def runs(monkeypatch):
    """Names of the cells that are run."""
    seen = []
    original = sweep_cells._run_cell

    def run(config, cell, *more):
        seen.append(cell.name)
        original(config, cell, *more)

    monkeypatch.setattr(sweep_cells, "_run_cell", run)
    return seen


NAMES = [
    "last-seed1", "aif-gate-layer0-seed1", "aif-gate-layer1-seed1",
    "last-seed2", "aif-gate-layer0-seed2", "aif-gate-layer1-seed2",
]  # fmt: skip


def test_cells_are_the_runs_that_train_would_make(config, base, tmp_path):
    result = run_sweep(config)
    assert [cell["name"] for cell in result["cells"]] == NAMES
    assert {cell["state"] for cell in result["cells"]} == {"done"}
    assert json.loads((config.output_dir / "sweep.json").read_text()) == result
    alone = train(
        dataclasses.replace(
            base, output_dir=tmp_path / "alone", seed=2, model_options={"fusion_layer": 1, "fusion": "aif"}
        )
    )
    cell = config.output_dir / "cells" / "aif-gate-layer1-seed2"
    results = json.loads((cell / "results.json").read_text())
    assert results["languages"] == alone["languages"]
    assert results["train"]["loss"] == alone["train"]["loss"]
    assert (results["fusion_layer"], results["fuse"], results["seed"]) == (1, "gate", 2)
    assert not (cell / "model.safetensors").exists()
    row = next(row for row in result["summary"] if row["fusion_layer"] == 1)
    both = [c["average_zero_shot"] for c in result["cells"] if c["fusion_layer"] == 1]
    assert (row["done"], row["of"]) == (2, 2)
    assert row["average_zero_shot"] == pytest.approx(sum(both) / 2)
    assert row["average_zero_shot_std"] == pytest.approx(abs(both[0] - both[1]) / 2**0.5)


def test_finished_cells_are_kept_and_an_interrupted_one_goes_on(config, runs, monkeypatch):
    original, calls = recorded_runs.fit, []

    def stop(prepared, **more):
        calls.append(prepared)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(prepared, **more)

    monkeypatch.setattr(recorded_runs, "fit", stop)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(config)
    states = {
        cell["name"]: cell["state"] for cell in json.loads((config.output_dir / "sweep.json").read_text())["cells"]
    }
    assert [states[name] for name in NAMES[:4]] == ["done", "done", "to do", "to do"]
    before = (config.output_dir / "cells" / NAMES[0] / "results.json").stat().st_mtime_ns
    runs.clear()
    result = run_sweep(config)
    assert runs == NAMES[2:]
    assert {cell["state"] for cell in result["cells"]} == {"done"}
    assert (config.output_dir / "cells" / NAMES[0] / "results.json").stat().st_mtime_ns == before


def test_failed_cell_is_recorded_and_the_rest_goes_on(config, runs, monkeypatch):
    original = recorded_runs.fit

    def fail(prepared, **more):
        if prepared.directory.path.name == NAMES[1]:
            raise FloatingPointError("the training loss became nan")
        return original(prepared, **more)

    monkeypatch.setattr(recorded_runs, "fit", fail)
    result = run_sweep(config)
    states = [cell["state"] for cell in result["cells"]]
    assert states == ["done", "failed", "done", "done", "done", "done"]
    assert result["cells"][1]["error"] == "FloatingPointError: the training loss became nan"
    assert "Traceback" in (config.output_dir / "cells" / NAMES[1] / "error.txt").read_text()
    assert (result["summary"][1]["done"], result["summary"][1]["of"]) == (1, 2)
    monkeypatch.setattr(recorded_runs, "fit", original)
    runs.clear()
    assert {cell["state"] for cell in run_sweep(config)["cells"]} == {"done"}
    assert runs == [NAMES[1]]
    assert not (config.output_dir / "cells" / NAMES[1] / "error.txt").exists()


def test_models_that_complete_runs_lack_are_not_promised(config):
    small = dataclasses.replace(config, seeds=(1,), modes=("last", "sum"), fusion_layers=(1,))
    run_sweep(small)
    with pytest.raises(
        ValueError, match=r"--keep-models: 2 complete runs in .*cells have no model, such as last-seed1"
    ):
        run_sweep(small, keep_models=True)
    for cell in (small.output_dir / "cells").iterdir():
        shutil.rmtree(cell)
    for _ in range(2):
        run_sweep(small, keep_models=True)
    assert (small.output_dir / "cells" / "last-seed1" / "config.json").exists()


def test_a_file_in_place_of_a_runs_folder_is_told_before_any_run(config, runs):
    small = dataclasses.replace(config, seeds=(1,), modes=("last", "sum"), fusion_layers=(1,))
    run_sweep(small)
    runs.clear()
    for name in ("sum-layer1-seed1", "last-seed1"):
        shutil.rmtree(small.output_dir / "cells" / name)
    (small.output_dir / "cells" / "sum-layer1-seed1").touch()
    with pytest.raises(ValueError, match="needs cells/sum-layer1-seed1 to be a folder, and it is a file there"):
        run_sweep(small)
    assert not runs


class DyingPool:
    """In place of a pool of processes: runs the first cell, is killed amid the second, and tells it as a pool does."""

    def __init__(self, *_, **__):
        self.submitted = 0

    def submit(self, run, config, cell, keep_models):
        self.submitted += 1
        future = Future()
        if self.submitted == 1:
            future.set_result(run(config, cell, keep_models))
            return future
        if self.submitted == 2:
            prepare(config.run_config(cell), resume=True)
        future.set_exception(BrokenProcessPool("A process in the process pool was terminated abruptly"))
        return future

    def shutdown(self, **_):
        pass


def states_in(config):
    return [cell["state"] for cell in json.loads((config.output_dir / "sweep.json").read_text())["cells"]]


def test_a_killed_process_fails_no_run(config, runs, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sweep_cells, "ProcessPoolExecutor", DyingPool)
        with pytest.raises(sweep_cells.ProcessEndedError, match="a process of the sweep was killed"):
            run_sweep(config, processes=2)
    assert states_in(config) == ["done", "interrupted", *["to do"] * 4]
    assert not list(config.output_dir.rglob("error.txt"))
    asked = []
    original = recorded_runs.prepare
    monkeypatch.setattr(
        recorded_runs, "prepare", lambda run, **how: asked.append(how["resume"]) or original(run, **how)
    )
    runs.clear()
    assert {cell["state"] for cell in run_sweep(config)["cells"]} == {"done"}
    assert (runs, asked) == (NAMES[1:], [True] * 5)


def killed_at_the_second(config, cell, keep_models):
    """What a process runs that is killed at the second cell; known to it by its module's name."""
    if cell.name == NAMES[1]:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_command_with_one_line(base, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep_cells, "_run_in_worker", killed_at_the_second)
    arguments = [
        "sweep", "--task", "udpos", "--model", base.model, "--data-dir", str(base.data_dir), "--output-dir",
        str(tmp_path / "out"), "--freeze-encoder", "--states-cache", str(base.states_cache), "--max-length", "32",
        "--quiet", "--processes", "2",
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1, result.output
    said = "a process of the sweep was killed, or ran out of memory; the same command goes on with the sweep"
    assert result.stderr == f"dlfa: error: {said}\n"
    assert not list(tmp_path.rglob("error.txt"))


def at_work(config, cell, keep_models):
    """What a process runs whose cells take long; known to it by its module's name."""
    prepare(config.run_config(cell), resume=True)
    (config.output_dir / f"begun-{cell.name}").touch()
    time.sleep(20)


@pytest.fixture
def interruptible():
    """Let SIGINT raise KeyboardInterrupt; it is ignored where a shell started the tests in the background."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_the_processes_and_fails_no_run(config, monkeypatch):
    interrupted = []

    def interrupt():
        while len(list(config.output_dir.glob("begun-*"))) < 2:
            time.sleep(0.05)
        interrupted.append(time.monotonic())
        for process in (*(worker.pid for worker in multiprocessing.active_children()), os.getpid()):
            os.kill(process, signal.SIGINT)  # to every process, as a terminal's Ctrl-C

    with monkeypatch.context() as patch:
        patch.setattr(sweep_cells, "_run_in_worker", at_work)
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            run_sweep(config, processes=2)
    assert time.monotonic() - interrupted[0] < 10  # a busy machine's second
    assert not multiprocessing.active_children()
    begun = [path.name for path in config.output_dir.glob("begun-*")]
    assert sorted(begun) == sorted(f"begun-{name}" for name in NAMES[:2])
    assert not list(config.output_dir.rglob("error.txt"))
    for name in begun:
        (config.output_dir / name).unlink()
    assert {cell["state"] for cell in run_sweep(config)["cells"]} == {"done"}


def test_a_run_that_failed_starts_anew_and_an_interrupted_one_goes_on(base, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(recorded_runs, "prepare", lambda run, shared, **how: asked.append(how))
    run = dataclasses.replace(base, output_dir=tmp_path)
    assert recorded_runs.run_recorded(run, lambda: None, keep_model=False)
    recorded_runs.error_file(tmp_path).write_text("Traceback")
    assert recorded_runs.run_recorded(run, lambda: None, keep_model=False)
    assert asked == [{"overwrite": False, "resume": True}, {"overwrite": True, "resume": False}]
    assert not recorded_runs.error_file(tmp_path).exists()


@pytest.mark.parametrize(
    ("visible", "gpus", "number", "chosen"),
    [(None, 2, 1, "1"), ("3,5", 2, 0, "3"), ("3,5", 2, 1, "5"), ("3,5", 2, 2, "3"), (None, 1, 0, None)],
)
def test_a_process_has_a_gpu_of_its_own(monkeypatch, visible, gpus, number, chosen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    numbers = start_worker(monkeypatch, number, gpus)
    assert numbers.empty()
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == chosen


def test_processes_without_a_gpu_share_the_cores(monkeypatch):
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    for cores in (9, 2):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        start_worker(monkeypatch, 0, 0)
    assert threads == [3, 1]


@pytest.mark.parametrize(
    ("frozen", "gpus", "runs", "expected"),
    [
        (True, 0, 7, 1), (True, 0, 15, 1), (True, 0, 16, 2), (True, 0, 99, 4), (True, 3, 99, 3),
        (False, 0, 99, 1), (False, 3, 99, 3),
    ],
)  # fmt: skip
def test_how_many_run_at_a_time(config, monkeypatch, frozen, gpus, runs, expected):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    chosen = dataclasses.replace(config, base=dataclasses.replace(config.base, freeze_encoder=frozen))
    assert sweep_cells.default_processes(chosen, runs) == expected


def start_worker(monkeypatch, number, gpus):
    """What one of three processes does at its start."""
    for name in ("set_verbosity_error", "disable_progress_bar"):
        monkeypatch.setattr(transformers.logging, name, lambda: None)
    numbers = queue.Queue()
    numbers.put(number)
    handler = signal.getsignal(signal.SIGINT)
    try:
        sweep_cells._start_worker(numbers, 3, gpus)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, handler)  # pytest, too, is to end at Ctrl-C
    return numbers


def test_data_and_encoder_are_read_once(config, monkeypatch):
    import dlfa.training.train as training
    from dlfa.tasks.tagging import TaggingTask

    calls = {"encode": 0, "load": 0}
    encode, load = TaggingTask.encode, training.load_shared_inputs

    def counted_encode(self, *args, **more):
        calls["encode"] += 1
        return encode(self, *args, **more)

    def counted_load(*args, **more):
        calls["load"] += 1
        return load(*args, **more)

    monkeypatch.setattr(TaggingTask, "encode", counted_encode)
    monkeypatch.setattr(sweep_run, "load_shared_inputs", counted_load)
    monkeypatch.setattr(training, "load_shared_inputs", counted_load)
    run_sweep(config)
    assert calls == {"encode": 5, "load": 1}  # train, dev, three languages


def test_another_configuration_is_refused_with_the_keys_that_differ(config, base, runs):
    run_sweep(dataclasses.replace(config, modes=("last",), seeds=(1,)))
    runs.clear()
    other = dataclasses.replace(config, base=dataclasses.replace(base, epochs=2), modes=("last",), seeds=(1, 3))
    with pytest.raises(ValueError, match=r"another configuration \(epochs: 1 there, 2 now; seeds: \[1\] there"):
        run_sweep(other)
    assert runs == []


@pytest.mark.parametrize(
    ("changed", "frozen"),
    [("data", True), ("encoder", True), ("encoder", False), ("intermediate_data", True)],
)
def test_a_sweep_goes_on_with_its_own_data_and_encoder_alone(config, base, runs, tmp_path, changed, frozen):
    encoder, data, stage = make_encoder(tmp_path / "e"), make_udpos(tmp_path / "d"), make_udpos(tmp_path / "s", 8, 2)
    of_all = {"model": str(encoder), "data_dir": data, "intermediate": (f"udpos:{stage}",), "freeze_encoder": frozen}
    config = dataclasses.replace(config, base=dataclasses.replace(base, **of_all), modes=("last",))
    run_sweep(config)
    shutil.rmtree(config.output_dir / "cells" / NAMES[0])
    runs.clear()
    if changed == "encoder":
        other = BertModel.from_pretrained(encoder)
        other.embeddings.LayerNorm.bias.data += 1
        other.save_pretrained(encoder)
    else:
        with (data / "test-de.tsv" if changed == "data" else stage / "train-en.tsv").open("a") as file:
            file.write("nab\tNOUN\n\n")
    with pytest.raises(ValueError, match=rf"\(another {changed}_sha256\)"):
        run_sweep(config)
    assert runs == []


def test_a_complete_sweep_tells_its_data_by_what_they_are(config, base, runs, tmp_path):
    config = dataclasses.replace(config, modes=("last",), seeds=(1,))
    whole = run_sweep(config)["cells"]
    runs.clear()
    data = shutil.copytree(base.data_dir, tmp_path / "moved")
    config = dataclasses.replace(config, base=dataclasses.replace(base, data_dir=data))
    assert run_sweep(config)["cells"] == whole
    (data / "test-de.tsv").write_text("nab\tNOUN\n\n")
    with pytest.raises(ValueError, match=r"\(another data_sha256\)"):
        run_sweep(config)
    assert runs == []


def test_a_sweep_killed_as_it_began_starts_again(config):
    config.output_dir.mkdir()
    partial = atomic.temporary(config.output_dir / "sweep.json")
    partial.write_text("{")
    small = dataclasses.replace(config, modes=("last",), seeds=(1,))
    assert [cell["state"] for cell in run_sweep(small)["cells"]] == ["done"]
    assert not partial.exists()


def test_directory_of_something_else_is_refused(config):
    config.output_dir.mkdir()
    (config.output_dir / "thesis.tex").touch()
    with pytest.raises(ValueError, match="something else than a sweep"):
        run_sweep(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"modes": ("aif",)},
            f"modes must be of {', '.join(MODES)}, got 'aif'",
        ),
        ({"seeds": (1, 1)}, "seeds must name at least one, and none twice"),
        ({"fusion_layers": (2,)}, r"fusion_layer must be in 0\.\.1"),
        ({"fusion_layers": (-2, 1)}, "fusion_layers must name at least one, and none twice, got 1,1"),
        ({"seeds": (-1,)}, "seed must be in"),
        ({"intermediate": ("sick:nowhere",)}, "nowhere: no such folder"),
        ({"languages": ("en", "xx")}, "language 'xx' is not in"),
    ],
)
def test_bad_sweeps_are_refused_before_anything_is_written(config, changes, message):
    of_base = {name: value for name, value in changes.items() if not hasattr(config, name)}
    own = {name: value for name, value in changes.items() if hasattr(config, name)}
    with pytest.raises(ValueError, match=message):
        run_sweep(dataclasses.replace(config, base=dataclasses.replace(config.base, **of_base), **own))
    assert not config.output_dir.exists()


def test_tokens_without_an_embedding_are_found_before_anything_is_written(config, tmp_path):
    encoder = make_encoder(tmp_path / "encoder")
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    tokenizer.add_tokens(["nab"])
    tokenizer.save_pretrained(encoder)
    with pytest.raises(ValueError, match="gives token 'nab' the id"):
        run_sweep(dataclasses.replace(config, base=dataclasses.replace(config.base, model=str(encoder))))
    assert not config.output_dir.exists()


def test_an_encoder_without_layers_of_its_own_is_refused(config, tmp_path):
    CLIPConfig().save_pretrained(tmp_path / "clip")
    base = dataclasses.replace(config.base, model=str(tmp_path / "clip"))
    with pytest.raises(ValueError, match="encoder_config must have an integer hidden_size, 'clip' has none"):
        dataclasses.replace(config, base=base).resolved()


def test_modes_without_a_layer_run_once_a_seed(config):
    every = dataclasses.replace(config, modes=MODES, fusion_layers=None).resolved()
    seeds, layers = 2, 2
    assert len(every.cells()) == seeds * (len(WITHOUT_LAYER) + layers * (len(MODES) - len(WITHOUT_LAYER)))
    assert Cell("scalar_mix", None, 2) in every.cells()


def test_negative_layers_are_the_layers_they_stand_for(config):
    assert dataclasses.replace(config, fusion_layers=(-3, -2)).resolved() == config.resolved()
    assert dataclasses.replace(config, fusion_layers=((-2, -3),)).resolved().fusion_layers == ((1, 0),)


def test_one_run_fuses_several_layers(config, runs):
    several = dataclasses.replace(config, fusion_layers=(0, (1, 0)), modes=("lower", "aif:gate"), seeds=(1, 2))
    result = run_sweep(several)
    assert runs == [cell["name"] for cell in result["cells"]]
    assert runs[:3] == ["lower-layer0-seed1", "aif-gate-layer0-seed1", "aif-gate-layer1-0-seed1"]
    assert several.resolved().run_config(Cell("aif:gate", (1, 0), 1)).model_options["fusion_layer"] == [1, 0]
    assert json.loads((config.output_dir / "sweep.json").read_text()) == result
    assert [(row["mode"], row["fusion_layer"], row["of"]) for row in result["summary"]] == [
        ("lower", 0, 2), ("aif:gate", 0, 2), ("aif:gate", [1, 0], 2),
    ]  # fmt: skip
    assert run_sweep(several) == result


def test_a_mode_without_layers_is_refused(config):
    several = dataclasses.replace(config, fusion_layers=((1, 0),), modes=("aif:gate", "lower"))
    with pytest.raises(ValueError, match="fusion_layers must hold a single layer for mode lower, got only several"):
        run_sweep(several)
    assert not config.output_dir.exists()


def test_several_processes_read_their_own_inputs_and_cells_are_told_as_they_start(config, monkeypatch):
    """The main process, which has checked the inputs, does not keep them while the others run."""
    started, kept, busy, waits = [], [], [], []

    def inputs_in_memory():
        gc.collect()
        return sum(type(each) in (SharedInputs, TaskData) for each in gc.get_objects())

    def seen_wait(futures, **options):
        waits.append(len(futures))
        return wait(futures, **options)

    class Pool:
        def __init__(self, *_, **__):
            pass

        def submit(self, run, config, cell, keep_models):
            busy.append(cell)
            kept.append(inputs_in_memory())
            future = Future()
            future.set_result(None)
            return future

        def shutdown(self, **_):
            pass

    describer = sweep_run._describer
    monkeypatch.setattr(
        sweep_run, "_describer", lambda bar, task: lambda cell: started.append(cell) or describer(bar, task)(cell)
    )
    monkeypatch.setattr(sweep_cells, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(sweep_cells, "wait", seen_wait)
    before = inputs_in_memory()
    run_sweep(config, processes=2)
    assert started == busy == list(config.cells())
    assert max(kept) <= before
    assert max(waits) == 2  # no cell is told as started before a process is free


@pytest.mark.slow
def test_two_processes_give_the_same_results(config, tmp_path):
    small = dataclasses.replace(config, seeds=(1,))
    alone = run_sweep(small)
    both = run_sweep(dataclasses.replace(small, output_dir=tmp_path / "both"), processes=2)
    scores = [[(cell["name"], cell["average"]) for cell in result["cells"]] for result in (alone, both)]
    assert scores[0] == scores[1]


def test_command_prints_the_table_and_ends_with_one_for_failed_cells(base, tmp_path, monkeypatch):
    arguments = [
        "sweep", "--task", "udpos", "--model", base.model, "--data-dir", str(base.data_dir), "--output-dir",
        str(tmp_path / "out"), "--fusion-layers", "1,1+0", "--seeds", "1", "--modes", "last,aif:select",
        "--epochs", "1",
        "--freeze-encoder", "--states-cache", str(base.states_cache), "--max-length", "32",
        "--max-train-examples", "16",
        "--quiet",
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "aif:select" in result.stdout
    assert " 1+0 " in result.stdout
    alone = CliRunner().invoke(app, ["evaluate", str(tmp_path / "out")])
    assert (alone.exit_code, alone.stdout) == (2, "")
    assert "out holds a sweep; give one of its runs, which are in " in alone.stderr
    assert "1 of 1" in result.stdout
    bad = CliRunner().invoke(app, [*arguments[:-1], "--seeds", "x"])
    assert bad.exit_code == 2
    assert "--seeds must be integers" in bad.stderr
    bad = CliRunner().invoke(app, [*arguments[:-1], "--fusion-layers", "1+"])
    assert bad.exit_code == 2
    assert "--fusion-layers must be all, or layers such as 4,6,6+4, got '1+'" in bad.stderr
    (tmp_path / "out" / "cells" / "last-seed1" / "results.json").unlink()
    monkeypatch.setattr(recorded_runs, "fit", lambda *_, **__: 1 / 0)
    failed = CliRunner().invoke(app, arguments)
    assert failed.exit_code == 1
    assert "1 of 3 runs failed: last-seed1" in failed.stderr
