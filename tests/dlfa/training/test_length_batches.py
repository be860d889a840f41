"""Batches of sequences of like length."""

import random
from itertools import pairwise

import pytest

from dlfa.training.length_batches import POOL, LengthGroupedSampler

LENGTHS = [random.Random(index).randint(5, 120) for index in range(1003)]


def batches(sampler, size):
    order = list(sampler)
    return [order[start : start + size] for start in range(0, len(order), size)]


@pytest.mark.parametrize(("count", "size"), [(0, 4), (1, 4), (4, 4), (7, 4), (1003, 4), (1003, 16)])
def test_every_index_once_an_epoch(count, size):
    sampler = LengthGroupedSampler(LENGTHS[:count], size, seed=1)
    assert len(sampler) == count
    assert sorted(sampler) == list(range(count))


def test_batches_hold_like_lengths_in_random_order():
    size = 4
    found = [[LENGTHS[index] for index in batch] for batch in batches(LengthGroupedSampler(LENGTHS, size, 1), size)]
    assert sum(map(max, found)) * size < 1.1 * sum(LENGTHS)
    rising = sum(max(a) <= max(b) for a, b in pairwise(found))
    assert 0.4 < rising / (len(found) - 1) < 0.65
    assert len(LENGTHS) > POOL * size  # more than one pool was cut


def test_whole_batches_come_last_by_turns():
    sampler, last = LengthGroupedSampler(range(16), 4, seed=1), set()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        last.add(frozenset(batches(sampler, 4)[-1]))
    assert len(last) == 4


def test_epochs_have_batches_of_other_sequences():
    sampler, found = LengthGroupedSampler(range(2 * POOL * 2), 2, seed=1), []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        found.append({frozenset(batch) for batch in batches(sampler, 2)})
    assert len(found[0] & found[1]) < POOL


def test_the_order_depends_on_seed_and_epoch_alone():
    sampler, again = LengthGroupedSampler(LENGTHS, 8, 1), LengthGroupedSampler(LENGTHS, 8, 1)
    first = list(sampler)
    assert list(again) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    again.set_epoch(1)
    assert list(again) == list(sampler)
    assert list(LengthGroupedSampler(LENGTHS, 8, 2)) != first
