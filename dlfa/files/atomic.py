"""Atomic writing of files."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TEMPORARY = r"\.[0-9a-f]{16}-"  # regular expression of the prefix that `temporary` adds


def temporary(path: Path) -> Path:
    """Return a new path next to `path`, with the same suffix, to write to before renaming.

    The name is random, because processes on two hosts or in two containers can share a folder and a process id.
    """
    return path.with_name(f".{secrets.token_hex(8)}-{path.name}")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` with `write_parts`."""
    write_parts(path, (content,))


def write_parts(path: Path, parts: Iterable[bytes]) -> None:
    """Write `parts`, one after the other, to `path` atomically, through a temporary file next to it.

    An error that `parts` raises leaves `path` unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = temporary(path)
    try:
        with partial.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush the content of the file `path`, written by other code, to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8 with `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def json_text(values: Any) -> str:
    """Return `values` as indented JSON.

    Raises:
        ValueError: a NaN or an infinity, which JSON does not support.
        TypeError: a value of a type that JSON does not support.
    """
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, values: Any) -> None:
    """Write the `json_text` of `values` with `write_bytes`; errors of `json_text` leave `path` unchanged."""
    write_text(path, json_text(values))
