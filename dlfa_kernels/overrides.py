"""Context managers that record launches, or set their tiles, groups or architecture.

They are for tuning, tests and measurements; no user setting uses them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .tiles import Tiles

if TYPE_CHECKING:
    from .launches import Launch


@dataclass(frozen=True)
class Overrides:
    """The effect of all active context managers; None means no change."""

    recorded: list[Launch] | None = None
    architecture: str | None = None
    tiles: Tiles | None = None
    l2_share: float | None = None


class _OfThread(threading.local):
    overrides: Overrides | None = None


# Overrides hold in all threads, because autograd runs the backward on a GPU in a separate thread. A thread with its own
# overrides uses only those, and no other thread sees them.
_overrides = Overrides()
_of_thread = _OfThread()


def overrides() -> Overrides:
    """Return the overrides that hold in this thread."""
    return _of_thread.overrides or _overrides


@contextmanager
def _changed(changes: Overrides) -> Iterator[None]:
    global _overrides
    outer, _overrides = _overrides, changes
    try:
        yield
    finally:
        _overrides = outer


@contextmanager
def record_launches(architecture: str | None = None) -> Iterator[list[Launch]]:
    """Record the launches made inside; on the meta device they are only recorded, not run.

    Args:
        architecture: such as "sm_80"; choose tiles for it, whatever the device of the tensors. None: no change.
    """
    recorded: list[Launch] = []
    with _changed(replace(_overrides, recorded=recorded, architecture=architecture or _overrides.architecture)):
        yield recorded


@contextmanager
def using_tiles(tiles: Tiles, in_this_thread: bool = False) -> Iterator[None]:
    """Launch with these tiles inside, whatever the sizes.

    Args:
        tiles: used without changes.
        in_this_thread: for tuning. Only this thread sees the tiles, and it ignores overrides set outside.
    """
    if not in_this_thread:
        with _changed(replace(_overrides, tiles=tiles)):
            yield
        return
    outer, _of_thread.overrides = _of_thread.overrides, Overrides(tiles=tiles)
    try:
        yield
    finally:
        _of_thread.overrides = outer


@contextmanager
def using_l2_share(share: float | None) -> Iterator[None]:
    """Launch by groups of sequences that fit in this share of L2, 0 to 1; 0: one group, None: no change. See `groups`.

    Raises:
        ValueError: the share is out of range.
    """
    if share is not None and not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1, got {share}")
    with _changed(_overrides if share is None else replace(_overrides, l2_share=share)):
        yield
