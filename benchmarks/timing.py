"""Timing of a call: device time with a cold L2 cache, or wall clock of consecutive calls.

Device time. Only the call is between two CUDA events. Before each call a buffer of several times the L2 cache is read,
so that no input is in the cache, whichever provider ran before. `triton.testing.do_bench` writes a buffer instead, but
written lines would have to go back to DRAM in the measured time: up to the whole cache, as much as a tensor of the core
sizes. The buffer is read often enough for the host to submit the whole call meanwhile, so that gaps between launches
are not measured: the wall clock measures these.

Wall clock. Consecutive calls do not wait, as in a training loop, and one synchronisation follows at the end; the cache
is as warm as the calls leave it.

On a CPU both are the time of a few single calls, without control of caches.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

State = TypeVar("State")

FLUSHED_CACHES = 5  # the buffer that is read, in L2 caches
LEAST_FLUSH_BYTES = 256 << 20
MOST_FLUSHES = 64
HOST_MARGIN = 1.3
LEAST_SAMPLES, MOST_SAMPLES = 7, 200
WALL_CLOCK_CALLS = 50
# A GPU that was idle during compilation has lowered its clocks and takes a moment to raise them.
WARM_UP_SECONDS = 0.1
FIRST_WARM_UP_SECONDS = 0.3
CPU_SECONDS = 0.02


class Timing(NamedTuple):
    """Microseconds a call: median, and 20th and 80th percentile over repetitions."""

    median_us: float
    p20_us: float
    p80_us: float


def summarise(microseconds: list[float]) -> Timing:
    """Return median and percentiles."""
    p20, median, p80 = np.percentile(microseconds, [20, 50, 80])
    return Timing(float(median), float(p20), float(p80))


def synchronise(device: torch.device) -> None:
    """Wait for the device if it is a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """Timer of calls on one device; on a GPU it holds the buffer that is read between calls."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            size = max(LEAST_FLUSH_BYTES, FLUSHED_CACHES * torch.cuda.get_device_properties(device).L2_cache_size)
            self.buffer = torch.zeros(size // 4, device=device)
            self._warm_up(self.buffer.sum, FIRST_WARM_UP_SECONDS)
            self.flush_seconds = min(self._events_us(self.buffer.sum) for _ in range(5)) / 1e6

    def device_time(
        self, timed: Callable[[State], object], prepare: Callable[[], State], seconds: float = 0.25
    ) -> Timing:
        """Return the time of `timed(prepare())` without `prepare()`, after a warm-up.

        Args:
            timed: the call.
            prepare: run before each call, such as the forward of a timed backward.
            seconds: duration of the measurement, which makes between 7 and 200 calls.
        """
        if self.device.type != "cuda":
            return self._cpu_time(timed, prepare, seconds)
        begin, host = time.perf_counter(), []
        for _ in range(4):
            state = prepare()
            start = time.perf_counter()
            timed(state)
            host.append(time.perf_counter() - start)
            synchronise(self.device)
        lap = (time.perf_counter() - begin) / 4
        flushes = min(MOST_FLUSHES, 1 + int(HOST_MARGIN * min(host) / self.flush_seconds))
        samples = self._samples(seconds, lap + flushes * self.flush_seconds)

        def sample() -> tuple[Any, Any]:
            state = prepare()
            for _ in range(flushes):
                self.buffer.sum()
            start_event, end_event = self._event(), self._event()
            start_event.record()
            timed(state)
            end_event.record()
            return start_event, end_event

        self._warm_up(sample)
        events = [sample() for _ in range(samples)]
        synchronise(self.device)
        return summarise([1000 * start.elapsed_time(end) for start, end in events])

    def wall_time(self, call: Callable[[], object], seconds: float = 0.5, calls: int = WALL_CLOCK_CALLS) -> Timing:
        """Return the time of a call among consecutive `calls` with one synchronisation at the end; percentiles are over
        repetitions of these."""
        if self.device.type != "cuda":
            return self._cpu_time(lambda _: call(), lambda: None, seconds)
        self._warm_up(call)
        laps: list[float] = []
        begin = time.perf_counter()
        while len(laps) < LEAST_SAMPLES or (time.perf_counter() - begin < seconds and len(laps) < MOST_SAMPLES):
            start = time.perf_counter()
            for _ in range(calls):
                call()
            synchronise(self.device)
            laps.append(1e6 * (time.perf_counter() - start) / calls)
        return summarise(laps)

    def _cpu_time(self, timed: Callable[[State], object], prepare: Callable[[], State], seconds: float) -> Timing:
        seconds = min(seconds, CPU_SECONDS)
        timed(prepare())
        laps: list[float] = []
        begin = time.perf_counter()
        while len(laps) < LEAST_SAMPLES or (time.perf_counter() - begin < seconds and len(laps) < MOST_SAMPLES):
            state = prepare()
            start = time.perf_counter()
            timed(state)
            laps.append(1e6 * (time.perf_counter() - start))
        return summarise(laps)

    def _warm_up(self, call: Callable[[], object], seconds: float = WARM_UP_SECONDS) -> None:
        begin = time.perf_counter()
        while True:
            call()
            synchronise(self.device)
            if time.perf_counter() - begin >= seconds:
                return

    def _samples(self, seconds: float, lap: float) -> int:
        return max(LEAST_SAMPLES, min(MOST_SAMPLES, int(seconds / lap)))

    def _event(self) -> Any:
        return torch.cuda.Event(enable_timing=True)

    def _events_us(self, call: Callable[[], object]) -> float:
        start, end = self._event(), self._event()
        start.record()
        call()
        end.record()
        synchronise(self.device)
        return 1000 * start.elapsed_time(end)


class CapturedCall:
    """A call captured in a CUDA graph and replayed by calling it; `outputs` are the call's results, static tensors.

    Raises:
        RuntimeError: part of the call cannot be captured.
    """

    def __init__(self, call: Callable[[], Any], device: torch.device) -> None:
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                call()
        torch.cuda.current_stream(device).wait_stream(stream)
        gc.collect()  # freeing a graph during the capture would abort it
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = call()

    def __call__(self) -> None:
        """Replay the graph."""
        self.graph.replay()
