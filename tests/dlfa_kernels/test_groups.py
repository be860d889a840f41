"""Launches by groups of sequences: the same numbers, no more launches than groups need, nothing moved twice."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial

import pytest
import torch
from aif_cases import Case, exact, make_inputs, relative_errors, run

from benchmarks.errors import LIMITS
from dlfa_kernels import fused_aif, passes
from dlfa_kernels.device import l2_bytes
from dlfa_kernels.groups import Group, sequence_groups
from dlfa_kernels.launches import Launch
from dlfa_kernels.operands import Inputs
from dlfa_kernels.overrides import overrides, record_launches, using_l2_share, using_tiles
from dlfa_kernels.parameters import AIFWeights, weight_shapes
from dlfa_kernels.settings import Settings
from dlfa_kernels.tiles import choose_tiles

pytestmark = pytest.mark.usefixtures("poisoned_memory")

triton_aif = partial(fused_aif, backend="triton")
CPU = torch.device("cpu")


def test_groups_cover_the_batch_and_fit() -> None:
    l2 = l2_bytes(CPU)
    for batch, parts, share in ((7, 20, 0.5), (64, 100, 0.25), (5, 3, 0.5), (100, 1000, 1.0), (1, 1, 0.1)):
        groups = sequence_groups(batch, l2 // parts, share, CPU)
        assert [number for group in groups for number in range(*group)] == list(range(batch))
        sizes = [group.end - group.first for group in groups]
        assert max(sizes) * (l2 // parts) <= share * l2 or max(sizes) == 1 or batch * (l2 // parts) <= l2
        assert sizes == sorted(sizes, reverse=True)


def test_one_group_without_a_share_or_where_the_batch_fits_in_l2() -> None:
    l2 = l2_bytes(CPU)
    assert sequence_groups(1000, l2, 0, CPU) == [Group(0, 1000)]
    assert sequence_groups(4, l2 // 4, 0.25, CPU) == [Group(0, 4)]
    assert sequence_groups(3, 2 * l2, 0.5, CPU) == [Group(0, 1), Group(1, 2), Group(2, 3)]
    assert sequence_groups(3, 0, 0.5, CPU) == [Group(0, 3)]
    assert sequence_groups(9, l2 // 4, 1.0, CPU) == [Group(0, 3), Group(3, 6), Group(6, 9)]  # not 4, 4 and 1
    assert choose_tiles(768, 192, torch.bfloat16).l2_share == 0


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_out_of_bounds_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=f"share must be from 0 to 1, got {share}"), using_l2_share(share):
        pass


def test_no_share_leaves_the_one_outside_as_it_is() -> None:
    with using_l2_share(0.5), using_l2_share(None):
        assert overrides().l2_share == 0.5
    assert overrides().l2_share is None


@pytest.fixture
def small_l2(monkeypatch: pytest.MonkeyPatch) -> None:
    """An L2 of 512 bytes, in which no batch of these tests fits, and a few sequences of 4 tokens do."""
    monkeypatch.setattr("dlfa_kernels.groups.l2_bytes", lambda device: 512)


def first_sequences(launches: list[Launch]) -> list[int]:
    """Where the groups of recorded launches begin."""
    return [item.arguments["first"] for item in launches if item.kernel.__name__ == "context_kernel"]


@pytest.mark.usefixtures("small_l2")
def test_programs_without_a_tile_in_the_last_group_load_none_ahead(device: torch.device) -> None:
    # groups of 2 + 2 + 1 sequences
    case = Case(batch=5, length=4, embed_dim=8, squeeze_dim=8, lower=False, mask="none", dtype=torch.float16)
    inputs, results = make_inputs(case, device), []
    for ahead in (0, 1):
        tiles = choose_tiles(case.embed_dim, case.squeeze_dim, case.dtype)
        tiles = replace(tiles, input_grads=replace(tiles.input_grads, block_t=64, num_warps=4, ahead=ahead))
        with using_tiles(tiles), using_l2_share(1.0), record_launches() as launches:
            results.append(run(triton_aif, inputs, **case.options))
        walks = [item for item in launches if item.kernel.__name__ == "input_grads_kernel"]
        assert [item.grid[1] for item in walks] == [2, 2, 2]
        assert [item.arguments["end_slot"] - item.arguments["first_slot"] for item in walks] == [2, 2, 1]
    for name, expected in results[0].items():
        assert torch.equal(results[1][name], expected), name


@pytest.mark.usefixtures("small_l2")
@pytest.mark.parametrize(
    "case",
    [
        Case(batch=3, length=70, mask="empty"),
        Case(batch=5, length=9, embed_dim=8, squeeze_dim=8, kernel_size=3, fuse="select", mask="empty"),
        Case(batch=5, length=4, embed_dim=8, squeeze_dim=8, lower=False, dtype=torch.bfloat16, mask="none"),
        Case(batch=2, length=300, embed_dim=8, kernel_size=5, mask="islands"),  # pooled by a launch of its own
    ],
    ids=str,
)
def test_groups_give_the_same_numbers(case: Case, device: torch.device) -> None:
    inputs = make_inputs(case, device)
    expected = run(triton_aif, inputs, **case.options)
    with using_l2_share(1.0), record_launches() as launches:
        actual = run(triton_aif, inputs, **case.options)
    assert len(set(first_sequences(launches))) > 1
    if case.length == 4:  # 3 + 2 sequences forward; 2 + 2 + 1 backward, whose stages share more
        assert first_sequences(launches) == [0, 3, 0, 2, 4]
    sums_of_groups = ("local_squeeze_weight", "local_expand_weight")  # alone are added in another order
    for name, value in expected.items():
        assert name in sums_of_groups or torch.equal(actual[name], value), name
    exactly = exact(inputs, case)
    far = relative_errors(actual, exactly)
    assert all(far[name] <= LIMITS[case.dtype][1] for name in sums_of_groups), far


@pytest.mark.usefixtures("small_l2")
def test_groups_give_equal_bits_run_to_run(device: torch.device) -> None:
    case = Case(batch=3, length=9, embed_dim=8, kernel_size=3)
    inputs = make_inputs(case, device)
    with using_l2_share(0.5):
        first, second = (run(triton_aif, inputs, **case.options) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.usefixtures("small_l2")
def test_the_share_of_the_tiles_holds_unless_overridden(device: torch.device) -> None:
    case = Case(batch=3, length=9)
    inputs = make_inputs(case, device)
    tiles = choose_tiles(case.embed_dim, case.squeeze_dim, case.dtype)
    shared = tiles.__class__(**{**vars(tiles), "l2_share": 0.1})

    def groups() -> int:
        with record_launches() as launches:
            triton_aif(inputs.last, inputs.lower, *inputs.weights)
        return len(first_sequences(launches))

    with using_tiles(shared):
        assert groups() == 3
        with using_l2_share(0):
            assert groups() == 1


def meta_launches(batch: int, share: float) -> tuple[list[Launch], list[Launch]]:
    """Forward and backward launches at (batch, 128, 768), H = 192, bfloat16."""
    e, h = 768, 192
    shapes = weight_shapes(e, h, kernel_size=1)
    weights = AIFWeights._make(torch.empty(shape, device="meta", dtype=torch.bfloat16) for shape in shapes)
    last, lower, dz = (torch.empty(batch, 128, e, device="meta", dtype=torch.bfloat16) for _ in range(3))
    inputs, settings = Inputs(last, lower, None, None, None, weights), Settings("gate", "relu", last.dtype)
    with using_l2_share(share):
        with record_launches() as forward:
            saved = passes.forward(inputs, settings)
        with record_launches() as backward:
            passes.backward(inputs._replace(dz=dz), settings, saved)
    return forward, backward


@pytest.mark.parametrize("share", [0, 0.25, 0.5, 0.75])
def test_launches_at_the_small_size_do_not_depend_on_the_share(share: float) -> None:
    forward, backward = meta_launches(32, share)
    assert (len(forward), len(backward)) == (3, 4)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_launches_and_bytes_of_groups(share: float) -> None:
    for launches, states, squeezed, at_the_end in zip(meta_launches(256, share), (2, 3), (1, 2), (0, 1), strict=True):
        starts = [*first_sequences(launches), 256]
        assert len(launches) == 3 * (len(starts) - 1) + at_the_end
        largest = max(end - first for first, end in itertools.pairwise(starts))
        group_bytes = largest * 128 * (states * 768 + squeezed * 192) * 2
        assert 0.8 * share * l2_bytes(CPU) <= group_bytes <= share * l2_bytes(CPU)
