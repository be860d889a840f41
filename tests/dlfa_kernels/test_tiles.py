"""Tile sizes: what is shipped, that others give the same numbers, tuning, and a cache file that may be anything."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import tempfile
import threading
import warnings
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from aif_cases import Case, assert_equal_to_rounding, exact, make_inputs, relative_errors, run
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="triton is there on Linux only")

from triton.runtime.errors import OutOfResources

from dlfa_kernels import autotune, environment, fused_aif, passes, tile_trials
from dlfa_kernels.autotune import STAGES, bucket, neighbours, tiles_for, tune, tuning_waits
from dlfa_kernels.device import device_architecture, l2_bytes, multiprocessors
from dlfa_kernels.overrides import Overrides, overrides, record_launches, using_tiles
from dlfa_kernels.tile_cache import FORMAT, LIMITS, add_tiles, read_tiles
from dlfa_kernels.tiles import (
    FAMILIES,
    MAX_HELD_H,
    MAX_PART_H,
    Tile,
    Tiles,
    choose_tiles,
    context_that_fits,
    sharing_saves_tiles,
    tiles_for_batch,
    tiles_for_form,
    with_fewer_tokens,
    with_one_slot,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
TILES = choose_tiles(24, 16, torch.float32)


@pytest.mark.parametrize("architecture", [*FAMILIES, "sm_75", "gfx1100"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_shipped_tiles_fit_every_size(architecture: str, dtype: torch.dtype) -> None:
    for embed_dim in (1, 8, 24, 768, 1024, 12288):
        for squeeze_dim in (1, 16, 48, 100, 192, 256, 3072):
            tiles = choose_tiles(embed_dim, squeeze_dim, dtype, architecture)
            for stage in Tiles.stages():
                tile = getattr(tiles, stage)
                for size in (tile.block_t, tile.block_e, tile.block_h, tile.num_warps):
                    assert size & (size - 1) == 0, (stage, tile)
                assert min(tile.block_t, tile.block_e, tile.block_h) >= 16
                assert tile.held_h <= MAX_PART_H
                assert (tile.chunks - 1) * tile.block_h < squeeze_dim, (stage, tile)  # no block is held for nothing
                assert all(lowest <= getattr(tile, name) <= highest for name, (lowest, highest) in LIMITS.items())
            assert tiles.squeeze.held_h >= min(squeeze_dim, MAX_HELD_H - 64)


def test_an_unknown_architecture_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="dlfa_kernels.tiles"):
        tiles = choose_tiles(768, 192, torch.bfloat16, "sm_42")
    assert "sm_42" in caplog.text
    assert tiles == choose_tiles(768, 192, torch.bfloat16, "sm_86")  # of the least shared memory


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize(
    "sizes",
    [
        {"squeeze": {"block_t": 32}, "reduce": {"block_t": 128}, "input_grads": {"block_t": 16, "block_e": 16}},
        {"squeeze": {"block_t": 64, "block_e": 128}, "expand": {"block_t": 32}, "reduce": {"block_e": 16}},
        {"input_grads": {"block_t": 128, "block_e": 64}, "tap_grads": {"block_t": 32}, "expand": {"block_e": 128}},
        {"squeeze": {"block_t": 32, "slots": 2}, "expand": {"block_t": 64}},
        {"context": {"block_t": 32, "block_h": 16}, "weight_grads": {"block_t": 32, "block_h": 16}},
        # sequences of more tiles than a program of `pool` adds up at once
        {"pool": {"block_t": 2, "block_e": 16}, "squeeze": {"block_t": 16}, "reduce": {"block_t": 16}},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "case",
    [
        Case(batch=1, length=70, kernel_size=3, squeeze_dim=80),
        Case(lengths=(0, 70, 3)),
        Case(batch=3, length=70, squeeze_dim=80, mask="left"),
    ],
    ids=str,
)
def test_other_tiles_give_the_same_numbers(case: Case, sizes: dict[str, dict[str, int]], device: torch.device) -> None:
    tiles = choose_tiles(case.embed_dim, case.squeeze_dim, case.dtype)
    tiles = replace(tiles, **{stage: replace(getattr(tiles, stage), **size) for stage, size in sizes.items()})
    inputs = make_inputs(case, device)
    with using_tiles(tiles):
        actual = run(fused_aif, inputs, **case.options, backend="triton")
    errors = relative_errors(actual, exact(inputs, case))
    assert max(errors.values()) <= 2e-5, errors


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize(
    "case",
    [
        Case(batch=3, length=260, mask="islands", squeeze_dim=80),  # tiles without real tokens between others
        Case(batch=3, length=260, mask="right", fuse="select", dtype=torch.bfloat16),
        Case(batch=3, length=70, mask="empty", kernel_size=3),
        Case(batch=2, length=130, mask="all_empty"),
        Case(batch=2, length=130, mask="none", lower=False, frozen=True),
        Case(lengths=(0, 200, 3, 0, 65), squeeze_dim=80),
    ],
    ids=str,
)
def test_operands_loaded_early_or_a_tile_ahead_give_the_same_numbers(case: Case, device: torch.device) -> None:
    case = case.but(dtype=case.dtype if case.dtype == torch.bfloat16 else torch.float16)
    tiles = choose_tiles(case.embed_dim, case.squeeze_dim, case.dtype)
    inputs, results = make_inputs(case, device), []
    for early, ahead in ((0, 0), (1, 0), (1, 1)):
        tile = replace(tiles.input_grads, block_t=64, early=early, ahead=ahead)
        with using_tiles(replace(tiles, input_grads=tile)):
            results.append(run(fused_aif, inputs, **case.options, backend="triton"))
    assert_equal_to_rounding(results[1], results[0])
    assert_equal_to_rounding(results[2], results[0])


def test_operands_are_loaded_ahead_where_a_program_has_a_multiprocessor_to_itself() -> None:
    for dtype, squeeze_dims in ((torch.bfloat16, {192, 256}), (torch.float32, {192})):
        for squeeze_dim in (48, 128, 192, 256, 640):
            tiles = choose_tiles(2560, squeeze_dim, dtype, "sm_90", torch.bfloat16)
            assert tiles.input_grads.ahead == (squeeze_dim in squeeze_dims)
            assert (tiles.reduce.num_stages > 2) == (squeeze_dim > 128)
            assert (tiles.squeeze.num_stages > 2) == (squeeze_dim > 128 or dtype == torch.bfloat16)
    assert choose_tiles(768, 192, torch.bfloat16, "sm_80").input_grads.ahead == 0
    for architecture, squeeze_dim, stages in (
        ("sm_80", 256, 3),
        ("sm_80", 192, 3),
        ("sm_86", 192, 2),
        ("sm_80", 48, 2),
    ):
        assert choose_tiles(768, squeeze_dim, torch.bfloat16, architecture).reduce.num_stages == stages


def test_parts_of_a_wide_squeeze_are_of_equal_size() -> None:
    for squeeze_dim, parts, input_parts in ((257, 2, 2), (320, 2, 2), (384, 2, 2), (640, 2, 3), (3072, 10, 12)):
        tiles = choose_tiles(2560, squeeze_dim, torch.bfloat16, "sm_90")
        assert tiles.expand.block_e == 128
        for tile, expected in ((tiles.squeeze, parts), (tiles.reduce, parts), (tiles.input_grads, input_parts)):
            assert tile.held_h < squeeze_dim  # what is held as a whole has no parts
            assert -(-squeeze_dim // tile.held_h) == expected
            assert squeeze_dim > (expected - 1) * tile.held_h


def test_the_context_takes_less_shared_memory_where_its_operands_would_not_fit() -> None:
    wide = choose_tiles(768, 256, torch.bfloat16, "sm_90").context
    assert wide.block_e == 128
    for tiles_per_sequence, block_e in ((1, 128), (2, 128), (3, 64), (4, 64)):
        assert context_that_fits(wide, 768, 256, tiles_per_sequence) == replace(wide, block_e=block_e)
    narrow = choose_tiles(768, 192, torch.bfloat16, "sm_90").context
    assert context_that_fits(narrow, 768, 192, 4) == narrow
    for embed_dim, squeeze_dim, stages in ((64, 256, 3), (64, 257, 2), (128, 257, 3)):
        parts = choose_tiles(embed_dim, squeeze_dim, torch.bfloat16, "sm_90").context
        assert parts.num_stages == 3
        assert context_that_fits(parts, embed_dim, squeeze_dim, 1).num_stages == stages


def test_fewer_tokens_halve_the_programs_of_two_warpgroups_alone() -> None:
    wide = choose_tiles(1024, 256, torch.bfloat16, "sm_90")
    few = with_fewer_tokens(wide)
    for stage in ("squeeze", "expand", "reduce"):
        tile = getattr(wide, stage)
        assert (tile.block_t, tile.num_warps) == (128, 8)
        assert getattr(few, stage) == replace(tile, block_t=64, num_warps=4)
    assert replace(few, squeeze=wide.squeeze, expand=wide.expand, reduce=wide.reduce) == wide
    assert with_fewer_tokens(few) == few


META = torch.device("meta")


@pytest.mark.parametrize(
    ("batch", "length", "slots"),
    [
        (256, 128, 2),
        (64, 512, 2),
        (128, 200, 2),
        (32, 128, 1),
        (140, 128, 1),
        (300, 128, 1),
        (1000, 128, 2),
        (2000, 50, 1),
    ],
)
def test_two_slots_share_the_weights_where_programs_still_fill_the_device(batch: int, length: int, slots: int) -> None:
    tiles = choose_tiles(768, 192, torch.bfloat16, "sm_90")
    assert tiles.squeeze.slots == 2
    chosen = tiles_for_batch(tiles, batch, batch * length, 2 * 768, 0, META)
    assert chosen.squeeze.slots == slots
    assert (chosen == tiles) == (slots == 2)
    packed = tiles_for_form(tiles, 1, packed=True)
    assert tiles_for_batch(packed, batch, batch * length, 2 * 768, 0, META).squeeze.slots == 1
    if slots == 1:
        assert chosen.squeeze.block_e == 64
        assert (chosen.squeeze.block_h, chosen.squeeze.chunks) == (128, 2)  # products of 128 and 64 columns


@pytest.mark.parametrize(
    ("length", "has_mask", "saves"),
    [
        (0, False, False), (1, False, True), (64, False, True), (65, False, False), (128, False, False),
        (129, False, True), (192, False, True), (193, False, False), (256, False, False), (65, True, True),
        (192, True, True), (193, True, False),
    ],
)  # fmt: skip
def test_sequences_share_tiles_that_would_be_half_empty(length: int, has_mask: bool, saves: bool) -> None:
    assert sharing_saves_tiles(length, has_mask) == saves


@pytest.mark.parametrize("squeeze_dim", [192, 256, 384])
def test_large_tiles_of_stages_that_do_not_sum_over_them_hold_two_sequences(squeeze_dim: int) -> None:
    tiles = choose_tiles(768, squeeze_dim, torch.bfloat16, "sm_90")
    for batch, length, few, shared in (
        (1000, 128, (), ("expand", "input_grads")),
        (1000, 50, ("squeeze", "reduce"), ("expand", "input_grads")),
        (2, 100, ("squeeze", "expand", "reduce"), ("input_grads",)),
    ):
        given = batch, batch * length, 2 * 768, 0, META
        chosen = tiles_for_batch(tiles, *given, shared=True)
        for stage in ("squeeze", "expand", "reduce", "input_grads"):
            tile = getattr(chosen, stage)
            assert (tile.block_t, tile.sequences) == (64 if stage in few else 128, 2 if stage in shared else 1)
        assert chosen.squeeze == tiles_for_batch(tiles, *given).squeeze


def test_one_slot_does_not_widen_blocks_of_a_narrow_squeeze() -> None:
    tiles = choose_tiles(768, 48, torch.bfloat16, "sm_90")
    two = replace(tiles, squeeze=replace(tiles.squeeze, slots=2))  # as tuning may find
    assert with_one_slot(two).squeeze.block_h == tiles.squeeze.block_h == 64


def test_groups_have_programs_of_two_slots_where_they_are_large_enough() -> None:
    tiles, batch, state_bytes = choose_tiles(256, 192, torch.bfloat16, "sm_90"), 4096, 2 * 256
    of_two = 2 * 128 * multiprocessors(META)  # tokens of one round of such programs
    share = of_two * 2 * state_bytes / l2_bytes(META)
    for part, slots in ((0.99, 2), (0.7, 1)):
        chosen = tiles_for_batch(tiles, batch, batch * 128, state_bytes, part * share, META).squeeze
        assert (chosen.block_t, chosen.slots) == (128, slots)


def test_the_architecture_of_an_amd_gpu_is_named_without_its_features(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(gcnArchName="gfx942:sramecc+:xnack-")
    monkeypatch.setattr(torch.version, "hip", "7.0")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert device_architecture.__wrapped__(torch.device("cuda", 0)) == "gfx942"


def test_tuning_keeps_what_is_fastest() -> None:
    def measure(tiles: Tiles, stage: str) -> float:
        if stage == "l2_share":
            return 1 + abs(tiles.l2_share - 0.5)
        tile = getattr(tiles, stage)
        if tile.block_t == 128:
            raise OutOfResources(286720, 232448, "shared memory")
        return 1 + abs(tile.block_t - 32) + abs(tile.block_e - 64) / 10 + tile.num_stages

    start = replace(TILES, **{stage: Tile(block_t=64, block_e=32, num_stages=3) for stage in STAGES})
    tuned = tune(start, measure, seconds=60)
    for stage in STAGES:  # three steps from where it started
        assert getattr(tuned, stage) == replace(getattr(start, stage), block_t=32, block_e=64, num_stages=2)
    assert tuned.l2_share == 0.5
    untouched = set(Tiles.stages()) - set(STAGES)
    assert all(getattr(tuned, stage) == getattr(start, stage) for stage in untouched)


def test_neighbours_differ_in_one_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    tile = Tile(block_t=48, block_e=64, num_warps=8, num_stages=2)
    monkeypatch.setattr(torch.version, "hip", None)
    several = list(neighbours(tile, "expand"))
    for other in several:
        assert sum(getattr(other, field.name) != getattr(tile, field.name) for field in fields(Tile)) == 1
    assert len(set(several)) == len(several) == 3 + 2 + 1 + 2 + 2
    assert set(neighbours(tile, "squeeze")) == {*several, replace(tile, slots=2)}
    assert set(neighbours(tile, "input_grads")) == {*several, replace(tile, early=1), replace(tile, ahead=1)}
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert list(neighbours(tile, "expand")) == [other for other in several if other.registers == tile.registers]
    assert replace(tile, block_t=64, num_warps=4) in set(neighbours(replace(tile, block_t=128), "expand"))


@pytest.fixture
def trials(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> tile_trials.Trials:
    """Of so few tokens that the interpreter takes no time for them."""
    monkeypatch.setattr(tile_trials, "LENGTH", 5)
    monkeypatch.setattr(tile_trials, "l2_bytes", lambda device: 1000)
    return tile_trials.Trials(device, 24, 16, torch.float32, torch.float32)


@pytest.mark.parametrize("wrong", [1.2, float("nan")])
def test_tiles_with_wrong_results_are_not_chosen(
    wrong: float, trials: tile_trials.Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, backward = passes.forward, passes.backward

    def spoilt(stage: str) -> bool:
        tiles = overrides().tiles
        return tiles is not None and getattr(tiles, stage).num_stages == 4

    def spoilt_forward(*arguments: Any) -> Any:
        result = forward(*arguments)
        return result._replace(z=result.z * wrong) if spoilt("expand") else result

    def spoilt_backward(*arguments: Any) -> Any:
        result = backward(*arguments)
        return result._replace(dx=result.dx * wrong) if spoilt("input_grads") else result

    monkeypatch.setattr(passes, "forward", spoilt_forward)
    monkeypatch.setattr(passes, "backward", spoilt_backward)
    monkeypatch.setattr(tile_trials, "_milliseconds", lambda run: 1.0)
    measure = trials.measure
    tiles = choose_tiles(24, 16, torch.float32)
    for stage in ("squeeze", "expand", "reduce", "input_grads"):
        assert measure(tiles, stage) == 1.0
        other = replace(tiles, **{stage: replace(getattr(tiles, stage), num_stages=4)})
        if stage in ("expand", "input_grads"):
            with pytest.raises(RuntimeError, match="results are not those"):
                measure(other, stage)
        else:
            assert measure(other, stage) == 1.0


@pytest.mark.parametrize("l2", [50, 60])
@pytest.mark.parametrize(("embed_dim", "squeeze_dim"), [(640, 160), (768, 144), (768, 192), (1024, 192)])
def test_tiles_of_two_slots_are_tried_as_they_are(
    embed_dim: int, squeeze_dim: int, l2: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("tile_trials", "tiles"):
        monkeypatch.setattr(f"dlfa_kernels.{module}.multiprocessors", lambda device: 132)
    monkeypatch.setattr(tile_trials, "l2_bytes", lambda device: l2 << 20)
    batch = tile_trials.trial_batch(META, 2 * embed_dim)
    assert batch * tile_trials.LENGTH * 2 * embed_dim > l2 << 20
    tiles = choose_tiles(embed_dim, squeeze_dim, torch.bfloat16, "sm_90")
    assert tiles.squeeze.slots == 2
    assert tiles_for_batch(tiles, batch, batch * tile_trials.LENGTH, 2 * embed_dim, 0.0, META) == tiles


def test_tiles_that_calls_would_not_take_are_not_timed(
    trials: tile_trials.Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tile_trials, "_milliseconds", lambda run: 1.0)
    tiles = choose_tiles(24, 16, torch.float32)
    two = replace(tiles, squeeze=replace(tiles.squeeze, slots=2))  # so few tokens have programs of one
    assert trials.measure(two, "squeeze") == 1.0  # where the search starts is timed as calls take it
    assert trials.measure(tiles, "squeeze") == 1.0
    with pytest.raises(RuntimeError, match="calls take"):
        trials.measure(two, "squeeze")


def test_trials_leave_other_threads_and_random_numbers_alone(
    trials: tile_trials.Trials, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, seen = passes.forward, []

    def watched(*arguments: Any) -> Any:
        assert overrides().tiles is not None
        other = threading.Thread(target=lambda: seen.append(overrides().tiles))
        other.start()
        other.join()
        return forward(*arguments)

    def random_state() -> torch.Tensor:
        return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()

    monkeypatch.setattr(tile_trials, "_milliseconds", lambda run: 1.0)
    monkeypatch.setattr(passes, "forward", watched)
    before = random_state()
    trials.measure(TILES, "reduce")
    trials.run_forms(TILES)
    assert seen == [None] * 3
    assert torch.equal(random_state(), before)


def test_one_wrong_tile_of_many_is_wrong() -> None:
    generator = torch.Generator().manual_seed(0)
    expected = torch.randn(200, 128, 96, generator=generator)
    wrong = expected.clone()
    wrong[150, 96:112, 64:80] = 0
    assert tile_trials._alike(wrong, expected, states=False)  # as a whole it would pass
    assert not tile_trials._alike(wrong, expected, states=True)
    assert tile_trials._alike(expected.bfloat16(), expected, states=True)


def test_trials_multiply_in_the_dtype_of_autocast(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, dtypes = passes.forward, set()

    def noted(*arguments: Any) -> Any:
        result = forward(*arguments)
        dtypes.add((result.z.dtype, result.squeezed.dtype))
        return result

    monkeypatch.setattr(tile_trials, "LENGTH", 5)
    monkeypatch.setattr(tile_trials, "l2_bytes", lambda device: 1000)
    monkeypatch.setattr(tile_trials, "_milliseconds", lambda run: 1.0)
    monkeypatch.setattr(passes, "forward", noted)
    trials = tile_trials.Trials(device, 24, 16, torch.float32, torch.bfloat16)
    tiles = choose_tiles(24, 16, torch.float32, product_dtype=torch.bfloat16)
    for stage in ("squeeze", "input_grads"):
        trials.measure(tiles, stage)
    trials.run_forms(tiles)
    assert dtypes == {(torch.float32, torch.bfloat16)}


def test_tiles_on_trial_are_seen_by_the_tuning_thread_alone() -> None:
    """And a block of another thread that is open when the trial begins or ends leaves nothing behind, nor does that."""
    before, other = overrides(), choose_tiles(1024, 256, torch.bfloat16)
    begun, may_end, seen = threading.Event(), threading.Event(), []

    def on_trial() -> None:
        with using_tiles(other, in_this_thread=True):
            seen.append(overrides())
            begun.set()
            assert may_end.wait(60)
            seen.append(overrides())

    for begins_inside in (True, False):
        begun.clear()
        may_end.clear()
        thread = threading.Thread(target=on_trial)
        if not begins_inside:
            thread.start()
            assert begun.wait(60)
        with record_launches():
            if begins_inside:
                thread.start()
                assert begun.wait(60)
            else:
                may_end.set()
                thread.join()
            assert overrides().tiles is None
            assert overrides().recorded is not None
        assert overrides() == before
        may_end.set()
        thread.join()
        assert overrides() == before
    assert seen == [Overrides(tiles=other)] * 4


def test_a_record_inside_another_keeps_the_architecture() -> None:
    with record_launches("sm_80"):
        with record_launches():
            assert overrides().architecture == "sm_80"
        with record_launches("sm_90"):
            assert overrides().architecture == "sm_90"


def test_tuning_changes_nothing_that_is_not_faster_by_more_than_noise() -> None:
    measured: list[tuple[Tiles, str]] = []

    def measure(tiles: Tiles, stage: str) -> float:
        measured.append((tiles, stage))
        return 1.0 if tiles == TILES else 0.995

    assert tune(TILES, measure, seconds=60) == TILES
    assert len(set(measured)) == len(measured)  # nothing twice


def test_what_cannot_be_measured_is_not_tuned(caplog: pytest.LogCaptureFixture) -> None:
    def measure(tiles: Tiles, stage: str) -> float:
        if stage == "reduce":
            raise OutOfResources(240_000, 232_448, "shared memory")
        return 1.0 if getattr(tiles, stage) == getattr(TILES, stage) else 0.5

    with caplog.at_level(logging.WARNING):
        tuned = tune(TILES, measure, 60)
    assert tuned.reduce == TILES.reduce
    assert tuned.expand != TILES.expand
    assert [record.message.split(",")[0] for record in caplog.records] == ["reduce is not tuned"]

    def without_memory(tiles: Tiles, stage: str) -> float:
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        tune(TILES, without_memory, 60)


def test_tuning_is_bounded_in_time() -> None:
    calls: list[str] = []

    def measure(tiles: Tiles, stage: str) -> float:
        calls.append(stage)
        return 1 / len(calls)

    assert tune(TILES, measure, seconds=-1) == TILES
    assert not calls


def test_every_stage_has_its_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = 0.0, []

    def measure(tiles: Tiles, stage: str) -> float:
        nonlocal now
        now += 1.0
        calls.append(stage)
        return 1 / len(calls)  # always better: no stage ends by itself, but for the last

    monkeypatch.setattr(autotune, "time", SimpleNamespace(monotonic=lambda: now))
    tune(TILES, measure, seconds=50)
    counts = [calls.count(stage) for stage in (*STAGES, "l2_share")]
    assert counts[-1] == 4
    assert all(9 <= count <= 12 for count in counts[:-1])
    assert now <= 51


@pytest.mark.parametrize("bad", [(), ("reduce",), ("squeeze", "input_grads")])
def test_tuned_tiles_run_in_every_form(
    bad: tuple[str, ...], trials: tile_trials.Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward, forms = passes.backward, []

    def limited(inputs: Any, settings: Any, saved: Any) -> Any:  # as where select takes more shared memory than gate
        tiles, fuse, packed = overrides().tiles, settings.fuse, inputs.packed
        forms.append((fuse, packed))
        if fuse == "select" and packed and any(getattr(tiles, stage).num_stages == 4 for stage in bad):
            raise OutOfResources(286720, 232448, "shared memory")
        return backward(inputs, settings, saved)

    def measure(tiles: Tiles, stage: str) -> float:
        return 1.0 if stage == "l2_share" else 10.0 - getattr(tiles, stage).num_stages

    monkeypatch.setattr(passes, "backward", limited)
    tuned = autotune._fit_for_every_form(tune(TILES, measure, seconds=60), TILES, trials)
    four = {stage for stage in STAGES if getattr(tuned, stage).num_stages == 4}
    assert four == (set() if len(bad) > 1 else set(STAGES) - set(bad))
    assert ("select", False) in forms


def test_forms_on_trial_take_more_registers_or_memory_than_the_one_that_is_timed(
    trials: tile_trials.Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward, forms = passes.backward, []

    def noted(inputs: Any, settings: Any, saved: Any) -> Any:
        tiles, kernel_size = overrides().tiles, inputs.weights.local_squeeze_weight.shape[-1]
        masked, slots = inputs.mask is not None, tiles.squeeze.slots if tiles else None
        forms.append((settings.fuse, settings.activation, masked, inputs.packed, kernel_size, slots))
        return backward(inputs, settings, saved)

    monkeypatch.setattr(passes, "backward", noted)
    trials.run_forms(replace(TILES, squeeze=replace(TILES.squeeze, slots=2)))
    assert forms == [("select", "gelu", True, False, 1, 2), ("select", "silu", False, True, 3, 1)]


@pytest.fixture
def tuning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """DLFA_AUTOTUNE=1 as on a GPU, nothing tuned yet; the file of tuned tiles."""
    path = tmp_path / "tiles.json"
    monkeypatch.setenv("DLFA_AUTOTUNE", "1")
    monkeypatch.setenv("DLFA_TILE_CACHE", str(path))
    monkeypatch.setattr(autotune, "_tuned", {})
    monkeypatch.setattr(autotune, "device_architecture", lambda device: "sm_90")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return path


def test_float32_states_under_autocast_have_tuned_tiles_of_their_own(
    tuning: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[Any, ...]] = []

    class NoTrials:
        measure = None

        def __init__(self, device: torch.device, *sizes: Any) -> None:
            tried.append(sizes)

    monkeypatch.setattr(autotune, "Trials", NoTrials)
    monkeypatch.setattr(autotune, "tune", lambda default, measure, seconds: replace(default, l2_share=0.25))
    monkeypatch.setattr(autotune, "_fit_for_every_form", lambda tuned, default, trials: tuned)
    for products in (torch.bfloat16, torch.float16, torch.float32) * 2:
        shipped = choose_tiles(768, 192, torch.float32, "sm_90", products)
        chosen = tiles_for(768, 192, torch.float32, torch.device("cuda"), products)
        assert chosen == replace(shipped, l2_share=0.25)
    assert tried == [(768, 192, torch.float32, products) for products in (torch.bfloat16, torch.float16, torch.float32)]
    assert len(read_tiles(tuning)) == 3


def test_tiles_that_are_kept_are_read_and_not_tuned_again(tuning: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = replace(choose_tiles(768, 192, torch.bfloat16, "sm_90"), l2_share=0.5)
    add_tiles(tuning, bucket(768, 192, torch.bfloat16, "sm_90", torch.bfloat16), kept)
    monkeypatch.setattr(autotune, "Trials", lambda *sizes: pytest.fail("tuned again"))
    assert tiles_for(768, 192, torch.bfloat16, torch.device("cuda"), torch.bfloat16) == kept


def test_tuning_takes_the_time_it_is_given_and_keeps_what_runs_in_every_form(
    tuning: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []

    def tune_in(default: Tiles, measure: Any, seconds: float) -> Tiles:
        given.append(seconds)
        return replace(default, l2_share=0.25)

    monkeypatch.setenv("DLFA_AUTOTUNE_SECONDS", "7")
    monkeypatch.setattr(autotune, "Trials", lambda *sizes: SimpleNamespace(measure=None))
    monkeypatch.setattr(autotune, "tune", tune_in)
    monkeypatch.setattr(
        autotune, "_fit_for_every_form", lambda tuned, default, trials: replace(default, l2_share=2 * tuned.l2_share)
    )
    chosen = tiles_for(768, 192, torch.bfloat16, torch.device("cuda"), torch.bfloat16)
    assert chosen == replace(choose_tiles(768, 192, torch.bfloat16, "sm_90"), l2_share=0.5)
    assert list(read_tiles(tuning).values()) == [chosen]
    assert given == [7.0]


def test_threads_do_not_tune_at_the_same_time(tuning: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    both = threading.Event()

    def tune_in(default: Tiles, measure: Any, seconds: float) -> Tiles:
        begun.append(1)
        if len(begun) > 1:
            both.set()
        both.wait(0.2)
        return default

    monkeypatch.setattr(autotune, "Trials", lambda *sizes: SimpleNamespace(measure=None))
    monkeypatch.setattr(autotune, "tune", tune_in)
    monkeypatch.setattr(autotune, "_fit_for_every_form", lambda tuned, default, trials: tuned)
    sizes = (768, 192, torch.bfloat16, torch.device("cuda"), torch.bfloat16)
    threads = [threading.Thread(target=tiles_for, args=sizes) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not both.is_set()
    assert len(begun) == 1


@pytest.mark.parametrize("token", [None, 1])
def test_the_token_form_is_never_tuned(
    token: int | None, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def tiles_asked_for(*sizes: Any) -> Tiles:
        asked.append(sizes)
        return tiles_for(*sizes)

    monkeypatch.setattr("dlfa_kernels.launch_plan.tiles_for", tiles_asked_for)
    case = Case(batch=1, length=3, embed_dim=8, squeeze_dim=8, mask="none", token=token)
    with record_launches():  # nothing is replayed inside
        run(fused_aif, make_inputs(case, device), **case.options, backend="triton")
    assert bool(asked) == (token is None)


def test_nothing_is_tuned_while_a_graph_is_captured(
    tuning: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert tiles_for(768, 192, torch.bfloat16, cuda, torch.bfloat16) == choose_tiles(768, 192, torch.bfloat16, "sm_90")
    assert "no tiles are tuned while a CUDA graph is captured" in caplog.text
    assert not tuning.exists()
    assert tuning_waits(cuda)
    assert not tuning_waits(torch.device("cpu"))
    monkeypatch.setenv("DLFA_AUTOTUNE", "0")
    assert not tuning_waits(cuda)


def test_without_memory_to_tune_the_shipped_tiles_serve(
    tuning: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[int] = []

    def trials(*sizes: Any) -> Any:
        tried.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(autotune, "Trials", trials)
    for _ in range(2):
        chosen = tiles_for(768, 192, torch.bfloat16, torch.device("cuda"), torch.bfloat16)
        assert chosen == choose_tiles(768, 192, torch.bfloat16, "sm_90")
    assert len(tried) == 1
    assert "too little memory to tune tiles" in caplog.text
    assert not tuning.exists()


def test_tiles_are_kept_by_bucket_not_by_exact_size(monkeypatch: pytest.MonkeyPatch) -> None:
    key = bucket(768, 192, torch.bfloat16, "sm_90", torch.bfloat16)
    assert key == bucket(600, 192, torch.bfloat16, "sm_90", torch.bfloat16)
    others = [
        bucket(1030, 192, torch.bfloat16, "sm_90", torch.bfloat16),
        bucket(768, 256, torch.bfloat16, "sm_90", torch.bfloat16),
        bucket(768, 192, torch.float16, "sm_90", torch.float16),
        bucket(768, 192, torch.bfloat16, "sm_80", torch.bfloat16),
        bucket(768, 192, torch.float32, "sm_90", torch.float32),
        *(bucket(768, 192, torch.float32, "sm_90", products) for products in (torch.bfloat16, torch.float16)),
    ]
    monkeypatch.setattr("triton.__version__", "0.0")  # which may need more shared memory for the same tile
    others.append(bucket(768, 192, torch.bfloat16, "sm_90", torch.bfloat16))
    assert len({key, *others}) == 1 + len(others)


def test_nothing_is_tuned_unasked_or_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLFA_TILE_CACHE", str(tmp_path / "tiles.json"))
    for wanted in ("0", "1"):
        monkeypatch.setenv("DLFA_AUTOTUNE", wanted)
        assert tiles_for(24, 16, torch.float32, torch.device("cpu"), torch.float32) == TILES
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seconds", ["0", "-3", "soon", "nan"])
def test_a_bad_time_limit_is_named(seconds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLFA_AUTOTUNE_SECONDS", seconds)
    with pytest.raises(
        ValueError, match=f"DLFA_AUTOTUNE_SECONDS must be a positive number of seconds, got '{seconds}'"
    ):
        environment.autotune_seconds()


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("DLFA_TILE_CACHE", raising=False)
    assert environment.tile_cache() == tmp_path / "dlfa" / "tiles.json"
    monkeypatch.setenv("DLFA_TILE_CACHE", str(tmp_path / "other.json"))
    assert environment.tile_cache() == tmp_path / "other.json"
    monkeypatch.delenv("DLFA_TILE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert environment.tile_cache() == tmp_path / ".cache" / "dlfa" / "tiles.json"
    monkeypatch.setenv("XDG_CACHE_HOME", "")  # as if it were not set
    assert environment.tile_cache() == tmp_path / ".cache" / "dlfa" / "tiles.json"
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # a container's user without a home
    assert environment.tile_cache().is_absolute()


def test_tiles_survive_the_disk(tmp_path: Path) -> None:
    path, wide = tmp_path / "deep" / "tiles.json", choose_tiles(1024, 256, torch.bfloat16)
    assert read_tiles(path) == {}
    add_tiles(path, "a", TILES)
    add_tiles(path, "b", wide)
    add_tiles(path, "a", wide)
    assert read_tiles(path) == {"a": wide, "b": wide}
    assert [file.name for file in path.parent.iterdir()] == ["tiles.json"]


GOOD: dict[str, Any] = {"format": FORMAT, "tiles": {"a": asdict(TILES)}}


def with_tile(**changes: Any) -> dict[str, Any]:
    tiles = asdict(TILES)
    return {"format": FORMAT, "tiles": {"a": {**tiles, "squeeze": {**tiles["squeeze"], **changes}}}}


NOT_TILES: list[Any] = [
    {**GOOD, "format": "dlfa-tiles-1"},
    {"format": FORMAT},
    {"format": FORMAT, "tiles": [1]},
    {"format": FORMAT, "tiles": {"a": 1}},
    {"format": FORMAT, "tiles": {"a": {}}},
    {"format": FORMAT, "tiles": {"a": {**asdict(TILES), "other": asdict(Tile())}}},
    *({"format": FORMAT, "tiles": {"a": {**asdict(TILES), "l2_share": share}}} for share in (-0.1, 2, True, "0", None)),
    *(with_tile(**change) for change in (
        {"block_t": 63}, {"block_t": 0}, {"block_e": -64}, {"block_h": 2**20}, {"block_t": 64.0}, {"num_warps": True},
        {"num_warps": None}, {"extra": 1}, {"block_t": 256}, {"num_warps": 32}, {"num_stages": 9}, {"registers": 512},
        {"num_warps": 6}, {"chunks": 8, "block_h": 64}, {"slots": 3}, {"slots": 0},
    )),
]  # fmt: skip
CUT_OFF = [json.dumps(GOOD).encode()[:length] for length in (0, 1, 12, 30, -40)]
FOREIGN = [b"\xff\xfe", b"null", b"[]", b"{}", b'"tiles"', b'{"my": "data"}', b'{"format": "other"}']
DEEP = pytest.param(b"[" * 100_000, id="deep")


@pytest.mark.parametrize("content", [*CUT_OFF, *(json.dumps(value).encode() for value in NOT_TILES)])
def test_a_damaged_file_is_ignored_and_named_then_replaced(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tiles.json"
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"tiles\.json is ignored"):
        assert read_tiles(path) == {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        add_tiles(path, "a", TILES)
    assert read_tiles(path) == {"a": TILES}


@pytest.mark.parametrize("content", [*FOREIGN, DEEP])
def test_a_foreign_file_is_ignored_and_named_and_stays(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tiles.json"
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"tiles\.json is ignored"):
        assert read_tiles(path) == {}
    with pytest.warns(UserWarning, match="could not be kept.*another program's file"):
        add_tiles(path, "a", TILES)
    assert path.read_bytes() == content


def test_what_is_no_file_stays_and_a_link_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, kept, link = tmp_path / "pipe", tmp_path / "kept.json", tmp_path / "tiles.json"
    os.mkfifo(pipe)
    monkeypatch.chdir(tmp_path)
    for path in (pipe, tmp_path, Path("."), Path("/")):
        with pytest.warns(UserWarning, match="could not be kept.*no regular file"):
            add_tiles(path, "a", TILES)
    assert pipe.is_fifo()
    link.symlink_to(kept)
    add_tiles(link, "a", TILES)
    assert link.is_symlink()
    assert read_tiles(kept) == {"a": TILES}


def test_the_file_may_be_read_by_others_as_the_umask_says(tmp_path: Path) -> None:
    path, other = tmp_path / "tiles.json", tmp_path / "other"
    add_tiles(path, "a", TILES)
    other.write_text("")
    assert path.stat().st_mode == other.stat().st_mode


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["format", "tiles", "squeeze", "block_t", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.binary(max_size=40) | json_values.map(lambda value: json.dumps({"format": FORMAT, "tiles": value}).encode()))
def test_no_file_is_fatal(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "tiles.json"
        path.write_bytes(content)
        assert all(isinstance(tiles, Tiles) for tiles in read_tiles(path).values())


def test_a_file_that_cannot_be_read_or_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "tiles.json").mkdir()
    with pytest.warns(UserWarning, match="is ignored"):
        assert read_tiles(tmp_path / "tiles.json") == {}
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="could not be kept"), pytest.warns(UserWarning, match="is ignored"):
        add_tiles(tmp_path / "file" / "tiles.json", "a", TILES)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "tiles.json").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        add_tiles(tmp_path / "tiles.json", "a", TILES)
    assert [file.name for file in tmp_path.iterdir()] == ["tiles.json"]


def _write_often(path: Path, name: str) -> None:
    warnings.simplefilter("error")
    for count in range(30):
        add_tiles(path, f"{name}{count % 3}", TILES)
        assert read_tiles(path)


def test_two_processes_leave_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "tiles.json"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_often, args=(path, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert set(read_tiles(path).values()) == {TILES}
    assert [file.name for file in tmp_path.iterdir()] == ["tiles.json"]


@pytest.mark.gpu
@pytest.mark.slow
def test_tuning_on_a_gpu_is_kept_and_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiles.json"
    monkeypatch.setenv("DLFA_AUTOTUNE", "1")
    monkeypatch.setenv("DLFA_AUTOTUNE_SECONDS", "20")
    monkeypatch.setenv("DLFA_TILE_CACHE", str(path))
    monkeypatch.setattr("dlfa_kernels.autotune._tuned", {})
    case = Case(batch=2, length=70, embed_dim=768, squeeze_dim=192, dtype=torch.bfloat16)
    inputs = make_inputs(case, "cuda")
    errors = relative_errors(run(fused_aif, inputs, **case.options, backend="triton"), exact(inputs, case))
    assert errors["z"] <= 1e-2
    assert max(errors.values()) <= 2e-2
    assert len(read_tiles(path)) == 1
