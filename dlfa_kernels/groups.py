"""Which sequences a stage's launch works on: all of the batch, or groups that stay in L2 from one stage to the next.

The pooling makes every stage touch the states that the stage before it touched. With one group, the second touch comes
from DRAM but for what L2 still holds; with groups whose tensors fit in a part of L2 it all comes from L2, so that DRAM
moves the least: 3 tensors forward instead of up to 5, and 5 instead of up to 8 backward. A group costs the latency of
its stages, each of which waits for the last program of the one before, and smaller groups fill the device worse. The
second touch of one group already begins with the rows that were touched last (`expand_kernel`, `input_grads_kernel`).

x and y of one tile of 128 tokens for each of an H200's 132 multiprocessors are 52 MB at E = 768 in 16 bits, about all
of its L2 (50 MB is the figure given for Hopper, 60 MB what an H200 reports). So a group that shall leave no
multiprocessor idle needs smaller tiles: groups have those of few tokens, and read the weights twice as often.

Chosen so far, not measured: one group, `Tiles.l2_share` = 0. Grouping saves at most the DRAM time of the part that
stays in L2. Each further group costs three more stages that start and drain, among them the context, a chain of small
products that does not get shorter with the group. On chips with some tens of MB of L2 and some TB/s the two are alike,
so the simpler schedule stands until `python -m benchmarks.schedule` says otherwise. Batches that L2 holds are one group
whatever the share, so they take no more launches.

Packed sequences are one group always: where they start is known on the device alone.

The other way to the same traffic, one persistent launch whose programs wait for counters of the sequences that they
need, is not taken: it ends only if the programs that are waited for run at the same time or before, which no test
without a GPU can show, as the interpreter runs programs one after the other.
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
    """How many rows (of tokens or sequences) of `row_bytes` fit in a share of L2, 0 to 1."""
    return int(share * l2_bytes(device)) // max(1, row_bytes)


def sequence_groups(batch: int, sequence_bytes: int, share: float, device: torch.device) -> list[Group]:
    """The fewest groups of nearly equal size whose bytes fit in `share` of L2; a longer sequence is a group by itself.

    Args:
        batch: B, at least 1.
        sequence_bytes: what the stages touch of one sequence more than once.
        share: of L2, 0 to 1; 0 makes one group, and so does a batch that fits in L2 as a whole.
        device: whose L2.
    """
    if share == 0 or batch * sequence_bytes <= l2_bytes(device):
        return [Group(0, batch)]
    fitting = max(1, rows_in_share(sequence_bytes, share, device))
    groups = cdiv(batch, fitting)
    size = cdiv(batch, groups)
    return [Group(first, min(first + size, batch)) for first in range(0, batch, size)]
