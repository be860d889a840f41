"""`with` blocks that record the launches made inside, or choose their tiles, groups or architecture.

Tuning, tests and measurements use them; no setting of a user does.
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
    """What holds inside the `with` blocks that are open; None is no change."""

    recorded: list[Launch] | None = None
    architecture: str | None = None
    tiles: Tiles | None = None
    l2_share: float | None = None


class _OfThread(threading.local):
    overrides: Overrides | None = None


# Overrides hold in all threads, as autograd runs the backward on a GPU in a thread of its own. A thread with overrides
# of its own has those alone, and no other thread sees them.
_overrides = Overrides()
_of_thread = _OfThread()


def overrides() -> Overrides:
    """What the open `with` blocks change for this thread."""
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
    """Collect the launches made inside; on the meta device they are only collected.

    Args:
        architecture: choose tiles for it, such as "sm_80", whatever device the tensors are on.
    """
    recorded: list[Launch] = []
    with _changed(replace(_overrides, recorded=recorded, architecture=architecture)):
        yield recorded


@contextmanager
def using_tiles(tiles: Tiles, in_this_thread: bool = False) -> Iterator[None]:
    """Launch with these tiles inside, whatever the sizes.

    Args:
        tiles: taken as they are.
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
    """Launch by groups of sequences that fit in this share of L2, 0 to 1; 0 is one group, None no change. See `groups`.

    Raises:
        ValueError: a share out of these bounds.
    """
    if share is not None and not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1, got {share}")
    with _changed(_overrides if share is None else replace(_overrides, l2_share=share)):
        yield
