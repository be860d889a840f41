"""Time limits, and what still fits into a budget of seconds."""

from __future__ import annotations

import contextlib
import signal
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("triton", reason="triton is there on Linux only")

from benchmarks import budget as budget_module
from benchmarks.budget import Budget, OutOfTime, time_limit


def test_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGALRM)

    def stubborn() -> None:
        with time_limit(0.05):
            while True:
                with contextlib.suppress(Exception):
                    time.sleep(0.01)

    with pytest.raises(OutOfTime):
        stubborn()

    def swallowing() -> None:
        with time_limit(0.05):
            with contextlib.suppress(OutOfTime):
                time.sleep(10)
            time.sleep(10)

    monkeypatch.setattr(budget_module, "REPEAT_SECONDS", 0.05)
    with pytest.raises(OutOfTime):
        swallowing()
    with time_limit(5):
        pass
    time.sleep(0.01)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_budget_learns_what_parts_take() -> None:
    budget = Budget(10)
    assert budget.allows("compile", 9)
    assert not budget.allows("compile", 11)
    with budget.spend("compile"):
        time.sleep(0.01)
    assert budget.allows("compile", 11)
    assert not Budget(0).allows("compile", 0.001)


def test_budget_goes_by_the_shortest_part(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("benchmarks.budget.time", SimpleNamespace(monotonic=lambda: now[0]))
    budget = Budget(15)
    for taken, fits in ((5, True), (2, True), (5.5, True), (1.5, False)):  # 10, 8, 2.5 and 1 left
        with budget.spend("compile"):
            now[0] += taken
        assert budget.remaining == 15 - now[0]
        assert budget.allows("compile", 0) is fits
