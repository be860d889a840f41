"""RunDirectory: what is removed, and what never is."""

import json
from pathlib import Path

import pytest

from dlfa.files import atomic
from dlfa.runs.run_directory import RunDirectory, recorded_files


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")


def there(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_a_run_recorded_is_removed_and_nothing_else(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.run_file.write_text(json.dumps({"config": {}, "data_sha256": "", "files": ["vocab.txt"]}))
    directory.record(["predictions/test-de.tsv", "vocab.txt"])
    assert recorded_files(directory.run_file) == ["predictions/test-de.tsv", "vocab.txt"]
    fill(tmp_path, "vocab.txt", "predictions/test-de.tsv", "results.json", "training.json", "languages.png")
    mine = {"predictions/test-fr.tsv", "config.json", "README.md", "merges.txt"}
    fill(tmp_path, *mine)
    directory.clear()
    assert there(tmp_path) == mine


def test_without_a_run_nothing_is_removed(tmp_path: Path) -> None:
    names = {"results.json", "training.json", "config.json", "predictions/test-de.tsv"}
    fill(tmp_path, *names)
    RunDirectory(tmp_path).clear()
    RunDirectory(tmp_path).clear_ensemble()
    assert there(tmp_path) == names


@pytest.mark.parametrize("name", ["predictions", "checkpoints"])
@pytest.mark.parametrize("how", ["a new run", "overwrite", "resume"])
def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path, name: str, how: str) -> None:
    directory = RunDirectory(tmp_path)
    if how != "a new run":
        directory.run_file.write_text(json.dumps({"config": {}, "data_sha256": ""}))
    fill(tmp_path, name)
    with pytest.raises(ValueError, match=rf"^--output-dir .* needs {name} to be a folder, and it is a file there$"):
        directory.check("encoder", overwrite=how == "overwrite", resume=how == "resume")


def test_an_ensemble_needs_its_folder_too(tmp_path: Path) -> None:
    (tmp_path / "predictions").symlink_to("nowhere")
    with pytest.raises(ValueError, match="needs predictions to be a folder"):
        RunDirectory(tmp_path).check_for_ensemble(overwrite=False)


def test_partial_files_are_told_from_others(tmp_path: Path) -> None:
    partial = {
        atomic.temporary(tmp_path / name).relative_to(tmp_path).as_posix()
        for name in ("run.json", "sweep.json", "results.json", "predictions/test-de.tsv")
    }
    mine = {".run.json", ".0123-run.json", f".{'0' * 16}-notes.json", "predictions/.hidden"}
    fill(tmp_path, *partial, *mine)
    directory = RunDirectory(tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in directory.partial_files()} == partial
    directory.remove_leftovers()
    assert there(tmp_path) == mine


@pytest.mark.parametrize("files", ["vocab.txt", [1], ["../mine.txt"], ["/mine.txt"], ["."], [""]])
def test_names_of_files_elsewhere_are_refused(tmp_path: Path, files: object) -> None:
    directory = RunDirectory(tmp_path / "run")
    fill(tmp_path, "mine.txt", "run/results.json")
    directory.run_file.write_text(json.dumps({"config": {}, "data_sha256": "", "files": files}))
    with pytest.raises(ValueError, match=r"run\.json: files must be a list of names of files in its directory, got"):
        directory.clear()
    assert there(tmp_path) == {"mine.txt", "run/results.json", "run/run.json"}
