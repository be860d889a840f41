"""Other schedules of the kernels, timed beside the shipped ones."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="triton is there on Linux only")

from benchmarks import providers, schedule
from benchmarks.cases import BASE_SHAPE, core_case
from dlfa_kernels.overrides import overrides


def test_other_tiles_are_timed_where_they_are_not_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "device_architecture", lambda device: "sm_90")
    monkeypatch.setattr("dlfa_kernels.tiles.multiprocessors", lambda device: 132)
    device = torch.device("cuda")
    session: Any = SimpleNamespace(device=device, shapes=lambda sizes: [(32, 128, 768), *sizes])
    tasks = list(schedule.tasks(session))
    assert {task.providers[0] for task in tasks} == {"ours", *providers.SCHEDULES}
    one_slot = [task.case for task in tasks if task.providers == (providers.ONE_SLOT,)]
    assert one_slot == [core_case(BASE_SHAPE), core_case((64, 512, 768))]
    case = one_slot[1]
    shipped = schedule.shipped_tiles(case, device)
    assert shipped.squeeze.slots == 2
    for shape in schedule.SIZES:
        with_padding = [task.providers for task in tasks if task.case == replace(core_case(shape), fill=0.3)]
        one_sequence = [(providers.ONE_SEQUENCE,)] if shape == BASE_SHAPE else []
        assert with_padding == [("ours",), *one_sequence, (providers.FEWER_TOKENS,)]
    base, made = core_case(BASE_SHAPE), {}
    assert schedule.shipped_tiles(base, device).expand.sequences == 2
    for name in (providers.ONE_SEQUENCE, providers.FEWER_TOKENS):
        with schedule.schedule(name, base, device):
            tiles = overrides().tiles
        assert tiles is not None
        stages = (tiles.squeeze, tiles.expand, tiles.reduce, tiles.input_grads)
        made[name] = [tile.block_t for tile in stages], {tile.sequences for tile in stages}, tiles.squeeze.slots
    assert made == {
        providers.ONE_SEQUENCE: ([128, 128, 128, 128], {1}, 2),
        providers.FEWER_TOKENS: ([64, 64, 64, 128], {1}, 1),
    }
    changed = {"one-slot": "squeeze", "waiting-reduce": "reduce", "waiting-input-grads": "input_grads"}
    for name, stage in changed.items():
        with schedule.schedule(f"ours-{name}", case, device):
            tiles = overrides().tiles
        assert tiles is not None
        assert getattr(tiles, stage) != getattr(shipped, stage)
        assert replace(tiles, **{stage: getattr(shipped, stage)}) == shipped
    with schedule.schedule("ours-l2-50", case, device):
        assert (overrides().tiles, overrides().l2_share) == (None, 0.5)
