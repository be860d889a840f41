"""Files that are there as a whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

TEMPORARY = r"\.[0-9a-f]{16}-"  # regular expression: what `temporary` puts before a name


def temporary(path: Path) -> Path:
    """A new name beside `path`, under which it is written before it is put in place; its suffix stays as it is.

    Drawn at random: processes of two hosts or containers that share a folder may have one process id.
    """
    return path.with_name(f".{secrets.token_hex(8)}-{path.name}")


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


def json_text(values: Any) -> str:
    """`values` as indented JSON.

    Raises:
        ValueError: a NaN or an infinity, which JSON has no name for.
        TypeError: a value of a type that JSON has none for.
    """
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, values: Any) -> None:
    """As `write_bytes`, what `json_text` makes of `values`, which raises before anything is written."""
    write_text(path, json_text(values))
