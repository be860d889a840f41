"""Device time of AIF by schedule: one group of sequences, or groups that fill a part of L2; squeezed by two or by one.

    python -m benchmarks.schedule [--device cuda|cpu] [--out DIR] [--budget-seconds S] [--provider NAME ...] [--full]

"ours" is what is shipped; "ours-one-group" and "ours-l2-PERCENT" say `Tiles.l2_share` themselves, see
`dlfa_kernels.groups`, and "ours-one-slot", where two is shipped, how many tiles a squeeze program works on. Only sizes
whose states L2 does not hold tell schedules apart. `--full` takes all sizes. On a CPU, where nothing is launched, there
is one schedule.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch

from dlfa_kernels.device import device_architecture
from dlfa_kernels.launches import using_l2_share, using_tiles
from dlfa_kernels.tiles import Tiles, choose_tiles, sized, with_one_slot

from . import aif, providers
from .cases import DTYPES, Case, core_case
from .floors import PASSES
from .plots import Bars, pass_and_size
from .suite import Session, Suite, Task, main, run_tasks

SIZES = ((256, 128, 768), (128, 512, 1024), (16, 4096, 1024))


def shipped_tiles(case: Case, device: torch.device) -> Tiles:
    """The tiles of a padded case in one group."""
    (batch, length, embed_dim), dtype = case.shape, DTYPES[case.dtype]
    tiles = choose_tiles(embed_dim, case.squeeze_dim, dtype, device_architecture(device))
    return sized(tiles, batch, batch * length, False, embed_dim * dtype.itemsize, 0.0, device)


def tasks(session: Session) -> Iterator[Task]:
    """What to measure, the important first; one schedule a task."""
    for shape in session.shapes(SIZES):
        case, others = core_case(shape), list(providers.SCHEDULES)
        if session.device.type != "cuda":
            others = []
        elif shipped_tiles(case, session.device).squeeze.slots == 1:
            others.remove(providers.ONE_SLOT)
        for provider in (providers.ours(session.device), *others):
            yield Task(case, (provider,), PASSES)


def schedule(provider: str, case: Case, device: torch.device) -> AbstractContextManager[None]:
    """Launch as `provider` says inside."""
    if provider == providers.ONE_SLOT:
        return using_tiles(with_one_slot(shipped_tiles(case, device)))
    return using_l2_share(providers.L2_SHARES.get(provider))


def run(session: Session) -> None:
    """Measure all tasks, each within its schedule: forward, backward and what they are checked by."""
    for task in tasks(session):
        with schedule(task.providers[0], task.case, session.device):
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
