"""One process at a time in an output directory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .processes import process_state
from .run_directory import RunDirectory

try:
    import fcntl
except ImportError:  # Windows has no such locks, and does without
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


@contextlib.contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold `directory`; it is made where it is not there, and removed in the end where nothing was put into it.

    The lock is the operating system's, so a process that dies, however it does, holds nothing, and the file that it
    leaves is in nobody's way. Of several processes of torchrun the first holds the directory for all.

    Raises:
        ValueError: another process holds it, or it is a file.
    """
    if not process_state().is_main_process:
        yield
        return
    RunDirectory(directory).check_is_no_file()
    made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    try:
        descriptor = _lock(directory / LOCK)
        try:
            yield
        finally:
            (directory / LOCK).unlink(missing_ok=True)
            os.close(descriptor)
    finally:
        with contextlib.suppress(OSError):  # something lies there
            for folder in made:
                folder.rmdir()


def _lock(path: Path) -> int:
    """The descriptor of the file `path`, locked."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if fcntl is None:
            return descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ValueError(
                f"--output-dir {path.parent} is in use by another process; wait for its end, or give another directory"
            ) from None
        except OSError:  # a file system without locks
            return descriptor
        # Whoever held it before may have removed it after it was opened here: then the lock is on a file of no name.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)
