"""Groups of sequences: the sequences of one launch are the whole batch or a group that stays in L2 between stages.

Because of the pooling, every stage reads the states that the stage before it read. With one group, the second read
comes from DRAM except for what L2 still holds. With groups whose tensors fit in a part of L2, all of it comes from L2,
which minimises DRAM traffic: 3 tensors forward instead of up to 5, and 5 instead of up to 8 backward. Each group costs
the latency of its stages, which wait for the last program of the stage before, and smaller groups fill the device less
well. Even with one group, the second read starts with the rows read last (`expand_kernel`, `input_grads_kernel`).

x and y of one tile of 128 tokens for each of an H200's 132 multiprocessors are 52 MB at E = 768 in 16 bits, about all
of its L2 (50 MB by Hopper's specification; an H200 reports 60 MB). A group that leaves no multiprocessor idle therefore
needs smaller tiles: groups use tiles of few tokens, and read the weights twice as often.

The default, not measured, is one group: `Tiles.l2_share` = 0. Grouping saves at most the DRAM time of the part that
stays in L2. Each further group costs three more stages that start and drain; one of them is the context, a chain of
small products that does not get shorter with the group. With tens of MB of L2 and some TB/s, cost and saving are about
equal, so the simpler schedule is used unless `python -m benchmarks.schedule` shows a gain. Batches that fit in L2 are
one group whatever the share, so they take no more launches.

Packed sequences are always one group, because their starts are known only on the device.

One persistent launch, whose programs wait for counters of the sequences that they need, would have the same traffic. It
is not used: it terminates only if the programs waited for run earlier or at the same time. No test without a GPU can
show that, because the interpreter runs programs one after another.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from .device import l2_bytes
from .rounding import cdiv


class Group(NamedTuple):
    """Consecutive sequences, `first` to `end` - 1."""

    first: int
    end: int


def rows_in_share(row_bytes: int, share: float, device: torch.device) -> int:
    """Return how many rows (tokens or sequences) of `row_bytes` fit in a share of L2, 0 to 1."""
    return int(share * l2_bytes(device)) // max(1, row_bytes)


def sequence_groups(batch: int, sequence_bytes: int, share: float, device: torch.device) -> list[Group]:
    """Return the fewest groups of nearly equal size that fit in `share` of L2, with at least one sequence each.

    Args:
        batch: B, at least 1.
        sequence_bytes: bytes of one sequence that the stages access more than once.
        share: of L2, 0 to 1; with 0, or if the whole batch fits in L2, there is one group.
        device: the device with this L2.
    """
    if share == 0 or batch * sequence_bytes <= l2_bytes(device):
        return [Group(0, batch)]
    fitting = max(1, rows_in_share(sequence_bytes, share, device))
    groups = cdiv(batch, fitting)
    size = cdiv(batch, groups)
    return [Group(first, min(first + size, batch)) for first in range(0, batch, size)]
