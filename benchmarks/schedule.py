"""Device time of AIF by schedule: all sequences in one group, or groups that fill a part of the L2 cache.

    python -m benchmarks.schedule [--device cuda|cpu] [--out DIR] [--budget-seconds S] [--provider NAME ...] [--full]

"ours" is what the shipped tiles say, `Tiles.l2_share`; "ours-one-group" and "ours-l2-PERCENT" say it themselves, see
`dlfa_kernels.groups`. Only sizes whose states L2 does not hold tell schedules apart. `--full` takes all sizes. On a
CPU, where nothing is launched, there is one schedule.
"""

from __future__ import annotations

from collections.abc import Iterator

from dlfa_kernels.launches import using_l2_share

from . import aif, providers
from .cases import core_case
from .floors import PASSES
from .plots import Bars, pass_and_size
from .suite import Session, Suite, Task, main, run_tasks

SIZES = ((256, 128, 768), (128, 512, 1024), (16, 4096, 1024))


def tasks(session: Session) -> Iterator[Task]:
    """What to measure, the important first; one schedule a task."""
    on_gpu = session.device.type == "cuda"
    for shape in session.shapes(SIZES):
        for provider in (providers.ours(session.device), *(providers.SCHEDULES if on_gpu else ())):
            yield Task(core_case(shape), (provider,), PASSES)


def run(session: Session) -> None:
    """Measure all tasks, each within its schedule: forward, backward and what they are checked by."""
    for task in tasks(session):
        share = providers.SCHEDULES.get(task.providers[0])
        with using_l2_share(share):
            run_tasks(session, [task], aif.measure)


SUITE = Suite(
    "schedule",
    "Device time of AIF by schedule",
    run,
    Bars(lambda row: row["of_floor"], pass_and_size, "time over floor"),
    60,
    (*providers.PROVIDERS, *providers.SCHEDULES),
)

if __name__ == "__main__":
    main(SUITE)
