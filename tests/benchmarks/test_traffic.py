"""How often the kernels move each tensor, counted under Triton's interpreter."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("triton", reason="triton is there on Linux only")

import triton
import triton.language as tl

from benchmarks import traffic
from benchmarks.calls import CallVariant
from benchmarks.traffic import Case, measure
from dlfa_kernels.backends import INTERPRETED
from dlfa_kernels.launches import Launch
from dlfa_kernels.overrides import using_l2_share
from dlfa_kernels.tiles import Tile, choose_tiles

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="counts by Triton's interpreter: TRITON_INTERPRET=1")

LONG, ODD = (2, 320, 64), (3, 77, 33)
STATES = ("x", "y", "dz", "z", "dx", "dy")

Rows = dict[tuple[str, str], dict[str, Any]]


@cache
def counted(shape: tuple[int, int, int] = LONG, *, ragged: bool = False, **variant: Any) -> Rows:
    """Rows of one case by pass and argument; tests that share a case share its rows."""
    rows = measure(Case(shape, ragged, CallVariant(**variant)), torch.bfloat16)
    result = {(row["pass"], row["argument"]): row for row in rows}
    assert len(result) == len(rows)
    return result


def moved(rows: Rows, pass_: str, argument: str) -> tuple[float, float]:
    row = rows[pass_, argument]
    return row["tensors_read"], row["tensors_written"]


@triton.jit
def copy_kernel(source_ptr, target_ptr, size, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target_ptr + offsets, tl.load(source_ptr + offsets, mask=offsets < size), mask=offsets < size)


def run_copy(source: torch.Tensor, target: torch.Tensor, size: int) -> dict[tuple[int, str, str], int]:
    with traffic.counted() as counts:
        item = Launch(
            copy_kernel, (2,), {"source_ptr": source, "target_ptr": target, "size": size}, {"BLOCK": 64}, 1, 1
        )
        counts.launches.append(item)
        item.run()
    return counts.moved


def test_bytes_of_a_known_kernel() -> None:
    source, target = torch.arange(128, dtype=torch.float32), torch.zeros(128, dtype=torch.float64)
    assert run_copy(source, target, 100) == {(0, "source", "read"): 100 * 4, (0, "target", "written"): 100 * 8}
    assert target.tolist() == [*range(100), *[0] * 28]


def test_accesses_outside_the_arguments_are_errors() -> None:
    source = torch.zeros(128)
    with pytest.raises(Exception, match="copy_kernel accesses memory outside its arguments"):
        run_copy(source[:64], torch.zeros(128), 128)
    with pytest.raises(Exception, match="copy_kernel accesses memory outside its arguments"):
        run_copy(source[:99], torch.zeros(128), 100)  # by one element


def test_counting_leaves_the_interpreter_as_it_was() -> None:
    from triton.runtime.interpreter import interpreter_builder

    before = vars(interpreter_builder).copy()
    run_copy(torch.zeros(128), torch.zeros(128), 128)
    assert vars(interpreter_builder).keys() == before.keys()


@pytest.mark.parametrize("fuse", ["gate", "select"])
@pytest.mark.parametrize("shape", [LONG, ODD, (2, 128, 64)])
def test_states_are_moved_as_planned(shape: tuple[int, int, int], fuse: str) -> None:
    rows = counted(shape, fuse=fuse)
    for argument in ("x", "y"):
        assert moved(rows, "forward", argument) == (pytest.approx(2), 0)
    assert moved(rows, "forward", "z") == (0, 1)
    for argument in ("dz", "x", "y"):
        assert moved(rows, "backward", argument) == (pytest.approx(2), 0)
    for argument in ("dx", "dy") if fuse == "select" else ("dx",):
        assert moved(rows, "backward", argument) == (0, 1)
    assert (("backward", "dy") in rows) == (fuse == "select")


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_second_touch_begins_where_the_first_ended(monkeypatch: pytest.MonkeyPatch, kernel_size: int) -> None:
    touched: dict[str, list[int]] = {}

    class Ordered(traffic.Traffic):
        def count(self, direction: str, pointers: Any, mask: Any) -> None:
            launch, addresses = self.launches[-1], pointers.data[mask.data]
            x = launch.arguments.get("x_ptr")
            if isinstance(x, torch.Tensor) and addresses.size:
                row = (int(addresses.min()) - x.data_ptr()) // (x.stride(1) * x.element_size())
                if 0 <= row < x.shape[0] * x.shape[1]:
                    touched.setdefault(launch.kernel.__name__, []).append(row)
            super().count(direction, pointers, mask)

    monkeypatch.setattr(traffic, "Traffic", Ordered)
    measure(Case((4, 320, 64), False, CallVariant(kernel_size=kernel_size)), torch.bfloat16)
    assert touched["squeeze_kernel"][0] == touched["reduce_kernel"][0] == 0
    last_tiles = 4 * 320 - 128  # the programs of the backward walk over several tiles each
    assert touched["expand_kernel"][0] >= last_tiles
    assert touched["input_grads_kernel"][0] >= last_tiles
    assert touched["input_grads_kernel"][-1] < last_tiles
    # no launch comes after it that reads x, which its loads tell the caches
    assert [*touched][-1] == "input_grads_kernel"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("fuse", ["gate", "select"])
def test_nothing_else_of_the_states_size_is_moved(fuse: str, packed: bool) -> None:
    rows = counted(fuse=fuse, packed=packed)
    share = 16 / 64  # H / E
    # Where the input gradients gather, every block of channels reads both squeezes twice, from cache.
    blocks = math.ceil(64 / choose_tiles(64, 16, torch.bfloat16).input_grads.block_e)
    for (pass_, argument), row in rows.items():
        read, written = row["tensors_read"], row["tensors_written"]
        if argument in STATES:
            continue
        if argument in ("squeezed", "squeezed_gradient"):
            assert row["size"] == share
            assert read <= (2 + 2 * blocks) * share, (pass_, argument)
            assert written <= share, (pass_, argument)
        else:  # whatever the programs read again of so small a tensor, they read from cache
            # the largest are the weight gradients of four programs, float32, beside so few tokens
            assert row["size"] <= 0.2, (pass_, argument)
            assert written <= 0.2, (pass_, argument)


@pytest.mark.parametrize("fuse", ["gate", "select"])
@pytest.mark.parametrize("shape", [LONG, ODD])
def test_padding_is_not_read(shape: tuple[int, int, int], fuse: str) -> None:
    rows = counted(shape, ragged=True, fuse=fuse)
    fill = rows["forward", "x"]["fill"]
    assert fill == pytest.approx(0.3, abs=0.002)
    for pass_, arguments in (("forward", "x y"), ("backward", "dz x y")):
        for argument in arguments.split():
            assert moved(rows, pass_, argument) == (pytest.approx(2 * fill), 0)
    assert moved(rows, "forward", "z") == (0, 1)
    assert moved(rows, "backward", "dx") == (0, 1)


@pytest.mark.parametrize("shape", [LONG, ODD])
def test_packed_rows_are_all_that_is_moved(shape: tuple[int, int, int]) -> None:
    rows = counted(shape, ragged=True, packed=True, fuse="select")
    for pass_, arguments in (("forward", "x y"), ("backward", "dz x y")):
        for argument in arguments.split():
            assert moved(rows, pass_, argument) == (pytest.approx(2), 0)
    for pass_, argument in (("forward", "z"), ("backward", "dx"), ("backward", "dy")):
        assert moved(rows, pass_, argument) == (0, 1)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("kernel_size", "fuse"), [(1, "gate"), (1, "select"), (3, "gate")])
def test_backward_of_frozen_states_writes_nothing_of_their_size(kernel_size: int, fuse: str, packed: bool) -> None:
    variant: dict[str, Any] = {"kernel_size": kernel_size, "fuse": fuse, "packed": packed}
    rows, every = counted(frozen=True, **variant), counted(**variant)
    backward = {argument: row for (pass_, argument), row in rows.items() if pass_ == "backward"}
    assert not backward.keys() & {"dx", "dy", "pooled_gradient"}
    for argument, row in backward.items():
        assert row["tensors_written"] <= 0.25 * kernel_size, argument  # squeezed_gradient, or parts of the weights
    for argument in ("dz", "x", "y"):
        assert moved(rows, "backward", argument) == moved(every, "backward", argument)
        if kernel_size == 1 or argument == "dz":
            assert moved(rows, "backward", argument) == (pytest.approx(2), 0)
    # the local squeeze's weight serves dx alone; for kernel sizes over 1 it is a copy, one matrix a tap
    squeeze_weight = "local_squeeze_weight" if kernel_size == 1 else "squeeze_weight"
    assert moved(every, "backward", squeeze_weight)[0] > 0
    assert moved(rows, "backward", squeeze_weight) == (0, 0)


def test_token_form_of_frozen_states_makes_no_gradient_of_theirs() -> None:
    rows = counted(ragged=True, token=0, frozen=True)
    written = {argument for (pass_, argument), row in rows.items() if pass_ == "backward" and row["tensors_written"]}
    assert not written & {"dx", "branch"}
    assert rows["backward", "x"]["launches"] == 4


def test_one_input_alone() -> None:
    rows = counted(lower=False)
    assert moved(rows, "forward", "x") == (pytest.approx(2), 0)
    assert moved(rows, "backward", "dx") == (0, 1)
    assert not any(argument in ("y", "dy") for _, argument in rows)


def test_wide_kernels_write_once() -> None:
    rows = counted((2, 128, 64), kernel_size=3, fuse="select")
    assert moved(rows, "forward", "z") == (0, 1)
    assert moved(rows, "backward", "dx") == moved(rows, "backward", "dy") == (0, 1)
    # every tap reads its rows again, from cache: k by the squeeze, k by the weight gradient, once by each other stage
    assert 2 < moved(rows, "forward", "x")[0] <= 4
    assert 2 < moved(rows, "backward", "x")[0] <= 5
    assert moved(rows, "backward", "dz") == (pytest.approx(2), 0)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_the_mask_is_read_again_with_what_it_masks(kernel_size: int) -> None:
    length, embed_dim, squeeze_dim = 64, 320, 80  # one tile, and several blocks of E and H
    rows = counted((1, length, embed_dim), kernel_size=kernel_size)
    tiles = choose_tiles(embed_dim, squeeze_dim, torch.bfloat16)
    reads = {
        kernel: read * embed_dim * 2 / 8  # in masks, of int64, from states, of bfloat16
        for pass_ in ("forward", "backward")
        for kernel, (read, _) in rows[pass_, "mask"]["by_kernel"].items()
    }
    taps = kernel_size - 2 / length  # each of the outer two sees one position outside the sequence

    def blocks(tile: Tile) -> int:
        return math.ceil(embed_dim / tile.block_e)

    # The weight gradient goes by blocks of H too, and the input gradients by steps of at most 64 channels of it.
    steps = math.ceil(squeeze_dim / min(tiles.input_grads.block_h, 64))
    blocks_h = math.ceil(squeeze_dim / tiles.tap_grads.block_h)
    # The fusion of so few tiles is split by channels.
    expected = {"squeeze": 1.0, "expand": reads["expand"], "reduce": 1.0, "input_grads": blocks(tiles.input_grads)}
    if kernel_size > 1:
        expected["squeeze"] += taps * blocks(tiles.squeeze)
        expected["input_grads"] *= 1 + taps * steps
        expected["tap_grads"] = (kernel_size + taps) * blocks(tiles.tap_grads) * blocks_h
    assert reads == pytest.approx(expected)


@pytest.mark.parametrize("packed", [False, True])
def test_token_form_pools_once_and_writes_one_row(packed: bool) -> None:
    rows = counted(ragged=True, token=0, fuse="select", packed=packed)
    once = 1 if packed else rows["forward", "x"]["fill"]
    row = 1 / (640 * (0.3 if packed else 1))  # of the 2 sequences, one is empty
    blocks = math.ceil(64 / choose_tiles(64, 16, torch.bfloat16).token.block_e)
    for argument in ("x", "y"):
        read, written = moved(rows, "forward", argument)
        # the pooling reads all of it, the gate its row, twice (squeeze and fuse), in every block of channels
        assert once < read <= once + (1 + blocks) * row + 1e-6
        assert written == 0
        assert moved(rows, "backward", argument)[0] < 4 * row
    assert all(entry["tensors_written"] <= 0.1 for (pass_, _), entry in rows.items() if pass_ == "forward")
    assert moved(rows, "backward", "dx") == moved(rows, "backward", "dy") == (0, 1)


def test_groups_move_the_states_as_often_as_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case((3, 77, 33), True, CallVariant())
    whole = measure(case, torch.float32)
    monkeypatch.setattr("dlfa_kernels.groups.l2_bytes", lambda device: 1 << 12)
    with using_l2_share(0.5):
        grouped = measure(case, torch.float32)
    for before, after in zip(whole, grouped, strict=True):
        if before["argument"] in ("x", "y", "dz", "z", "dx"):
            assert after == {**before, "launches": after["launches"]}
        elif before["argument"] == "squeezed":  # read once more where the channels of few tiles are split
            assert after["tensors_written"] == before["tensors_written"]
    # three launches for each of three groups, and the weights
    assert {(row["pass"], row["launches"]) for row in grouped} == {("forward", 9), ("backward", 10)}


def test_launches_are_counted() -> None:
    small = (1, 40, 24)
    short, long, packed, wide = counted(small), counted(), counted(small, packed=True), counted(small, kernel_size=3)
    expected = {"short": (3, 4), "long": (4, 5), "packed": (4, 5), "wide": (3, 5)}
    for name, rows in (("short", short), ("long", long), ("packed", packed), ("wide", wide)):
        assert (rows["forward", "x"]["launches"], rows["backward", "x"]["launches"]) == expected[name], name
    assert rows["forward", "x"]["by_kernel"].keys() == {"squeeze", "expand"}


def test_scratch_is_listed() -> None:
    rows = counted()
    there = {argument for pass_, argument in rows if pass_ == "backward"}
    assert {"sums", "counts", "expand_parts", "squeeze_parts", "squeezed_gradient", "pooled_gradient"} <= there
    assert {"local_expand_weight", "local_expand_weight gradient", "mask", "context_gradient"} <= there


def test_command_writes_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case((1, 20, 24), False, CallVariant())
    monkeypatch.setattr(traffic, "CASES", (case,))
    path = tmp_path / "new" / "rows.json"
    result = CliRunner().invoke(traffic.app, ["--json", str(path), "--dtype", "float32"])
    assert result.exit_code == 0, result.output
    assert "local_expand_weight gradient" in result.output
    rows = json.loads(path.read_text())
    assert rows == json.loads(json.dumps(measure(case, torch.float32)))
    needed = {"pass", "shape", "kernel_size", "argument", "tensors_read", "tensors_written", "launches"}
    assert all(needed <= row.keys() for row in rows)
    assert [entry.name for entry in path.parent.iterdir()] == ["rows.json"]
