"""One .npy file per layer with the concatenated states of many sequences, written atomically."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..files import atomic

try:
    import fcntl
except ImportError:  # Windows: a partial file goes by its age alone
    fcntl = None  # type: ignore[assignment]

# Seconds without a write after which a partial file counts as left by a killed process: without its lock, so that one
# is not taken between its making and its locking, and with it or where there are no locks.
_UNLOCKED_ABANDONED = 60.0
_ABANDONED = 24 * 3600.0
_PARTIAL = re.compile(atomic.TEMPORARY + r"(last|layer-\d+)\.npy")


class LayerWriter:
    """Writes the files of several layers in parallel, appending rows in order."""

    def __init__(self, files: Sequence[BinaryIO], dtype: np.dtype) -> None:
        self._files = files
        self._dtype = dtype

    def append(self, layers: Sequence[np.ndarray]) -> None:
        """Append rows, (n, E) float32 for each layer.

        Raises:
            ValueError: a value is outside the range of the files' dtype.
        """
        for file, states in zip(self._files, layers, strict=True):
            with np.errstate(over="ignore"):
                rows = np.ascontiguousarray(states, dtype=self._dtype)
            if not np.isfinite(rows).all():
                raise ValueError(
                    f"hidden states of up to {np.abs(states).max():g} cannot be kept as {self._dtype}; "
                    "keep them as float32"
                )
            file.write(rows.data)


@contextlib.contextmanager
def write_layers(paths: Sequence[Path], shape: tuple[int, int], dtype: np.dtype) -> Iterator[LayerWriter]:
    """Write arrays of `shape` (rows, E) to `paths`, which are created once all rows have been appended.

    Raises:
        ValueError: fewer or more rows were appended.
    """
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    partial = [atomic.temporary(path) for path in paths]
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    try:
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(path.open("wb")) for path in partial]
            for file in files:
                _lock(file)  # until it is closed, however the process ends
                np.lib.format.write_array_header_1_0(file, header)
            starts = [file.tell() for file in files]
            yield LayerWriter(files, dtype)
            for file, start in zip(files, starts, strict=True):
                written, needed = file.tell() - start, shape[0] * shape[1] * dtype.itemsize
                if written != needed:
                    raise ValueError(f"layer files of {needed} bytes were given {written}")
                file.flush()
                os.fsync(file.fileno())
        for source, path in zip(partial, paths, strict=True):
            os.replace(source, path)
    finally:
        for source in partial:
            source.unlink(missing_ok=True)


def open_layer(path: Path, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray | None:
    """Return the memory-mapped (rows, E) array in `path`; None if it is missing, different or damaged."""
    try:
        states = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return states if states.shape == shape and states.dtype == dtype else None


def remove_abandoned(folder: Path) -> None:
    """Remove the partial files below `folder` that killed processes left; those of other processes at work stay."""
    for path in folder.rglob(".*-*.npy"):
        if not _PARTIAL.fullmatch(path.name):
            continue
        with contextlib.suppress(OSError):
            age = time.time() - path.stat().st_mtime
            if age > _ABANDONED or (age > _UNLOCKED_ABANDONED and _is_unlocked(path)):
                path.unlink()


def _lock(file: BinaryIO) -> bool:
    """Lock an open file, and return whether that was possible: not if another process has it, or without locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_unlocked(path: Path) -> bool:
    with path.open("r+b") as file:  # writable, which locks over NFS need
        return _lock(file)
