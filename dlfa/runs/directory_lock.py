"""A lock that admits one process at a time to an output directory."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ..processes import process_state
from .output_paths import make_folder

LOCK = ".lock"


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Keep other processes out of `directory`. It is created if missing, and removed at the end if it is empty.

    The operating system holds the lock, so it is released however a process ends. A leftover lock file is harmless.
    With several processes of torchrun, the first holds the lock for all.

    Raises:
        ValueError: another process holds the directory, or it is a file, or it cannot be created or written.
    """
    if not process_state().is_main_process:
        yield
        return
    made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    lock = FileLock(directory / LOCK)
    try:
        make_folder("--output-dir", directory)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise ValueError(
                f"--output-dir {directory} is in use by another process; wait for its end, or give another directory"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):  # a file system without locks does without
                raise ValueError(f"--output-dir {directory} cannot be written: {error.strerror}") from error
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows removes no open file; there `release` does
                (directory / LOCK).unlink()
            lock.release()
    finally:
        with contextlib.suppress(OSError):  # something lies there
            for folder in made:
                folder.rmdir()
