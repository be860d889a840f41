"""Where what can be computed again is kept between runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_directory() -> Path:
    """The environment variable DLFA_CACHE, else a folder `dlfa` where the platform keeps its users' caches."""
    chosen = os.environ.get("DLFA_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "dlfa" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "dlfa"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlfa"
