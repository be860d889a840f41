"""What saved runs are evaluated on where nothing else is asked for."""

from pathlib import Path

import pytest

from dlfa.evaluation.evaluation_data import data_dir_of, evaluation_data, examples_of_each
from dlfa.runs.run_config import RunConfig
from dlfa.tasks import get_task

UDPOS = get_task("udpos")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("dev-en", "test-en", "test-de", "test-fr"):
        (tmp_path / f"{name}.tsv").write_text("a\tNOUN\n\n" * 5)
    return tmp_path


def run(folder: Path | None, languages: tuple[str, ...] | None, size: int | None = None) -> RunConfig:
    return RunConfig(
        task="udpos", model="m", output_dir=Path("out"), data_dir=folder, languages=languages, max_eval_examples=size,
        model_options={"fusion_layer": 1},
    )  # fmt: skip


def counts(runs: list[RunConfig], folder: Path | None = None, **asked: object) -> dict[str, int]:
    chosen = {"data_dir": folder, "languages": None, "split": "test", "max_eval_examples": None, **asked}
    return {language: len(examples) for language, examples in evaluation_data(UDPOS, runs, **chosen).items()}


@pytest.mark.parametrize(
    ("languages", "found"),
    [
        ([("de", "en")], {"de": 5, "en": 5}),
        ([("fr", "de", "en"), ("en", "fr")], {"fr": 5, "en": 5}),
        ([("de",), ("fr",)], {"de": 5, "en": 5, "fr": 5}),  # none in common: all
        ([None], {"de": 5, "en": 5, "fr": 5}),
        ([()], {"de": 5, "en": 5, "fr": 5}),
    ],
)
def test_languages_that_all_runs_were_tested_on(folder, languages, found):
    assert counts([run(folder, chosen) for chosen in languages]) == found


def test_what_is_asked_for_comes_first(folder, tmp_path):
    runs = [run(tmp_path / "gone", ("de",), size=2)]
    assert counts(runs, folder, languages=["fr"], max_eval_examples=3) == {"fr": 3}
    assert counts(runs, folder, max_eval_examples=0) == {"de": 5, "en": 5, "fr": 5}
    assert counts(runs, folder, split="dev") == {"en": 2}
    (folder / "dev-de.tsv").write_text("a\tNOUN\n\n")
    assert counts(runs, folder, split="dev", languages=["de"]) == {"de": 1}
    assert counts([], folder) == {"de": 5, "en": 5, "fr": 5}
    with pytest.raises(ValueError, match=r"gone: no such folder, where the run in out had its data; give --data-dir"):
        counts(runs)


def test_other_data_have_languages_of_their_own(folder):
    other = folder / "other"
    other.mkdir()
    (other / "test-en.tsv").write_text("a\tNOUN\n\n")
    for tested, given, found in (
        (run(folder, ("de",)), folder, {"de": 5}),  # the run's own, named
        (run(folder, ("de",)), other / "..", {"de": 5}),
        (run(folder, ("de", "en")), other, {"en": 1}),
        (run(other, ("en",), size=2), folder, {"de": 2, "en": 2, "fr": 2}),
        (run(None, ("de",)), folder, {"de": 5, "en": 5, "fr": 5}),  # from the Hub
    ):
        assert counts([tested], given) == found


def test_without_runs_nothing_is_told():
    assert data_dir_of([], None) is None
    assert data_dir_of([run(None, None)], None) is None  # the Hub's
    assert examples_of_each([], None) is None
    assert examples_of_each([run(None, None, 7)], None) == 7
    assert examples_of_each([run(None, None, 7)], 0) is None
