"""Device time of AIF for one token a sequence, `token=0`, against that for all.

    python -m benchmarks.token [--device cuda|cpu] [--out DIR] [--budget-seconds S] [--provider NAME ...] [--full]

Passes that end in "-token0" return that token's state alone. The plain module, too, gates no other token then. `--full`
takes all sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from . import providers
from .cases import BASE_SHAPE, SMALL_SHAPE, core_case, shapes
from .padding import measure
from .plots import Bars, size
from .suite import Session, Suite, Task, main, run_tasks

SIZES = (BASE_SHAPE, (128, 512, 1024), SMALL_SHAPE)
PASSES = ("forward", "both")


def tasks(session: Session) -> Iterator[Task]:
    """What to measure, the important first."""
    ours = providers.ours(session.device)
    chosen = shapes(session.device)
    if session.device.type == "cuda" and not session.full:
        chosen = SIZES
    for provider in (ours, providers.EAGER, providers.COMPILE):
        for shape in chosen:
            for token in (None, 0):
                yield Task(replace(core_case(shape), token=token), (provider,), PASSES)


def run(session: Session) -> None:
    """Measure all tasks."""
    run_tasks(session, tasks(session), measure)


SUITE = Suite(
    "token",
    "Device time of AIF for one token a sequence",
    run,
    Bars(lambda row: row["median_us"], lambda row: f"{row['pass']} {size(row)}", "microseconds"),
    60,
)

if __name__ == "__main__":
    main(SUITE)
