"""Time that is given to a command, and to one part of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

REPEAT_SECONDS = 5.0


class OutOfTime(BaseException):
    """What `time_limit` raises. No Exception, since compilers catch those of the candidates that they try."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the body after `seconds`; in the main thread only, and between two steps of Python.

    Again every few seconds, as an exception is lost where it meets a destructor or a callback.
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
    """Seconds left to a command, and what its parts take by experience."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._taken: dict[str, float] = {}

    @property
    def remaining(self) -> float:
        """Seconds left; negative when over."""
        return self._end - time.monotonic()

    def knows(self, kind: str) -> bool:
        """Whether a part of a kind has run."""
        return kind in self._taken

    def allows(self, kind: str, guess: float) -> bool:
        """Whether another part of a kind fits, going by the latest or, before the first, by `guess` seconds."""
        return self.remaining >= self._taken.get(kind, guess)

    @contextmanager
    def spend(self, kind: str) -> Iterator[None]:
        """Note how long a part of a kind takes."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._taken[kind] = time.monotonic() - start
