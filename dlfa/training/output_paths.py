"""Whether what an option names can be written, found out before the work."""

from __future__ import annotations

from pathlib import Path

from ..files import atomic
from .run_directory import RunDirectory


def check_file(option: str, path: Path) -> None:
    """Raise ValueError unless the file `path` of `option` can be written; its folder is made where it is not there.

    What a run wrote to its directory is not to be replaced.
    """
    folder = path.parent.resolve()
    for run, name in ((folder, path.name), (folder.parent, f"{folder.name}/{path.name}")):
        if RunDirectory(run).wrote(name):
            raise ValueError(f"{option} must not be a file of the run in {run}, got {path}")
    if path.exists() and not path.is_file():
        what = "a directory" if path.is_dir() else "a device"
        raise ValueError(f"{option} must be a file, got {what}: {path}")
    _try(option, path, path.parent)


def check_folder(option: str, path: Path) -> None:
    """Raise ValueError unless files can be written to the folder `path` of `option`; it is made if need be.

    A run's predictions are not to be replaced.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"{option} must be a directory, got a file: {path}")
    run = RunDirectory(path.resolve().parent)
    if run.predictions == path.resolve() and (run.run_file.exists() or run.ensemble_file.exists()):
        raise ValueError(f"{option} must not be the predictions of the run in {run.path}, got {path}")
    _try(option, path, path)


def make_folder(option: str, path: Path) -> None:
    """Make the folder `path` of `option` where it is not there; ValueError where that cannot be done."""
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
