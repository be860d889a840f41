"""Device time of AIF's forward, backward and both, compared with eager, torch.compile and the floor.

    python -m benchmarks.aif [--device cuda|cpu] [--out DIR] [--budget-seconds S] [--provider NAME ...] [--full]

In order: bfloat16, gate, kernel size 1, H = E/4 with ours, eager and torch.compile; max-autotune, which takes
torch.compile minutes to prepare, at one size; one setting changed at a time; max-autotune at the other sizes. `--full`
adds every combination. "forward" is inference, "backward" starts from a forward that is not timed, "both" is a training
step of the block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import providers
from .cases import BASE_SHAPE, CPU_SHAPES, SMALL_SHAPE, core_case, full_grid, shapes, variations
from .floors import PASSES
from .launch_counts import count_others, count_pass, count_recorded
from .plots import Bars, size
from .suite import Session, Suite, Task, Work, device_time, main, run_tasks

# The sizes at which settings are varied.
VARIED = (BASE_SHAPE, (128, 512, 1024), CPU_SHAPES[0])


def tasks(session: Session) -> Iterator[Task]:
    """Yield the tasks by importance: those that `benchmarks.targets` needs, then the rest."""
    chosen = shapes(session.device)
    ours, eager, compiled = providers.ours(session.device), providers.EAGER, providers.COMPILE
    tuned = providers.TUNED if session.device.type == "cuda" else ()
    first, *varied = [shape for shape in VARIED if shape in chosen]
    others = sorted((shape for shape in chosen if shape != first), key=lambda shape: shape == SMALL_SHAPE)
    yield Task(core_case(first), (ours, eager, compiled), PASSES)
    for names in ((ours, eager), (compiled,)):
        for shape in others:
            yield Task(core_case(shape), names, PASSES)
    yield Task(core_case(first), tuned[:1], PASSES)
    for case in variations(first):
        yield Task(case, (ours, eager), PASSES)
    for case in variations(first):
        yield Task(case, (compiled,), PASSES)
    yield Task(core_case(first), tuned[1:], PASSES)
    for shape in others:
        yield Task(core_case(shape), tuned, PASSES)
    for shape in varied:
        for case in variations(shape):
            yield Task(case, (ours, eager, compiled), PASSES)
    if session.full:
        done = {core_case(shape) for shape in chosen}
        done |= {case for shape in VARIED for case in variations(shape)}
        for case in full_grid(session.device):
            if case not in done:
                yield Task(case, (ours, eager, compiled, *tuned), PASSES)


def measure(session: Session, work: Work) -> dict[str, Any]:
    """Measure the device time of a pass, and count its launches if it is ours."""
    measured = device_time(session, work)
    if work.provider in (providers.OURS, *providers.SCHEDULES):
        measured["launches"] = count_pass(work.pass_, work.call, work.problem, count_recorded)
    return measured


def run(session: Session) -> None:
    """Measure all tasks."""
    run_tasks(session, tasks(session), measure)
    count_others(session, tasks(session))


def setting(row: dict[str, Any]) -> str:
    """Return a row's group of bars."""
    core = core_case(tuple(row["shape"]))
    details = [
        row["pass"], size(row), f"H={row['squeeze_dim']}" if row["squeeze_dim"] != core.squeeze_dim else "",
        row["fuse"] if row["fuse"] != core.fuse else "", f"k={row['kernel_size']}" if row["kernel_size"] != 1 else "",
        row["dtype"] if row["dtype"] != core.dtype else "",
    ]  # fmt: skip
    return " ".join(filter(None, details))


SUITE = Suite("aif", "Device time of AIF", run, Bars(lambda row: row["of_floor"], setting, "time over floor"), 240)

if __name__ == "__main__":
    main(SUITE)
