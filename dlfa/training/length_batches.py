"""Batches of sequences of like length, in random order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

# Batches that are sorted by length together: enough for little padding, few enough for other batches every epoch.
POOL = 50


class LengthGroupedSampler(Sampler[int]):
    """Indices in an order in which consecutive batches hold sequences of like length; another one each epoch.

    The data are shuffled, sorted within pools of `POOL` batches, cut into batches, and these are shuffled. (That of the
    Trainer leaves the batches of a pool in order, from long to short.)

    Args:
        lengths: of the sequences.
        batch_size: sequences that are of like length: those of one batch on all processes.
        seed: of the order, with the epoch.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = torch.tensor(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; a run that resumes in the middle of an epoch thus finds the same one."""
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
        # Only the last of all may be incomplete, and it has to stay last.
        whole = len(batches) - (len(batches[-1]) < self.batch_size) if batches else 0
        places = [*torch.randperm(whole, generator=generator).tolist(), *range(whole, len(batches))]
        return iter([index for place in places for index in batches[place].tolist()])
