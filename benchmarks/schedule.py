"""Device time of AIF by schedule, one group of sequences or groups that fill a part of L2, and by tiles.

    python -m benchmarks.schedule [--device cuda|cpu] [--out DIR] [--budget-seconds S] [--provider NAME ...] [--full]

"ours" is the shipped schedule; "ours-one-group" and "ours-l2-PERCENT" set `Tiles.l2_share`, see `dlfa_kernels.groups`.
If the shipped tiles differ, tiles hold one sequence in "ours-one-sequence" and at most 64 tokens in
"ours-fewer-tokens", a squeeze program works on one tile in "ours-one-slot", and a program of `reduce` or `input_grads`
waits for its loads in "ours-waiting-reduce" and "ours-waiting-input-grads". The first two are compared with much
padding too, which decides how many of their tiles have real tokens. Groups differ only at sizes whose states exceed L2.
`--full` measures all sizes. On a CPU, where nothing is launched, there is one schedule.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import torch

from dlfa_kernels.device import device_architecture
from dlfa_kernels.overrides import using_l2_share, using_tiles
from dlfa_kernels.tiles import (
    Tiles,
    choose_tiles,
    sharing_saves_tiles,
    tiles_for_batch,
    with_fewer_tokens,
    with_one_slot,
)

from . import aif, padding, providers
from .cases import BASE_SHAPE, DTYPES, Case, core_case
from .floors import PASSES
from .plots import Bars
from .suite import Session, Suite, Task, main, run_tasks

SIZES = (BASE_SHAPE, (64, 512, 768), (128, 512, 1024), (16, 4096, 1024))
# Compared with much padding too.
OF_PADDING = (providers.ONE_SEQUENCE, providers.FEWER_TOKENS)


def shipped_tiles(case: Case, device: torch.device, *, may_share: bool = True) -> Tiles:
    """Return the shipped tiles of a padded case with a mask in one group; without `may_share` of one sequence each."""
    (batch, length, embed_dim), dtype = case.shape, DTYPES[case.dtype]
    tiles = choose_tiles(embed_dim, case.squeeze_dim, dtype, device_architecture(device))
    shared = may_share and sharing_saves_tiles(length, has_mask=True)
    return tiles_for_batch(tiles, batch, batch * length, embed_dim * dtype.itemsize, 0.0, device, shared=shared)


def other_tiles(provider: str, case: Case, device: torch.device) -> Tiles:
    """Return the tiles of `provider`, one of `OTHER_TILES`; they may equal the shipped ones."""
    shipped = shipped_tiles(case, device)
    if provider in OF_PADDING:
        alone = shipped_tiles(case, device, may_share=False)
        return alone if provider == providers.ONE_SEQUENCE else with_fewer_tokens(alone)
    if provider == providers.ONE_SLOT:
        return with_one_slot(shipped)
    if provider == providers.WAITING_INPUT_GRADS:
        return replace(shipped, input_grads=replace(shipped.input_grads, ahead=0))
    return replace(shipped, reduce=replace(shipped.reduce, block_e=64, num_stages=2))


def tasks(session: Session) -> Iterator[Task]:
    """Yield the tasks by importance, one a schedule."""
    for shape in session.shapes(SIZES):
        case, ours, others = core_case(shape), providers.ours(session.device), []
        if session.device.type == "cuda":
            shipped, device = shipped_tiles(case, session.device), session.device
            others = [name for name in providers.OTHER_TILES if other_tiles(name, case, device) != shipped]
            others += providers.L2_SHARES
        padded = [name for name in OF_PADDING if name in others]
        for provider in (ours, *others):
            yield Task(case, (provider,), PASSES)
            if padded and provider in (ours, *padded):
                yield Task(replace(case, fill=min(padding.FILLS)), (provider,), PASSES)


def schedule(provider: str, case: Case, device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which launches use the schedule of `provider`."""
    if provider in providers.OTHER_TILES:
        return using_tiles(other_tiles(provider, case, device))
    return using_l2_share(providers.L2_SHARES.get(provider))


def run(session: Session) -> None:
    """Measure all tasks, each in its schedule: forward, backward and their checks."""
    for task in tasks(session):
        with schedule(task.providers[0], task.case, session.device):
            run_tasks(session, [task], aif.measure)


SUITE = Suite(
    "schedule",
    "Device time of AIF by schedule",
    run,
    Bars(lambda row: row["of_floor"], padding.setting, "time over floor"),
    60,
    (*providers.PROVIDERS, *providers.SCHEDULES),
)

if __name__ == "__main__":
    main(SUITE)
