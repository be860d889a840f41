"""Wall clock of a training step of AIF at the small size, where launches cost more than work; with and without graphs.

    python -m benchmarks.launch [--device cuda|cpu] [--out DIR] [--budget-seconds S] [--provider NAME ...] [--full]

Forward and backward of calls that follow each other, see `benchmarks.timing`. "+graph" is the same call captured in a
CUDA graph with `torch.cuda.graph` and replayed, whose results are checked again; torch.compile replays graphs of its
own in the modes reduce-overhead and max-autotune. `--full` adds the next size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import providers
from .cases import core_case, shapes
from .launch_counts import count_launches
from .plots import Bars, size
from .problems import relative_errors
from .suite import Session, Suite, Task, Work, main, run_tasks
from .timing import CapturedCall, synchronise


def tasks(session: Session) -> Iterator[Task]:
    """What to measure, the important first."""
    names: tuple[str, ...] = (providers.ours(session.device), providers.EAGER, providers.COMPILE)
    if session.device.type == "cuda":
        names += tuple(f"{name}{providers.GRAPH}" for name in names)
        names += (providers.COMPILE_GRAPHS, providers.COMPILE_TUNED_GRAPHS, providers.COMPILE_TUNED)
        names += (f"{providers.COMPILE_TUNED}{providers.GRAPH}",)
    for shape in shapes(session.device)[: 2 if session.full else 1]:
        yield Task(core_case(shape), names, ("both",))


def measure(session: Session, work: Work) -> dict[str, Any] | None:
    """Wall clock and launches of a training step."""

    def step() -> object:
        return providers.gradients(work.call(), work.problem)

    if not work.provider.endswith(providers.GRAPH):
        timing = session.stopwatch.wall_time(step)
        return {"timing": timing, "launches": count_launches(work.provider, step, session.device)}
    captured = CapturedCall(lambda: providers.results(work.call, work.problem), session.device)
    captured()
    synchronise(session.device)
    if not session.right(work.keys, relative_errors(captured.outputs, work.expected)):
        return None
    return {"timing": session.stopwatch.wall_time(captured), "launches": 1}


def run(session: Session) -> None:
    """Measure all tasks."""
    run_tasks(session, tasks(session), measure)


SUITE = Suite(
    "launch",
    "Wall clock of a training step of AIF",
    run,
    Bars(lambda row: row["median_us"], size, "microseconds a forward and backward"),
    90,
    tuple(f"{name}{suffix}" for name in providers.PROVIDERS for suffix in ("", providers.GRAPH)),
)

if __name__ == "__main__":
    main(SUITE)
