"""Time limits of a command and of its parts."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

REPEAT_SECONDS = 5.0


class OutOfTime(BaseException):
    """Raised by `time_limit`. Not an Exception, because compilers catch those of the candidates that they try."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the body after `seconds`; only in the main thread, and between Python instructions.

    Repeat it every few seconds, because destructors and callbacks swallow exceptions.
    """

    def stop(*_: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), REPEAT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Budget:
    """The seconds left to a command, and the shortest time that a part of each kind took so far."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._taken: dict[str, float] = {}

    @property
    def remaining(self) -> float:
        """The seconds left; negative after the end."""
        return self._end - time.monotonic()

    def knows(self, kind: str) -> bool:
        """Return whether a part of this kind has run."""
        return kind in self._taken

    def allows(self, kind: str, guess: float) -> bool:
        """Return whether another part of this kind fits, by the shortest so far or, before the first, `guess`.

        The shortest, because the first of a kind often compiles what later ones use.
        """
        return self.remaining >= self._taken.get(kind, guess)

    @contextmanager
    def spend(self, kind: str) -> Iterator[None]:
        """Record the time that a part of this kind takes."""
        start = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - start
            self._taken[kind] = min(seconds, self._taken.get(kind, seconds))
