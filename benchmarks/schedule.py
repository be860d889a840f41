"""Device time of AIF by schedule, one group of sequences or groups that fill a part of L2, and by tiles.

    python -m benchmarks.schedule [--device cuda|cpu] [--out DIR] [--budget-seconds S] [--provider NAME ...] [--full]

"ours" is the shipped schedule; "ours-one-group" and "ours-l2-PERCENT" set `Tiles.l2_share`, see `dlfa_kernels.groups`.
If the shipped tiles differ, tiles have at most 64 tokens in "ours-fewer-tokens", a squeeze program works on one tile in
"ours-one-slot", and a program of `reduce` or `input_grads` waits for its loads in "ours-waiting-reduce" and
"ours-waiting-input-grads". Tiles of few tokens pay if many of them are padding alone, so "ours" and "ours-fewer-tokens"
are compared with much padding too. Groups differ only at sizes whose states exceed L2. `--full` measures all sizes. On
a CPU, where nothing is launched, there is one schedule.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import torch

from dlfa_kernels.device import device_architecture
from dlfa_kernels.overrides import using_l2_share, using_tiles
from dlfa_kernels.tiles import Tiles, choose_tiles, tiles_for_batch, with_fewer_tokens, with_one_slot

from . import aif, padding, providers
from .cases import BASE_SHAPE, DTYPES, Case, core_case
from .floors import PASSES
from .plots import Bars
from .suite import Session, Suite, Task, main, run_tasks

SIZES = (BASE_SHAPE, (128, 512, 1024), (16, 4096, 1024))


def shipped_tiles(case: Case, device: torch.device) -> Tiles:
    """Return the shipped tiles of a padded case in one group."""
    (batch, length, embed_dim), dtype = case.shape, DTYPES[case.dtype]
    tiles = choose_tiles(embed_dim, case.squeeze_dim, dtype, device_architecture(device))
    return tiles_for_batch(tiles, batch, batch * length, embed_dim * dtype.itemsize, 0.0, device)


def other_tiles(provider: str, shipped: Tiles) -> Tiles:
    """Return the tiles of `provider`, one of `OTHER_TILES`; they may equal the shipped ones."""
    if provider == providers.FEWER_TOKENS:
        return with_fewer_tokens(shipped)
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
            shipped = shipped_tiles(case, session.device)
            others = [name for name in providers.OTHER_TILES if other_tiles(name, shipped) != shipped]
            others += providers.L2_SHARES
        for provider in (ours, *others):
            yield Task(case, (provider,), PASSES)
            if provider in (ours, providers.FEWER_TOKENS) and providers.FEWER_TOKENS in others:
                yield Task(replace(case, fill=min(padding.FILLS)), (provider,), PASSES)


def schedule(provider: str, case: Case, device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which launches use the schedule of `provider`."""
    if provider in providers.OTHER_TILES:
        return using_tiles(other_tiles(provider, shipped_tiles(case, device)))
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
