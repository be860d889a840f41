"""Device time of AIF for one token a sequence, `token=0`, compared with all tokens.

    python -m benchmarks.token [--device cuda|cpu] [--out DIR] [--budget-seconds S] [--provider NAME ...] [--full]

Passes that end in "-token0" return only that token's state; the plain module then also gates no other token. `--full`
measures all sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from . import providers
from .cases import BASE_SHAPE, SMALL_SHAPE, core_case
from .plots import Bars, pass_and_size
from .suite import Session, Suite, Task, device_time, main, run_tasks

SIZES = (BASE_SHAPE, (128, 512, 1024), SMALL_SHAPE)
PASSES = ("forward", "both")


def tasks(session: Session) -> Iterator[Task]:
    """Yield the tasks by importance."""
    ours = providers.ours(session.device)
    for provider in (ours, providers.EAGER, providers.COMPILE):
        for shape in session.shapes(SIZES):
            for token in (None, 0):
                yield Task(replace(core_case(shape), token=token), (provider,), PASSES)


def run(session: Session) -> None:
    """Measure all tasks."""
    run_tasks(session, tasks(session), device_time)


SUITE = Suite(
    "token",
    "Device time of AIF for one token a sequence",
    run,
    Bars(lambda row: row["median_us"], pass_and_size, "microseconds"),
    60,
)

if __name__ == "__main__":
    main(SUITE)
