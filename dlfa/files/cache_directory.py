"""The directory of caches that are kept between runs and can be recomputed."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_directory() -> Path:
    """Return the environment variable DLFA_CACHE, else a folder `dlfa` in the platform's user cache directory."""
    chosen = os.environ.get("DLFA_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "dlfa" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "dlfa"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlfa"
