"""Batches of sequences of similar length, in random order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

# Batches per pool sorted by length: enough for little padding, few enough for different batches in every epoch.
POOL = 50


class LengthGroupedSampler(Sampler[int]):
    """Samples indices so that each batch has sequences of similar length, in a different order each epoch.

    The data are shuffled, sorted within pools of `POOL` batches and split into batches, which are shuffled. (The
    Trainer's own sampler leaves the batches of a pool in order, from long to short.)

    Args:
        lengths: lengths of the sequences.
        batch_size: number of sequences of similar length: one batch over all processes.
        seed: seed of the order, together with the epoch.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = torch.tensor(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order, so that a run resumed within an epoch uses the same order."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + 1_000_003 * self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator)
        pools = order.split(POOL * self.batch_size)
        batches = [
            batch for pool in pools for batch in pool[self.lengths[pool].argsort(stable=True)].split(self.batch_size)
        ]
        # Only the last batch can be incomplete, and it must stay last.
        whole = len(batches) - (len(batches[-1]) < self.batch_size) if batches else 0
        places = [*torch.randperm(whole, generator=generator).tolist(), *range(whole, len(batches))]
        return iter([index for place in places for index in batches[place].tolist()])
