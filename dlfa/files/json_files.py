"""Read files that must contain a JSON object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read_object(path: Path, needed: Sequence[str] = ()) -> dict[str, Any]:
    """Return the JSON object in the file `path`, which must have the fields `needed`.

    Raises:
        ValueError: the file cannot be read, is not a JSON object, or lacks a field; the message names the file.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: needed a JSON object, got {type(values).__name__}")
    if missing := [name for name in needed if name not in values]:
        raise ValueError(f"{path}: lacks {', '.join(missing)}, which every such file of this package has")
    return values
