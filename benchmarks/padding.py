"""Device time of AIF by share of real tokens, with a mask and packed.

    python -m benchmarks.padding [--device cuda|cpu] [--out DIR] [--budget-seconds S] [--provider NAME ...] [--full]

The lengths of a batch are spread evenly around the share. "ours-packed" gets only the real tokens, with `cu_seqlens`.
`--full` takes all sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from . import providers
from .cases import BASE_SHAPE, core_case
from .plots import Bars, size
from .suite import Session, Suite, Task, device_time, main, run_tasks

FILLS = (1.0, 0.3, 0.6)
SIZES = ((64, 512, 768), BASE_SHAPE, (128, 512, 1024))
PASSES = ("forward", "both")


def tasks(session: Session) -> Iterator[Task]:
    """Yield the tasks by importance."""
    ours = providers.ours(session.device)
    chosen = session.shapes(SIZES)
    for shape in chosen:
        for fill in FILLS[:2]:  # those that `benchmarks.targets` needs
            yield Task(replace(core_case(shape), fill=fill), (ours,), PASSES)
        yield Task(replace(core_case(shape), fill=FILLS[1], packed=True), (ours,), PASSES)
    for shape in chosen:
        for fill in FILLS:
            case = replace(core_case(shape), fill=fill)
            yield Task(case, (providers.EAGER,) if fill in FILLS[:2] else (ours, providers.EAGER), PASSES)
            if fill != FILLS[1]:
                yield Task(replace(case, packed=True), (ours,), PASSES)
    for shape in chosen:
        for fill in FILLS:
            yield Task(replace(core_case(shape), fill=fill), (providers.COMPILE,), PASSES)


def run(session: Session) -> None:
    """Measure all tasks."""
    run_tasks(session, tasks(session), device_time)


def setting(row: dict[str, Any]) -> str:
    """Return a row's group of bars."""
    return f"{row['pass']} {size(row)} {row['fill']:.0%} real"


SUITE = Suite(
    "padding",
    "Device time of AIF by share of real tokens",
    run,
    Bars(lambda row: row["median_us"], setting, "microseconds"),
    60,
)

if __name__ == "__main__":
    main(SUITE)
