"""Device time of AIF by schedule: one group of sequences, or groups that fill a part of L2; and by tiles of one stage.

    python -m benchmarks.schedule [--device cuda|cpu] [--out DIR] [--budget-seconds S] [--provider NAME ...] [--full]

"ours" is what is shipped; "ours-one-group" and "ours-l2-PERCENT" say `Tiles.l2_share` themselves, see
`dlfa_kernels.groups`. Where it is not what is shipped, a squeeze program works on one tile in "ours-one-slot", and a
program of the reduce stage, or of the input gradients, waits for its loads in "ours-waiting-reduce" and
"ours-waiting-input-grads". Only sizes whose states L2 does not hold tell groups apart. `--full` takes all sizes. On a
CPU, where nothing is launched, there is one schedule.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import torch

from dlfa_kernels.device import device_architecture
from dlfa_kernels.overrides import using_l2_share, using_tiles
from dlfa_kernels.tiles import Tiles, choose_tiles, tiles_for_batch, with_one_slot

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
    return tiles_for_batch(tiles, batch, batch * length, embed_dim * dtype.itemsize, 0.0, device)


def other_tiles(provider: str, shipped: Tiles) -> Tiles:
    """The tiles that `provider`, of `OTHER_TILES`, has in place of the shipped ones, which may be the same."""
    if provider == providers.ONE_SLOT:
        return with_one_slot(shipped)
    if provider == providers.WAITING_INPUT_GRADS:
        return replace(shipped, input_grads=replace(shipped.input_grads, ahead=0))
    return replace(shipped, reduce=replace(shipped.reduce, block_e=64, num_stages=2))


def tasks(session: Session) -> Iterator[Task]:
    """What to measure, the important first; one schedule a task."""
    for shape in session.shapes(SIZES):
        case, others = core_case(shape), []
        if session.device.type == "cuda":
            shipped = shipped_tiles(case, session.device)
            others = [name for name in providers.OTHER_TILES if other_tiles(name, shipped) != shipped]
            others += providers.L2_SHARES
        for provider in (providers.ours(session.device), *others):
            yield Task(case, (provider,), PASSES)


def schedule(provider: str, case: Case, device: torch.device) -> AbstractContextManager[None]:
    """Launch as `provider` says inside."""
    if provider in providers.OTHER_TILES:
        return using_tiles(other_tiles(provider, shipped_tiles(case, device)))
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
