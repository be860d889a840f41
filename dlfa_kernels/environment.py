"""The package's environment variables; each function reads one of them, at every call.

Triton's TRITON_INTERPRET is read once, in `backends`.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def backend() -> str | None:
    """Return DLFA_BACKEND, the backend that "auto" selects: "triton" or "eager"; None if unset."""
    return os.environ.get("DLFA_BACKEND") or None


def _switch(name: str) -> bool:
    """Return whether a variable is 1; it may also be 0, empty or unset.

    Raises:
        ValueError: it has another value.
    """
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        raise ValueError(f"{name} must be 0 or 1, got {value!r}")
    return value == "1"


def validate() -> bool:
    """DLFA_VALIDATE=1: check the values of cu_seqlens, and of dlfa's ids, masks, labels and word indices, on a GPU too.

    Each check costs a host sync.

    Raises:
        ValueError: it is not 0 or 1.
    """
    return _switch("DLFA_VALIDATE")


def autotune() -> bool:
    """DLFA_AUTOTUNE=1: time tile sizes on the GPU at the first call of each bucket, and store the best on disk.

    The token form always uses the shipped ones.

    Raises:
        ValueError: it is not 0 or 1.
    """
    return _switch("DLFA_AUTOTUNE")


def autotune_seconds() -> float:
    """Return DLFA_AUTOTUNE_SECONDS, 60 by default: the time limit for tuning one bucket.

    Raises:
        ValueError: it is not a positive number.
    """
    text = os.environ.get("DLFA_AUTOTUNE_SECONDS", "60")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds > 0:
        raise ValueError(f"DLFA_AUTOTUNE_SECONDS must be a positive number of seconds, got {text!r}")
    return seconds


def tile_cache() -> Path:
    """Return DLFA_TILE_CACHE, the file of tuned tiles; by default dlfa/tiles.json in $XDG_CACHE_HOME or ~/.cache."""
    explicit = os.environ.get("DLFA_TILE_CACHE")
    if explicit:
        return Path(explicit)
    home = os.path.expanduser("~")  # unchanged if there is neither HOME nor a user with this id
    default = os.path.join(tempfile.gettempdir() if home == "~" else home, ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or default) / "dlfa" / "tiles.json"
