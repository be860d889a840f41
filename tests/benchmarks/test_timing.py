"""Times of calls: on a CPU, on a GPU, and by a clock that the test moves."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton", reason="triton is there on Linux only")

from benchmarks import timing as timing_module
from benchmarks.timing import CapturedCall, Stopwatch, summarise


def test_timing_on_a_cpu() -> None:
    assert summarise([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == (3.5, 2.0, 5.0)
    prepared = []

    def prepare() -> int:
        time.sleep(0.002)
        prepared.append(0)
        return len(prepared)

    seen: list[int] = []
    timing = Stopwatch(torch.device("cpu")).device_time(seen.append, prepare)
    assert seen == list(range(1, len(prepared) + 1))
    assert len(seen) >= 8
    assert timing.p20_us <= timing.median_us < 1500


class Clock:
    """A clock that what is timed moves, for host and device alike; events of a device note its time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.microseconds = 0.0
        monkeypatch.setattr(timing_module, "time", SimpleNamespace(perf_counter=lambda: self.microseconds / 1e6))
        monkeypatch.setattr(timing_module, "synchronise", lambda device: None)

    def takes(self, microseconds: float) -> Callable[..., None]:
        """Something that takes so long, and counts how often it was called."""

        def call(*_: object) -> None:
            call.calls += 1  # type: ignore[attr-defined]
            self.microseconds += microseconds

        call.calls = 0  # type: ignore[attr-defined]
        return call

    def event(self) -> SimpleNamespace:
        made = SimpleNamespace(elapsed_time=lambda end: (end.at - made.at) / 1000)
        made.record = lambda: setattr(made, "at", self.microseconds)
        return made

    def stopwatch(self, flush: Callable[..., None], flush_microseconds: float) -> Stopwatch:
        stopwatch = object.__new__(Stopwatch)
        stopwatch.device, stopwatch.flush_seconds = torch.device("cuda"), flush_microseconds / 1e6
        stopwatch.buffer = SimpleNamespace(sum=flush)  # type: ignore[assignment]
        stopwatch._event = self.event  # type: ignore[method-assign]
        return stopwatch


def test_device_time_is_that_of_the_call_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    timed, prepare, flush = clock.takes(45), clock.takes(2000), clock.takes(10)
    timing = clock.stopwatch(flush, 10).device_time(timed, prepare, 0.1)
    assert timing == pytest.approx((45, 45, 45))
    warm_up, samples = 48, int(0.1 / (2045 + 60) * 1e6)  # 0.1 s each
    assert prepare.calls == timed.calls == 4 + warm_up + samples
    # the host hands a call over in 45 us: the buffer is read for 1.3 times as long, at least
    assert flush.calls == 6 * (warm_up + samples)
    assert clock.stopwatch(flush, 10).device_time(clock.takes(1), clock.takes(9e6), 0.1)[0] == pytest.approx(1)
    assert flush.calls == 6 * (warm_up + samples) + 1 + timing_module.LEAST_SAMPLES
    before, slow = flush.calls, clock.takes(5000)
    assert clock.stopwatch(flush, 10).device_time(slow, clock.takes(9e6), 0.1)[0] == pytest.approx(5000)
    assert flush.calls == before + timing_module.MOST_FLUSHES * (slow.calls - 4)  # bounded for a slow host


def test_wall_time_is_of_one_call_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    call = clock.takes(300)
    assert clock.stopwatch(call, 1).wall_time(call, seconds=0.3, calls=20) == pytest.approx((300, 300, 300))
    assert call.calls == 334 + 20 * 50  # 0.1 s to warm up


@pytest.mark.gpu
def test_timing_on_a_gpu() -> None:
    device = torch.device("cuda")
    stopwatch, a = Stopwatch(device), torch.randn(4096, 4096, device=device)
    big = stopwatch.device_time(lambda _: a @ a, lambda: None)
    small = stopwatch.device_time(lambda _: a[:512] @ a, lambda: None)
    prepared = stopwatch.device_time(lambda _: a[:512] @ a, lambda: a @ a)
    assert big.median_us > 3 * small.median_us
    assert prepared.median_us < 2 * small.median_us
    captured = CapturedCall(lambda: a[:64] @ a, device)
    a.fill_(1)
    captured()
    torch.cuda.synchronize()
    assert torch.equal(captured.outputs, torch.full((64, 4096), 4096.0, device=device))
