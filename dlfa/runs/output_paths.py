"""Checks, before any work, that the paths of output options can be written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..files import atomic
from ..files.markdown_documents import written_with
from ..tasks import Task
from ..tasks.layout import data_files
from .run_directory import RunDirectory


def check_file(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Raise ValueError unless the file `path` of --output can be written; its folder is created if missing.

    Files that a run wrote to its directory, and `inputs`, are never replaced.
    """
    if str(path) == "-":
        raise ValueError("--output must be the path of a file, got '-'; leave it out for standard output")
    folder = path.parent.resolve()
    for run, name in ((folder, path.name), (folder.parent, f"{folder.name}/{path.name}")):
        if RunDirectory(run).wrote(name):
            raise ValueError(f"--output must not be a file of the run in {run}, got {path}")
    _check_no_input("--output", path, inputs)
    if path.exists() and not path.is_file():
        what = "a directory" if path.is_dir() else "a device"
        raise ValueError(f"--output must be a file, got {what}: {path}")
    _try("--output", path, path.parent)


def check_document(path: Path, document: str, names: Iterable[str], *, overwrite: bool) -> None:
    """Raise ValueError unless the Markdown `document` and the files `names` can be written to `path`, of --output.

    The folder is created if missing. None of the files may exist yet, except those that an earlier document names as
    written with it, unless `overwrite`. A run's own predictions are never replaced.
    """
    _check_place("--output", path)
    earlier = written_with(path / document)
    _check_none_there("--output", path, [name for name in (document, *names) if name not in earlier], overwrite)
    _try("--output", path, path)


def check_predictions(path: Path, names: Iterable[str], task: Task, data_dir: Path | None, *, overwrite: bool) -> None:
    """Raise ValueError unless the files `names` of `task` can be written to the folder `path` of --predictions.

    The folder is created if missing. None of the files may exist yet, unless `overwrite`. A run's own predictions are
    never replaced.

    Predictions have the same names as XTREME's gold labels. The folder of those, `data_dir`, and the data files are
    therefore always refused; `overwrite` only allows replacing other files of these names.
    """
    if data_dir is not None and path.resolve() == data_dir.resolve():
        raise ValueError(
            f"--predictions must not be the folder of the data, whose files have the same names, got {path}"
        )
    _check_place("--predictions", path)
    files, inputs = [path / name for name in names], data_files(task, data_dir)
    for file in files:
        _check_no_input("--predictions", file, inputs)
    _check_none_there("--predictions", path, [file.name for file in files], overwrite)
    _try("--predictions", path, path)


def _check_none_there(option: str, path: Path, names: Iterable[str], overwrite: bool) -> None:
    there = next((name for name in names if os.path.lexists(path / name)), None)
    if there is not None and not overwrite:
        raise ValueError(f"{option} {path} holds {there} already; give --overwrite to replace it, or another folder")


def _check_place(option: str, path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise ValueError(f"{option} must be a directory, got a file: {path}")
    run = RunDirectory(path.resolve().parent)
    if run.predictions == path.resolve() and (run.run_file.exists() or run.ensemble_file.exists()):
        raise ValueError(f"{option} must not be the predictions of the run in {run.path}, got {path}")


def _check_no_input(option: str, path: Path, inputs: Iterable[Path]) -> None:
    # A link is replaced itself, not what it points to: folders are compared by what they are, names as they stand.
    place = path.parent.resolve() / path.name
    if any(place in (file.parent.resolve() / file.name, file.resolve()) for file in inputs):
        raise ValueError(f"{option} must not be a file that is read, got {path}")


def make_folder(option: str, path: Path) -> None:
    """Create the folder `path` of `option` if it is missing; raise ValueError if that fails, or it is a file."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"{option} {path} is a file, not a directory")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{option} {path} cannot be made: {error.strerror}") from error


def _try(option: str, path: Path, folder: Path) -> None:
    probe = atomic.temporary(folder / "probe")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"{option} {path} cannot be written: {error.strerror}") from error
