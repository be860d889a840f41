"""Wall clock of a training step of AIF at the small size, where launches dominate; with and without CUDA graphs.

    python -m benchmarks.launch [--device cuda|cpu] [--out DIR] [--budget-seconds S] [--provider NAME ...] [--full]

Forward and backward of consecutive calls, see `benchmarks.timing`. "+graph" is the same call captured in a CUDA graph
with `torch.cuda.graph` and replayed, the same way for all providers; its results are checked again. torch.compile
replays its own graphs in the modes reduce-overhead and max-autotune, which copy the gradient of z in every backward.
`--full` adds the next size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import providers
from .cases import core_case, shapes
from .errors import relative_errors
from .launch_counts import count_others, count_pass, count_recorded
from .plots import Bars, size
from .suite import Session, Suite, Task, Work, main, run_tasks
from .timing import CapturedCall, synchronise


def tasks(session: Session) -> Iterator[Task]:
    """Yield the tasks by importance."""
    names: tuple[str, ...] = (providers.ours(session.device), providers.EAGER, providers.COMPILE)
    if session.device.type == "cuda":
        names += tuple(f"{name}{providers.GRAPH}" for name in names)
        names += (providers.COMPILE_GRAPHS, providers.COMPILE_TUNED_GRAPHS)
        names += (f"{providers.COMPILE_TUNED}{providers.GRAPH}", providers.COMPILE_TUNED)
    for shape in shapes(session.device)[: 2 if session.full else 1]:
        yield Task(core_case(shape), names, ("both",))


def measure(session: Session, work: Work) -> dict[str, Any] | None:
    """Measure the wall clock of a training step, and count launches of ours, in a captured graph too."""
    if work.provider.endswith(providers.GRAPH):
        captured = CapturedCall(lambda: providers.results(work.call, work.problem), session.device)
        captured()
        synchronise(session.device)
        if not session.right(work.keys, relative_errors(captured.outputs, work.expected)):
            return None
        measured: dict[str, Any] = {"timing": session.stopwatch.wall_time(captured)}
    else:
        timing = session.stopwatch.wall_time(lambda: providers.gradients(work.call(), work.problem))
        measured = {"timing": timing}
    if work.provider in (providers.OURS, f"{providers.OURS}{providers.GRAPH}"):
        measured["launches"] = count_pass(work.pass_, work.call, work.problem, count_recorded)
    return measured


def run(session: Session) -> None:
    """Measure all tasks."""
    run_tasks(session, tasks(session), measure)
    count_others(session, tasks(session))


SUITE = Suite(
    "launch",
    "Wall clock of a training step of AIF",
    run,
    Bars(lambda row: row["median_us"], size, "microseconds a forward and backward"),
    140,
    tuple(f"{name}{suffix}" for name in providers.PROVIDERS for suffix in ("", providers.GRAPH)),
)

if __name__ == "__main__":
    main(SUITE)
