"""The package's own environment variables, each read in one place when it is needed.

Triton's TRITON_INTERPRET is asked once, in `backends`.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def backend() -> str | None:
    """DLFA_BACKEND: what "auto" stands for, "triton" or "eager"; None where unset."""
    return os.environ.get("DLFA_BACKEND") or None


def _switch(name: str) -> bool:
    """A variable that is 1, or 0, empty or unset.

    Raises:
        ValueError: it is something else.
    """
    value = os.environ.get(name, "")
    if value not in ("", "0", "1"):
        raise ValueError(f"{name} must be 0 or 1, got {value!r}")
    return value == "1"


def validate() -> bool:
    """DLFA_VALIDATE=1: check the values of cu_seqlens, and of dlfa's ids, masks, labels and word indices, on a GPU too.

    That costs a host sync at each check.

    Raises:
        ValueError: it is not 0 or 1.
    """
    return _switch("DLFA_VALIDATE")


def autotune() -> bool:
    """DLFA_AUTOTUNE=1: time tile sizes on the GPU at the first call of each bucket, and keep the best on disk.

    The token form always has the shipped ones.

    Raises:
        ValueError: it is not 0 or 1.
    """
    return _switch("DLFA_AUTOTUNE")


def autotune_seconds() -> float:
    """DLFA_AUTOTUNE_SECONDS, 60 by default: how long the search for the tiles of one bucket may take.

    Raises:
        ValueError: it is no positive number.
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
    """DLFA_TILE_CACHE, the file of tuned tile sizes; by default dlfa/tiles.json in $XDG_CACHE_HOME or ~/.cache."""
    explicit = os.environ.get("DLFA_TILE_CACHE")
    if explicit:
        return Path(explicit)
    home = os.path.expanduser("~")  # left as it is where there is neither HOME nor a user of this number
    default = os.path.join(tempfile.gettempdir() if home == "~" else home, ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or default) / "dlfa" / "tiles.json"
