"""Device time of AIF's forward, backward and both together, against eager and torch.compile, beside the floor.

    python -m benchmarks.aif [--device cuda|cpu] [--out DIR] [--budget-seconds S] [--provider NAME ...] [--full]

In order: every size in bfloat16, gate, kernel size 1, H = E/4 with ours, eager and torch.compile; one setting changed
at a time; max-autotune, which takes torch.compile long to prepare, at one size before that and at the others after it.
`--full` goes on with every combination. "forward" is inference, "backward" starts from a forward that is not timed,
"both" is a training step of the block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import providers
from .cases import BASE_SHAPE, CPU_SHAPES, core_case, full_grid, shapes, variations
from .floors import PASSES
from .launch_counts import count_launches
from .plots import Bars, size
from .suite import Session, Suite, Task, Work, device_time, main, run_tasks

# Sizes at which settings are varied.
VARIED = (BASE_SHAPE, (128, 512, 1024), CPU_SHAPES[0])


def tasks(session: Session) -> Iterator[Task]:
    """What to measure, the important first."""
    chosen = shapes(session.device)
    ours, eager, compiled = providers.ours(session.device), providers.EAGER, providers.COMPILE
    tuned = (providers.COMPILE_TUNED, providers.COMPILE_TUNED_GRAPHS) if session.device.type == "cuda" else ()
    first, *others = [shape for shape in VARIED if shape in chosen]
    for shape in chosen:
        yield Task(core_case(shape), (ours, eager, compiled), PASSES)
    yield Task(core_case(first), tuned, PASSES)
    for case in variations(first):
        yield Task(case, (ours, eager), PASSES)
    for shape in chosen:
        if shape != first:
            yield Task(core_case(shape), tuned, PASSES)
    for case in variations(first):
        yield Task(case, (compiled,), PASSES)
    for shape in others:
        for case in variations(shape):
            yield Task(case, (ours, eager, compiled), PASSES)
    if session.full:
        done = {core_case(shape) for shape in chosen}
        done |= {case for shape in VARIED for case in variations(shape)}
        for case in full_grid(session.device):
            if case not in done:
                yield Task(case, (ours, eager, compiled, *tuned), PASSES)


def measure(session: Session, work: Work) -> dict[str, Any]:
    """Device time and launches of a pass."""

    def once() -> None:
        if work.pass_ == "forward":
            providers.inference(work.call)
        else:
            providers.gradients(work.call(), work.problem)

    timing = device_time(session, work)
    launches = count_launches(work.provider, once, session.device)
    if work.pass_ == "backward" and launches is not None:
        forward = count_launches(work.provider, work.call, session.device)
        launches = None if forward is None else launches - forward
    return {"timing": timing, "launches": launches}


def run(session: Session) -> None:
    """Measure all tasks."""
    run_tasks(session, tasks(session), measure)


def setting(row: dict[str, Any]) -> str:
    """A row's group of bars."""
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
