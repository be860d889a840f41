"""Files that are there as a whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def temporary(path: Path) -> Path:
    """The name under which `path` is written before it is put in place; its suffix is kept for writers that look."""
    return path.with_name(f".{os.getpid()}-{path.name}")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, which never holds less than all of it, through a temporary file beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = temporary(path)
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have the content of the file `path`, written by others, on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, values: Any) -> None:
    """As `write_bytes`, indented JSON.

    Raises:
        ValueError: a NaN or an infinity, which JSON has no name for.
    """
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
