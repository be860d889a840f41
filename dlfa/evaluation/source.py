"""The source that runs: its commit, and installed versions."""

from __future__ import annotations

import subprocess
from importlib import metadata
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
# The packages that affect a result; changes elsewhere in the tree do not mark a run as dirty.
_PACKAGES = ("dlfa", "dlfa_kernels")


def checkout_commit(*more: str, digits: int = 40) -> str | None:
    """Return the commit of the checkout of the packages, with "-dirty" if their files differ from it.

    Args:
        more: further paths in the checkout, as git takes them, whose files must not differ either.
        digits: length of the hash.

    Returns:
        The commit; None outside of a checkout, or without git.
    """
    commit = _git("rev-parse", "HEAD") if (_ROOT / ".git").exists() else None
    if not commit:
        return None
    changed = _git("status", "--porcelain", "--", *_PACKAGES, *more)
    return f"{commit[:digits]}-dirty" if changed else commit[:digits]


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=False)
    except OSError:  # git is not installed
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def installed_version(distribution: str) -> str | None:
    """Return the version of a distribution; None if it is not installed, such as dlfa run from a checkout."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
