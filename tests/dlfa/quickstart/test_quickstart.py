"""The quickstart from end to end at a small size, and its parts."""

from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer
from typer.testing import CliRunner

from dlfa.cli import app
from dlfa.quickstart import Settings, run
from dlfa.quickstart.comparison import FineTuning, compare
from dlfa.quickstart.corpus import LANGUAGES, Corpus, CorpusSize
from dlfa.quickstart.experiment import claim
from dlfa.quickstart.pretraining import Pretraining, blocks, pretrain, train_tokenizer

SMALL = Settings(
    CorpusSize(text=150, train=40, dev=10, test=20),
    Pretraining(vocabulary=250, layers=2, width=32, heads=2, steps=20, batch=8),
    FineTuning(fusion_layer=1, runs=2, epochs=1, batch=8),
)
NAMES = [language.name for language in LANGUAGES]


@pytest.fixture(scope="module")
def texts() -> dict[str, list[str]]:
    corpus = Corpus(1, SMALL.corpus)
    return {language.name: corpus.text(language) for language in LANGUAGES}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    run(folder, 5, settings=SMALL)
    return folder


def test_the_tokenizer_knows_every_letter_and_is_the_same_each_time(texts: dict[str, list[str]]) -> None:
    sentences = [sentence for language in texts.values() for sentence in language]
    first, second = train_tokenizer(sentences, 250), train_tokenizer(sentences, 250)
    assert first.get_vocab() == second.get_vocab()
    assert len(first) == 250
    ids = first(sentences)["input_ids"]
    assert all(row[0] == first.cls_token_id and row[-1] == first.sep_token_id for row in ids)
    assert all(first.unk_token_id not in row for row in ids)
    words = sentences[0].split()
    assert first(words, is_split_into_words=True)["input_ids"] == ids[0]


def test_blocks_hold_whole_sentences(texts: dict[str, list[str]]) -> None:
    tokenizer = train_tokenizer(texts["en"], 200)
    found = [block["input_ids"] for block in blocks(tokenizer, texts["en"], 40)]
    assert all(len(block) <= 40 and block[0] == tokenizer.cls_token_id for block in found)
    rows = tokenizer(texts["en"])["input_ids"]
    assert max(map(len, rows)) <= 40
    assert [token for block in found for token in block] == [token for row in rows for token in row]
    assert any(block.count(tokenizer.cls_token_id) > 1 for block in found)
    assert max(len(block["input_ids"]) for block in blocks(tokenizer, texts["en"], 8)) == 8


def test_pretraining_learns_and_repeats_itself(texts: dict[str, list[str]], tmp_path: Path) -> None:
    steps: list[tuple[int, float]] = []
    settings = Pretraining(vocabulary=250, layers=2, width=32, heads=2, steps=60, batch=8)
    facts = pretrain(texts, tmp_path / "a", settings, 1, lambda step, loss: steps.append((step, loss)))
    again = pretrain(texts, tmp_path / "b", settings, 1, lambda step, loss: None)
    other = pretrain(texts, tmp_path / "c", settings, 2, lambda step, loss: None)
    assert steps[-1][0] == 60
    assert facts["loss"] < 0.95 * math.log(250) < steps[0][1] * 1.05, "the loss did not fall below that of guessing"
    assert facts == again != other
    first, second = (AutoModel.from_pretrained(tmp_path / name).state_dict() for name in ("a", "b"))
    assert all(torch.equal(first[name], second[name]) for name in first if not name.startswith("pooler"))
    assert len(AutoTokenizer.from_pretrained(tmp_path / "a")) == facts["vocabulary"] == 250


def test_differences_are_those_of_the_means() -> None:
    def fake(value: float) -> dict[str, object]:
        return {"languages": {name: {"accuracy": value + index / 10} for index, name in enumerate(NAMES)}}

    found = compare({"last": [fake(0.1), fake(0.2)], "dlfa": [fake(0.3), fake(0.2)]})
    assert list(found["languages"]) == NAMES
    assert found["languages"]["en"]["last"] == [0.1, 0.2]
    assert found["languages"]["en"]["difference"] == pytest.approx(0.1)
    # the source language is left out of the mean
    assert found["average_zero_shot"]["last"] == pytest.approx([0.1 + 0.25, 0.2 + 0.25])
    assert found["average_zero_shot"]["difference"] == pytest.approx(0.1)


def test_what_a_run_leaves(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert list(results["languages"]) == NAMES
    assert results["fine_tuning_seeds"] == [5, 6]
    for name, layer in (("last", None), ("dlfa", 1)):
        for index, seed in enumerate((5, 6)):
            written = json.loads((finished / "runs" / f"{name}-seed{seed}" / "results.json").read_text())
            assert (written["fusion_layer"], written["seed"], written["task"]) == (layer, seed, "udpos")
            assert written["environment"]["device"] == "cpu"
            for language in NAMES:
                assert results["languages"][language][name][index] == written["languages"][language]["accuracy"]
    assert all(0.05 < share < 0.5 for share in results["most_frequent_tag"].values())
    assert (finished / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert len((finished / "comparison.png").read_bytes()) > 20_000


def test_the_same_seed_gives_the_same_figures(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_num_threads()
    results = run(tmp_path / "again", 5, settings=SMALL)
    assert torch.get_num_threads() == before
    written = json.loads((finished / "results.json").read_text())
    for name in ("languages", "average_zero_shot", "pretraining", "most_frequent_tag"):
        assert results[name] == written[name]
    table = capsys.readouterr().out
    for language in NAMES:
        assert f"{100 * results['languages'][language]['difference']:+.1f}" in table
    assert f"{100 * results['average_zero_shot']['difference']:+.1f}" in table


def test_a_directory_with_a_run_is_refused_or_replaced(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds a quickstart already; use --overwrite"):
        run(finished, 5, settings=SMALL)
    copy = tmp_path / "copy"
    (copy / "runs").mkdir(parents=True)
    (copy / "quickstart.json").touch()
    (copy / "results.json").touch()
    (copy / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"--output-dir .*notes.txt/x cannot be made: Not a directory"):
        claim(copy / "notes.txt" / "x", overwrite=True)
    claim(copy, overwrite=True)
    assert sorted(path.name for path in copy.iterdir()) == ["notes.txt", "quickstart.json"]


def test_what_lies_beside_a_quickstarts_own_files_is_kept(finished: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(finished, tmp_path / "copy")
    others = ["data/notes.txt", "encoder/notes.txt", "runs/last-seed5/dev.json", "runs/mine/run.json", "notes.txt"]
    for name in others:
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).touch()
    claim(copy, overwrite=True)
    left = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    assert left == {"quickstart.json", *others}
    for name in others:
        (copy / name).unlink()
    (copy / "runs/mine").rmdir()
    claim(copy, overwrite=True)
    assert [path.name for path in copy.iterdir()] == ["quickstart.json"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["data", "run.json", "encoder"])
def test_what_is_not_a_quickstarts_is_never_removed(tmp_path: Path, name: str, overwrite: bool) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=f"holds {name} of something else than a quickstart"):
        run(tmp_path, overwrite=overwrite, settings=SMALL)
    assert (tmp_path / name).is_dir()
    assert not (tmp_path / "quickstart.json").exists()


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file, not a directory"):
        run(tmp_path / "file", settings=SMALL)


@pytest.mark.parametrize("seed", [-1, 2**31, True, 1.0])
def test_seeds_are_checked(tmp_path: Path, seed: int) -> None:
    with pytest.raises(ValueError, match=r"seed must be an integer in 0\.\.2\^31-1"):
        run(tmp_path / "run", seed, settings=SMALL)
    assert not (tmp_path / "run").exists()


def test_the_command_line_says_no_in_one_line(finished: Path) -> None:
    result = CliRunner().invoke(app, ["quickstart", "--output-dir", str(finished)])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "holds a quickstart already" in result.stderr


@pytest.mark.slow
def test_the_whole_quickstart_transfers(tmp_path: Path) -> None:
    start = time.process_time()
    results = run(tmp_path / "run", 1)
    # Processor time of the one thread, which other work on the machine changes little.
    assert time.process_time() - start < 120
    for name in ("last", "dlfa"):
        for language in NAMES:
            scores = results["languages"][language][name]
            assert min(scores) > 2 * results["most_frequent_tag"][language], f"{name} learned nothing for {language}"
        assert min(results["languages"]["en"][name]) > 0.9
