"""The suite of training steps: turns of providers."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

pytest.importorskip("triton", reason="triton is there on Linux only")

from suite_cases import CPU

from benchmarks import step
from benchmarks.budget import Budget


def test_turns_of_training_steps_are_timed_by_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now, order = [0.0], []
    monkeypatch.setattr(step, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def takes(name: str, seconds: float) -> Callable[[], None]:
        def call() -> None:
            order.append(name)
            now[0] += seconds

        return call

    running = SimpleNamespace(device=CPU, budget=Budget(60))
    laps = step.take_turns(running, {"a": takes("a", 1e-3), "b": takes("b", 4e-3)})  # type: ignore[arg-type]
    assert laps == {"a": pytest.approx([1000] * step.CPU_TURNS), "b": pytest.approx([4000] * step.CPU_TURNS)}
    assert "".join(order) == ("a" * step.STEPS_A_TURN + "b" * step.STEPS_A_TURN) * step.CPU_TURNS
