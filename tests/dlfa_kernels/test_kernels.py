"""The kernels' numbers, on a GPU or interpreted: z and every gradient against the definition in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from statistics import median

import pytest
import torch
from aif_cases import (
    MASKS,
    Case,
    Inputs,
    assert_equal_bits,
    assert_equal_to_rounding,
    exact,
    make_inputs,
    plain_aif,
    random_case,
    random_wide_case,
    relative_errors,
    relu_undecided,
    run,
    worst_row_errors,
)
from torch import Tensor

from benchmarks.errors import LIMITS, relative_error
from dlfa_kernels import FusedAIF, aif_reference, full_passes, fused_aif, operands, passes
from dlfa_kernels.backends import INTERPRETED
from dlfa_kernels.checks import ACTIVATIONS, MASK_DTYPES
from dlfa_kernels.device import device_architecture
from dlfa_kernels.launch_plan import LaunchPlan
from dlfa_kernels.launches import run_in_order
from dlfa_kernels.operands import max_row_stride
from dlfa_kernels.overrides import record_launches
from dlfa_kernels.parameters import AIFWeights
from dlfa_kernels.replays import Replay
from dlfa_kernels.results import empty_backward
from dlfa_kernels.settings import Settings
from dlfa_kernels.shared_stages import add_weight_grads
from dlfa_kernels.tiles import choose_tiles

pytestmark = pytest.mark.usefixtures("poisoned_memory")

triton_aif = partial(fused_aif, backend="triton")
TILE_T = choose_tiles(24, 16, torch.float32).squeeze.block_t
TILE_H = choose_tiles(24, 4096, torch.float32).squeeze.block_h
HELD_H = choose_tiles(24, 4096, torch.float32).squeeze.held_h
TILE_B = choose_tiles(24, 16, torch.float32).context.block_t
TILE_E = {dtype: choose_tiles(4096, 16, dtype).squeeze.block_e for dtype in LIMITS}
HALF = (torch.float16, torch.bfloat16)

Record = Callable[[str, object], None]


def assert_near_exact(inputs: Inputs, case: Case, record: Record | None = None) -> None:
    """Fail where z or a gradient is farther from the definition in float64 than `LIMITS` allow, or a row than twice."""
    expected = exact(inputs, case)
    actual = run(triton_aif, inputs, **case.options)
    assert actual["z"].dtype == inputs.last.dtype
    errors = relative_errors(actual, expected)
    forward_limit, gradient_limit = LIMITS[case.dtype]
    limits = {name: forward_limit if name == "z" else gradient_limit for name in errors}
    if case.activation == "relu":
        undecided = relu_undecided(inputs, case)
        limits |= {name: limits[name] + undecided[name] for name in errors if name != "z"}
    assert all(errors[name] <= limits[name] for name in errors), f"{case}: {errors} over {limits}"
    # Where relu is undecided single rows differ by more than rounding: there z alone is held to it.
    rows = {
        name: error
        for name, error in worst_row_errors(actual, expected).items()
        if name == "z" or case.activation != "relu"
    }
    assert all(rows[name] <= 2 * limits[name] for name in rows), f"{case}: worst rows {rows} over twice {limits}"
    if record is not None:
        gradient = max(value for name, value in errors.items() if name != "z")
        kind = "relu" if case.activation == "relu" else "smooth"
        record("kernel_error", [str(case.dtype).removeprefix("torch."), kind, errors["z"], gradient])


BASE = Case(length=TILE_T + 6)
SHAPES = [
    # tokens: one; fewer than the taps; around a tile; more tiles than the context kernel pools itself
    *(Case(length=1, kernel_size=k, mask="none") for k in (1, 7)),
    Case(length=2, kernel_size=7, fuse="select"),
    *(Case(batch=1, length=t, kernel_size=3, mask="none") for t in (TILE_T - 1, TILE_T, TILE_T + 1, 2 * TILE_T)),
    *(Case(batch=1, length=t, embed_dim=8, kernel_size=k) for t, k in ((4 * TILE_T, 1), (4 * TILE_T + 1, 3))),
    # channels: few, odd, around a tile
    *(Case(embed_dim=e, kernel_size=3) for e in (1, 3, 8, 13)),
    *(Case(batch=1, embed_dim=TILE_E[d] + more, dtype=d, weight_dtype=d) for d in TILE_E for more in (-1, 0, 1)),
    Case(batch=1, embed_dim=200, squeeze_dim=48, fuse="select"),
    # squeeze width: one, odd, over a tile and two, around the widest that a program holds, over twice that
    *(Case(squeeze_dim=h, fuse="select") for h in (1, 17)),
    *(Case(batch=1, squeeze_dim=h, kernel_size=3) for h in (TILE_H + 1, 2 * TILE_H + 1)),
    Case(batch=1, squeeze_dim=HELD_H + TILE_H),  # whole blocks, but not as many as a program goes through
    *(Case(batch=1, squeeze_dim=HELD_H + more, kernel_size=1 + 2 * (more > 0)) for more in (-1, 0, 1)),
    Case(batch=1, squeeze_dim=2 * HELD_H + 8, fuse="select", dtype=torch.bfloat16),
    # sequences: around the context kernel's block
    *(Case(batch=b, length=3) for b in (1, TILE_B + 1)),
]
MODES = [
    Case(kernel_size=k, fuse=fuse, lower=lower, activation=activation)
    for k, activation in zip((1, 3, 5, 7), itertools.cycle(ACTIVATIONS), strict=False)
    for fuse, lower in (("gate", True), ("gate", False), ("select", True))
]
PACKED = [
    Case(lengths=(0, 0, 5, 0, TILE_T, 1, 0), kernel_size=3),
    Case(lengths=(TILE_T - 1, TILE_T + 1, 2, 2 * TILE_T), fuse="select", kernel_size=5),
    Case(lengths=(1,), lower=False),
    Case(lengths=(5 * TILE_T + 3,), embed_dim=8),
    Case(lengths=(0, 0)),
    Case(lengths=()),
    *(Case(lengths=(0, 70, 3), dtype=dtype, weight_dtype=dtype) for dtype in HALF),
]
TOKEN = [
    *(case.but(token=token) for token in (0, 5) for case in (BASE, BASE.but(fuse="select", kernel_size=7))),
    Case(length=1, token=0, kernel_size=3),
    Case(batch=3, length=3 * TILE_T, mask="islands", token=1, lower=False, kernel_size=3),
    Case(batch=3, length=2 * TILE_T, mask="right", token=2 * TILE_T - 1, kernel_size=5),  # padding in most sequences
    Case(mask="all_empty", token=3),
    Case(batch=TILE_B + 1, length=4, squeeze_dim=HELD_H + 1, token=2),
    Case(lengths=(0, 5, TILE_T + 1, 0, 1, 2), token=0, kernel_size=3, fuse="select"),
    Case(lengths=(0, 5, TILE_T + 1, 0, 1, 2), token=1, kernel_size=5),
    Case(lengths=(2, 1, 0), token=2),  # beyond every sequence
    Case(lengths=(0, 0), token=0),
    *(BASE.but(token=0, dtype=dtype, weight_dtype=dtype, kernel_size=3) for dtype in HALF),
]
MASKED = [
    Case(batch=2, length=length, embed_dim=8, kernel_size=5, mask=mask)
    for mask in MASKS
    for length in (9, 3 * TILE_T - 2 if mask == "islands" else TILE_T + 9)
]
WIDE = [
    Case(batch=1, length=3, embed_dim=1000, squeeze_dim=16, kernel_size=3),
    Case(batch=1, length=3, embed_dim=16, squeeze_dim=1600, fuse="select"),
    Case(batch=1, length=3, embed_dim=1000, squeeze_dim=16, token=0, dtype=torch.bfloat16),
    pytest.param(Case(batch=1, length=2, embed_dim=12288, squeeze_dim=16), marks=pytest.mark.slow),
    pytest.param(Case(batch=1, length=2, embed_dim=64, squeeze_dim=3072), marks=pytest.mark.slow),
    *(
        pytest.param(Case(batch=3, length=70, embed_dim=12288, squeeze_dim=3072, **more), marks=pytest.mark.gpu)
        for more in (
            {"dtype": torch.bfloat16},
            {"fuse": "select", "dtype": torch.float16, "kernel_size": 3},
            {"token": 0},
        )
    ),
]
HALF_CASE = Case(activation="relu", dtype=torch.bfloat16, weight_dtype=torch.bfloat16)
# What is compiled differs most between these, and between tiles of 64 tokens on one warpgroup and 128 on two.
KINDS = [
    HALF_CASE.but(length=70, embed_dim=64, squeeze_dim=48),
    HALF_CASE.but(length=150, embed_dim=136, squeeze_dim=192, fuse="select", mask="right"),
    Case(lower=False, kernel_size=3, dtype=torch.float16, weight_dtype=torch.float16),
    Case(lengths=(0, 70, 3, 129), activation="silu", squeeze_dim=80, dtype=torch.bfloat16),
    HALF_CASE.but(token=1, lower=False, embed_dim=40),
    Case(lengths=(0, 5, 66), token=0, kernel_size=3, fuse="select"),
    Case(embed_dim=1, activation="relu"),
    HALF_CASE.but(embed_dim=40, squeeze_dim=48, frozen=True),
    # tiles of two sequences, of which the last one here has one
    HALF_CASE.but(batch=3, length=100, embed_dim=136, squeeze_dim=192, mask="left"),
    # squeeze programs of two slots, of which the last one here has one; with taps they have one
    HALF_CASE.but(batch=3, length=100, embed_dim=136, squeeze_dim=192, mask="none"),
    HALF_CASE.but(batch=3, length=100, embed_dim=72, squeeze_dim=192, kernel_size=3),
    HALF_CASE.but(length=70, embed_dim=72, squeeze_dim=136, fuse="select"),  # a last block of H that is no whole one
]
ENCODER = HALF_CASE.but(batch=4, length=260, embed_dim=768, squeeze_dim=192, mask="right")
ENCODERS = [
    ENCODER,
    ENCODER.but(batch=5, length=130),  # tiles of two sequences
    ENCODER.but(fuse="select", kernel_size=3, activation="gelu"),
    ENCODER.but(squeeze_dim=48, weight_dtype=torch.float32),
    ENCODER.but(dtype=torch.float16, weight_dtype=torch.float16),
    ENCODER.but(embed_dim=1024, squeeze_dim=256, lower=False),
    ENCODER.but(embed_dim=448, squeeze_dim=640, fuse="select"),  # programs hold parts of H, two launches the context
    ENCODER.but(embed_dim=320, squeeze_dim=384, kernel_size=3),
    ENCODER.but(lengths=(0, 200, 5, 300)),
    ENCODER.but(token=0),
    ENCODER.but(batch=9, length=40),  # tiles of 64 tokens
    ENCODER.but(batch=2, length=130, dtype=torch.float32, weight_dtype=torch.float32),
]
MANY_SEQUENCES = [
    Case(batch=TILE_B, length=3),
    Case(batch=2 * TILE_B + 1, length=3),
    Case(lengths=(1, 0, 2, 0) * 70, embed_dim=8),  # more than one block of `locate_tile` searches
    Case(lengths=(1, 0, 2, 0) * 70, embed_dim=8, token=0),
]
# with H of more than a program holds, sequences that the context does not pool itself, and no real token at all
FROZEN = [
    *(case.but(frozen=True) for case in MODES[:6]),
    *(HALF_CASE.but(length=150, embed_dim=136, squeeze_dim=192, frozen=True, kernel_size=k) for k in (1, 3)),
    Case(batch=1, squeeze_dim=HELD_H + 1, fuse="select", frozen=True),
    Case(batch=3, length=4 * TILE_T + 1, embed_dim=8, mask="empty", frozen=True),
    Case(mask="all_empty", frozen=True),
    Case(lengths=(0, 70, 3), dtype=torch.float16, weight_dtype=torch.float16, frozen=True),
    Case(lengths=(0, 70, 3), fuse="select", kernel_size=3, activation="silu", frozen=True),
    Case(token=1, kernel_size=3, frozen=True),
    Case(lengths=(0, 5, 66), token=0, fuse="select", dtype=torch.bfloat16, frozen=True),
]
DTYPES = [
    BASE.but(dtype=dtype, weight_dtype=weight_dtype, kernel_size=k, fuse=fuse, activation=activation)
    for dtype in HALF
    for weight_dtype, k, fuse, activation in (
        (torch.float32, 1, "gate", "gelu"), (dtype, 1, "select", "silu"), (torch.float32, 3, "select", "relu"),
        (dtype, 3, "gate", "relu"),
    )
]  # fmt: skip


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_one_of_each_kind(case: Case, device: torch.device, record_property: Record) -> None:
    assert_near_exact(make_inputs(case, device), case, record_property)


@pytest.mark.parametrize("case", [KINDS[1], KINDS[3], KINDS[4]], ids=str)
def test_one_of_each_kind_again(case: Case, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls like an earlier one, on other tensors: compiled kernels are launched without the stages."""
    replayed: list[Replay] = []
    run_replay = Replay.run
    monkeypatch.setattr(Replay, "run", lambda replay, *where: (replayed.append(replay), run_replay(replay, *where)))
    for seed in (1, 2, 3, 4):
        assert_near_exact(make_inputs(case.but(seed=seed), device), case)
    kept = not INTERPRETED and torch.version.hip is None
    assert len(replayed) >= 4 if kept else not replayed


@pytest.mark.gpu
@pytest.mark.parametrize("case", [KINDS[1], *ENCODERS], ids=str)
def test_tiles_of_large_batches(
    case: Case, device: torch.device, monkeypatch: pytest.MonkeyPatch, record_property: Record
) -> None:
    """So few tokens take smaller tiles on a GPU's many multiprocessors; with two, as a CPU has, the shipped ones."""
    monkeypatch.setattr("dlfa_kernels.tiles.multiprocessors", lambda device: 2)
    with record_launches() as launched:  # an earlier call's launches are not replayed inside
        assert_near_exact(make_inputs(case, device), case, record_property)
    if case == ENCODER:
        tile = choose_tiles(case.embed_dim, case.squeeze_dim, case.dtype, device_architecture(device)).squeeze
        (squeeze,) = (launch for launch in launched if launch.kernel.__name__ == "squeeze_kernel")
        assert [squeeze.constants[name] for name in ("BLOCK_T", "SLOTS")] == [tile.block_t, tile.slots]
        assert squeeze.num_warps == tile.num_warps


# Widths at which Hopper's tiles have 128 tokens, of batches that fill the two multiprocessors of a test.
SHARED = [
    HALF_CASE.but(batch=batch, length=length, embed_dim=40, squeeze_dim=squeeze_dim, **more)
    for batch, length, squeeze_dim, more in (
        (9, 33, 136, {"mask": "none"}),  # half of a tile of 128 would be empty
        (6, 64, 192, {"mask": "holes", "fuse": "select", "activation": "gelu"}),
        (5, 65, 136, {"mask": "right", "lower": False, "activation": "silu"}),
        (5, 128, 192, {"mask": "empty", "fuse": "select"}),
        (3, 129, 200, {"mask": "none", "dtype": torch.float16, "weight_dtype": torch.float32}),
        (3, 190, 264, {"mask": "islands", "activation": "gelu"}),
        (3, 100, 192, {"mask": "left", "frozen": True}),
        (4, 90, 136, {"mask": "all_empty"}),
        (2, 128, 136, {"mask": "right"}),  # a batch of few tokens: input_grads alone has tiles of 128
    )
]


@pytest.mark.parametrize("case", SHARED, ids=str)
def test_tiles_of_two_sequences(case: Case, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlfa_kernels.tiles.multiprocessors", lambda device: 2)
    with record_launches() as launched:
        assert_near_exact(make_inputs(case, device), case)
    if device_architecture(device) not in ("sm_90", "sm_100"):
        return  # of others fewer stages have so large tiles
    shared = {launch.kernel.__name__ for launch in launched if launch.constants.get("SEQUENCES", 1) == 2}
    assert shared == {"input_grads_kernel"} | ({"expand_kernel"} if case.batch * case.length > 256 else set())


@pytest.mark.parametrize("spoilt", [math.nan, math.inf])
def test_sequences_of_a_tile_do_not_see_each_other(
    spoilt: float, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlfa_kernels.tiles.multiprocessors", lambda device: 2)
    case = HALF_CASE.but(batch=4, length=100, embed_dim=40, squeeze_dim=136)
    inputs = make_inputs(case, device)
    expected = run(triton_aif, inputs, **case.options)
    for tensor in (inputs.last, inputs.lower, inputs.dz):
        assert tensor is not None
        tensor[1::2] = spoilt
    result = run(triton_aif, inputs, **case.options)
    for name in ("z", "last", "lower"):
        assert_equal_bits({name: result[name][::2]}, {name: expected[name][::2]})
        assert not result[name][1::2].isfinite().all()


@pytest.mark.parametrize(
    "case",
    [
        HALF_CASE.but(batch=3, length=193, mask="right"),
        HALF_CASE.but(batch=3, length=120, mask="none"),  # no tile of 128 would be half empty
        HALF_CASE.but(batch=4, length=100, kernel_size=3),
        HALF_CASE.but(lengths=(40, 90, 128, 2)),
        HALF_CASE.but(batch=4, length=100, token=0),
    ],
    ids=str,
)
def test_tiles_of_one_sequence(case: Case, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlfa_kernels.tiles.multiprocessors", lambda device: 2)
    case = case.but(embed_dim=40, squeeze_dim=136)
    with record_launches() as launched:
        assert_near_exact(make_inputs(case, device), case)
    assert {launch.constants.get("SEQUENCES", 1) for launch in launched} == {1}


def test_tiles_of_two_sequences_far_apart() -> None:
    """Rows are 32 bits from a tile's first one: a second sequence further away has tiles of its own."""
    inputs = make_inputs(HALF_CASE.but(length=60, embed_dim=40, squeeze_dim=136))
    settings = Settings("gate", "relu", torch.bfloat16)
    for batch_stride, sequences in ((60 * 40, 2), ((1 << 31) - 128 * 40, 1)):
        last = torch.empty_strided((2, 60, 40), (batch_stride, 40, 1), dtype=torch.bfloat16, device="meta")
        weights = AIFWeights._make(weight.to("meta") for weight in inputs.weights)
        with record_launches("sm_90") as launched:
            given = operands.Inputs(last, last, None, None, None, weights)
            passes.backward(given._replace(dz=last), settings, passes.forward(given, settings))
        (constants,) = (item.constants for item in launched if item.kernel.__name__ == "input_grads_kernel")
        assert constants["SEQUENCES"] == sequences


@pytest.mark.parametrize("case", [*SHAPES, *MODES, *PACKED, *TOKEN, *MASKED, *DTYPES], ids=str)
def test_near_the_definition(case: Case, device: torch.device, record_property: Record) -> None:
    assert_near_exact(make_inputs(case, device), case, record_property)


@pytest.mark.parametrize("token", [None, 0])
def test_select_keeps_a_state_that_is_small_beside_the_other(token: int | None, device: torch.device) -> None:
    """An open gate selects x; y + m (x - y) would leave of it what a float32 of y's size can hold."""
    aif = FusedAIF(24, fuse="select", backend="triton", device=device)
    with torch.no_grad():
        for parameter in aif.parameters():
            parameter.zero_()
        aif.global_expand.bias.fill_(30.0)
        last, lower = torch.full((1, 2, 24), 0.1, device=device), torch.full((1, 2, 24), -3000.7, device=device)
        z = aif(last, lower, token=token)
    torch.testing.assert_close(z, torch.full_like(z, 0.1), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("token", [None, 0])
def test_gate_keeps_a_sum_that_is_small_beside_its_terms(token: int | None, device: torch.device) -> None:
    last = 3000 + torch.randn(4, 2, 24, generator=torch.Generator().manual_seed(0))
    lower = 0.1 * torch.randn(4, 2, 24, generator=torch.Generator().manual_seed(1)) - last
    aif = FusedAIF(24, backend="triton", device=device)
    with torch.no_grad():
        z = aif(last.to(device), lower.to(device), token=token)
        weights = [weight.double().cpu() for weight in aif.weights]
        expected = aif_reference(last.double(), lower.double(), *weights, token=token)
    assert relative_error(z.cpu(), expected) <= 1e-6


@pytest.mark.parametrize("case", FROZEN, ids=str)
def test_frozen_states(case: Case, device: torch.device, record_property: Record) -> None:
    inputs = make_inputs(case, device)
    assert_near_exact(inputs, case, record_property)
    every = run(triton_aif, inputs, **case.but(frozen=False).options)
    assert_equal_to_rounding(every, run(triton_aif, inputs, **case.options))


@pytest.mark.parametrize(
    "case",
    [
        BASE.but(batch=1, kernel_size=3, fuse="select"),
        Case(batch=1, squeeze_dim=TILE_H + 1, embed_dim=72, dtype=torch.bfloat16),
        Case(batch=1, squeeze_dim=TILE_H + 1, embed_dim=72, dtype=torch.bfloat16, frozen=True),
        Case(token=1),
    ],
    ids=str,
)
def test_tiles_of_older_architectures(case: Case, device: torch.device) -> None:
    assert choose_tiles(24, 16, torch.float32, "sm_80") != choose_tiles(24, 16, torch.float32)
    with record_launches("sm_80"):
        assert_near_exact(make_inputs(case, device), case)


@pytest.mark.parametrize(("token", "expected"), [(None, (3, 4, 4)), (0, (3, 6, 4))])
def test_number_of_launches_at_the_small_size(token: int | None, expected: tuple[int, int, int]) -> None:
    def meta(*shape: int) -> Tensor:
        return torch.empty(shape, device="meta", dtype=torch.bfloat16)

    weights = make_inputs(Case(batch=1, length=1, embed_dim=768, squeeze_dim=192, mask="none")).weights
    weights = weights._make(weight.to("meta") for weight in weights)
    mask = torch.ones(32, 128, device="meta").bool()
    inputs = operands.Inputs(meta(32, 128, 768), meta(32, 128, 768), None, mask, None, weights)
    settings = Settings("gate", "relu", torch.bfloat16, token)
    with record_launches() as forward:
        saved = passes.forward(inputs, settings)
    inputs = inputs._replace(dz=torch.empty_like(saved.z))
    with record_launches() as backward:
        passes.backward(inputs, settings, saved)
    with record_launches() as frozen:
        passes.backward(inputs, settings._replace(needs_dx=False), saved)
    assert (len(forward), len(backward), len(frozen)) == expected


@pytest.mark.parametrize(
    "case",
    [
        Case(batch=19, squeeze_dim=80),
        Case(batch=2, length=400, embed_dim=136, dtype=torch.bfloat16),  # pooled by a launch of its own
        Case(lengths=(0, 70, 3), fuse="select"),
        HALF_CASE.but(token=1),
        Case(frozen=True, squeeze_dim=80),
    ],
    ids=str,
)
def test_the_context_of_large_weights_takes_a_launch_for_each_product(
    case: Case, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, results, counts = make_inputs(case, device), [], []
    for limit in (case.embed_dim * case.squeeze_dim, case.embed_dim * case.squeeze_dim - 1):
        monkeypatch.setattr("dlfa_kernels.shared_stages.WEIGHTS_OF_ONE_LAUNCH", limit)
        with record_launches() as launches:  # nothing is replayed inside
            results.append(run(triton_aif, inputs, **case.options))
        counts.append(sum(launch.kernel.__name__ == "context_kernel" for launch in launches))
    assert counts == [2, 3 if case.frozen else 4]  # of frozen states' backward the first product alone is needed
    assert_equal_to_rounding(results[1], results[0])


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_more_parts_than_are_read_at_once_are_all_added_up(kernel_size: int, device: torch.device) -> None:
    """So many sequences, tiles and programs make the parts of a large batch, of which this is the last launch alone."""
    if device.type == "cpu" and not INTERPRETED:
        pytest.skip("compiled code is executed for the launches of passes alone")
    batch, splits, bias_rows = 2 * choose_tiles(24, 16, torch.float32).weight_grads.block_t + 1, 9, 130
    case = Case(batch=batch, length=1, mask="none", kernel_size=kernel_size)
    made, settings = make_inputs(case, device), Settings(case.fuse, case.activation, case.dtype)
    inputs = operands.Inputs(made.last, made.lower, made.dz, None, None, made.weights)
    plan = LaunchPlan(inputs, operands.Operands.of(inputs, case.dtype), settings)
    result = empty_backward(inputs, settings)
    saved = full_passes.empty_forward(inputs, settings)
    pooled, hidden, context_gradient, hidden_gradient = (
        torch.randn(batch, width, device=device) for width in (24, 16, 24, 16)
    )
    saved = saved._replace(pooled=pooled, hidden=hidden)
    expand_parts = torch.randn(splits, 16, 24, device=device)
    squeeze_parts = torch.randn(splits, kernel_size, 16, 24, device=device)
    bias_parts = torch.randn(bias_rows, 16, device=device)
    add_weight_grads(plan, saved, expand_parts, squeeze_parts, bias_parts, context_gradient, hidden_gradient, result)
    run_in_order(plan.launches, device)
    bias = context_gradient.sum(0)
    expected = AIFWeights(
        local_squeeze_weight=squeeze_parts.sum(0).permute(1, 2, 0),
        local_squeeze_bias=bias_parts.sum(0),
        local_expand_weight=expand_parts.sum(0).T[..., None],
        local_expand_bias=bias,
        global_squeeze_weight=hidden_gradient.T @ pooled,
        global_squeeze_bias=hidden_gradient.sum(0),
        global_expand_weight=context_gradient.T @ torch.nn.functional.gelu(hidden),
        global_expand_bias=bias,
    )
    for actual, wanted in zip(result.weights, expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_the_global_branch_keeps_16_bits_of_its_rows(dtype: torch.dtype, device: torch.device) -> None:
    """Its float32 rows are multiplied as sums of two bfloat16 numbers; one alone would keep 8 bits."""
    case = Case(batch=3, dtype=dtype, weight_dtype=dtype)
    made = make_inputs(case, device)
    inputs = operands.Inputs(made.last, made.lower, None, made.mask, None, made.weights)
    saved = passes.forward(inputs, Settings(case.fuse, case.activation, dtype))
    weights = made.double().weights
    hidden = saved.pooled.double() @ weights.global_squeeze_weight.T + weights.global_squeeze_bias
    context = torch.nn.functional.gelu(saved.hidden.double()) @ weights.global_expand_weight.T
    context += weights.global_expand_bias + weights.local_expand_bias
    assert relative_error(saved.hidden, hidden) < 2**-16
    assert relative_error(saved.context, context) < 2**-16


@pytest.mark.slow
@pytest.mark.parametrize("case", WIDE, ids=str)
def test_the_widest(case: Case, device: torch.device, record_property: Record) -> None:
    assert_near_exact(make_inputs(case, device), case, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("case", ENCODERS, ids=str)
def test_widths_of_encoders(case: Case, device: torch.device, record_property: Record) -> None:
    assert_near_exact(make_inputs(case, device), case, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("case", MANY_SEQUENCES, ids=["one block", "three blocks", "packed", "packed token"])
def test_many_sequences(case: Case, device: torch.device, record_property: Record) -> None:
    assert_near_exact(make_inputs(case, device), case, record_property)


@pytest.mark.parametrize("seed", [pytest.param(n, marks=[pytest.mark.slow] if n >= 20 else []) for n in range(160)])
def test_random_configuration(seed: int, device: torch.device, record_property: Record) -> None:
    case = random_case(seed)
    assert_near_exact(make_inputs(case, device), case, record_property)


@pytest.mark.parametrize("seed", [pytest.param(n, marks=[pytest.mark.slow] if n >= 4 else []) for n in range(70)])
def test_random_wide_configuration(seed: int, device: torch.device) -> None:
    case = random_wide_case(seed)
    assert_near_exact(make_inputs(case, device), case)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("cases", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_relu_is_no_worse_than_eager_in_the_median(
    cases: int, dtype: torch.dtype, device: torch.device, record_property: Record
) -> None:
    """In one case, which of the two flips a mask is luck; over many, the one that rounds more flips more.

    The median, for of the global branch's few masks one flips in a dozen cases, which then is all of a sum.
    """
    ours: dict[str, list[float]] = {}
    eager: dict[str, list[float]] = {}
    for seed in range(cases):
        case = Case(
            batch=1, length=64, embed_dim=40, kernel_size=1 + 2 * (seed % 2), activation="relu", dtype=dtype, seed=seed
        )
        inputs = make_inputs(case, device)
        expected = exact(inputs, case)
        for errors, implementation in ((ours, triton_aif), (eager, plain_aif)):
            for name, error in relative_errors(run(implementation, inputs, **case.options), expected).items():
                errors.setdefault(name, []).append(error)
    middle, eager_middle = ({name: median(values) for name, values in errors.items()} for errors in (ours, eager))
    assert all(middle[name] <= eager_middle[name] for name in middle), f"{middle} over {eager_middle}"
    record_property(
        "relu_error", [str(dtype).removeprefix("torch."), sum(middle.values()) / sum(eager_middle.values())]
    )


def _row_offset(states: Tensor) -> Tensor:
    return torch.cat([states[:, :1] * math.nan, states], dim=1)[:, 1:]


def _transposed(states: Tensor) -> Tensor:
    return states.transpose(0, 1).contiguous().transpose(0, 1)


def _channel_slice(states: Tensor) -> Tensor:
    return torch.stack([states, states * math.nan], dim=-1)[..., 0]


def _wide_rows(states: Tensor) -> Tensor:
    return torch.cat([states, states[..., :3] * math.nan], dim=-1)[..., : states.shape[-1]]


def _channels_first(states: Tensor) -> Tensor:
    return states.transpose(1, 2).contiguous().transpose(1, 2)


def _misaligned(states: Tensor) -> Tensor:
    return torch.cat([states.new_full((1,), math.nan), states.flatten()])[1:].view(states.shape)


LAYOUTS = [_row_offset, _transposed, _channel_slice, _wide_rows, _channels_first, _misaligned]


@pytest.mark.parametrize("first", range(len(LAYOUTS)), ids=[layout.__name__.strip("_") for layout in LAYOUTS])
@pytest.mark.parametrize("token", [None, 2])
def test_strides(first: int, token: int | None, device: torch.device) -> None:
    case = Case(batch=2, length=5, embed_dim=16, fuse="select", kernel_size=3, token=token)
    inputs = make_inputs(case, device)
    expected = run(triton_aif, inputs, **case.options)
    for which, name in enumerate(("last", "lower", "dz")):
        states = getattr(inputs, name)
        setattr(inputs, name, LAYOUTS[(first + which) % len(LAYOUTS)](states))
        assert torch.equal(getattr(inputs, name), states)
    assert_equal_to_rounding(run(triton_aif, inputs, **case.options), expected)


@pytest.mark.parametrize("token", [None, 1])
def test_packed_strides(token: int | None, device: torch.device) -> None:
    case = Case(lengths=(3, 0, 5), kernel_size=3, token=token)
    inputs = make_inputs(case, device)
    expected = run(triton_aif, inputs, **case.options)
    inputs.last, inputs.lower, inputs.dz = _wide_rows(inputs.last), _channel_slice(inputs.lower), inputs.dz.T.clone().T
    inputs.cu_seqlens = torch.stack([inputs.cu_seqlens, inputs.cu_seqlens * 0 - 7], dim=-1)[..., 0]
    assert not inputs.cu_seqlens.is_contiguous()
    assert_equal_to_rounding(run(triton_aif, inputs, **case.options), expected)


@pytest.mark.parametrize("token", [None, 0])
def test_gradient_of_a_sum_or_mean(token: int | None, device: torch.device) -> None:
    case = Case(fuse="select", kernel_size=3, token=token)
    inputs = make_inputs(case, device)
    one = torch.ones((), dtype=case.dtype, device=device)  # as sum().backward() hands it over: expanded, stride 0
    inputs.dz, inputs.dz_token = one.expand_as(inputs.dz), one.expand_as(inputs.dz_token)
    assert_near_exact(inputs, case)


def test_expanded_states(device: torch.device) -> None:
    inputs = make_inputs(Case(batch=3, length=5), device)
    inputs.last = inputs.last[:1].expand(3, -1, -1)
    inputs.lower = inputs.lower[:, :1].expand(-1, 5, -1)
    assert_near_exact(inputs, Case(batch=3, length=5))


def test_strided_weights_and_mask(device: torch.device) -> None:
    case = Case(batch=2, length=5, kernel_size=3)
    inputs = make_inputs(case, device)
    expected = run(triton_aif, inputs, **case.options)
    inputs.weights = inputs.weights._make(
        torch.stack([weight, weight * math.nan], dim=-1)[..., 0].to(device) for weight in inputs.weights
    )
    inputs.mask = inputs.mask.T.contiguous().T
    assert_equal_bits(run(triton_aif, inputs, **case.options), expected)


@pytest.mark.parametrize("token", [None, 1])
def test_integer_masks(token: int | None, device: torch.device) -> None:
    case = Case(batch=2, length=5, embed_dim=8, kernel_size=3, mask="empty", token=token)
    inputs = make_inputs(case, device)
    expected = run(triton_aif, inputs, **case.options)
    for dtype in MASK_DTYPES[1:]:
        inputs.mask = inputs.mask.to(dtype)
        assert_equal_to_rounding(run(triton_aif, inputs, **case.options), expected)


@pytest.mark.parametrize("token", [None, 1])
@pytest.mark.parametrize(("fuse", "kernel_size"), [("gate", 1), ("select", 5)])
def test_what_padding_holds_never_matters(fuse: str, kernel_size: int, token: int | None, device: torch.device) -> None:
    case = Case(batch=2, length=9, mask="empty", fuse=fuse, kernel_size=kernel_size, token=token)
    inputs = make_inputs(case, device)
    expected = run(triton_aif, inputs, **case.options)
    for states in (inputs.last, inputs.lower, inputs.dz):
        states[~inputs.mask] = math.nan
    if token is not None:
        inputs.dz_token[~inputs.mask[:, token]] = math.nan  # of a token that is not there
    actual = run(triton_aif, inputs, **case.options)
    assert_equal_bits(actual, expected)
    for name in ("last", "lower", *(["z"] if token is None else [])):
        assert actual[name][~inputs.mask].eq(0).all(), name


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_saved_of_padding_is_zero(activation: str, device: torch.device) -> None:
    case = Case(batch=3, length=TILE_T + 6, embed_dim=8, mask="empty", activation=activation)
    made = make_inputs(case, device)
    inputs = operands.Inputs(made.last, made.lower, None, made.mask, None, made.weights)
    saved = passes.forward(inputs, Settings(case.fuse, activation, case.dtype))
    rows = saved.squeezed.view(case.batch, case.length, case.squeeze_dim)
    assert rows[~made.mask].eq(0).all()
    assert rows[made.mask].ne(0).any()


@pytest.mark.parametrize("token", [None, 1])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_of_a_real_token_reaches_all_that_it_does_in_the_definition(
    activation: str, token: int | None, device: torch.device
) -> None:
    case = Case(length=5, mask="none", activation=activation, token=token)
    inputs = make_inputs(case, device)
    inputs.last[0, 3, 0] = math.nan
    actual, expected = run(triton_aif, inputs, **case.options), exact(inputs, case)
    assert expected["z"][0].isnan().all()
    assert torch.equal(actual["z"].isnan(), expected["z"].isnan())
    for name, value in expected.items():  # a product with a slope of 0 is NaN here and may be 0 there
        assert actual[name][value.isnan()].isnan().all(), name


@pytest.mark.parametrize("token", [None, 0])
def test_sequences_do_not_see_each_other(token: int | None, device: torch.device) -> None:
    case = Case(lengths=(3, 4), kernel_size=5, fuse="select", token=token)
    inputs = make_inputs(case, device)
    expected = run(triton_aif, inputs, **case.options)
    inputs.last[:3], inputs.lower[:3] = math.nan, math.inf
    actual = run(triton_aif, inputs, **case.options)
    for name in ("z", "last", "lower"):
        rows = slice(1, 2) if name == "z" and token is not None else slice(3, 7)
        assert torch.equal(actual[name][rows], expected[name][rows]), name


@pytest.mark.parametrize(
    "case",
    [BASE.but(batch=1, kernel_size=3), Case(dtype=torch.bfloat16), Case(lengths=(3, 0, 70)), Case(token=1)],
    ids=str,
)
def test_two_runs_give_equal_bits(case: Case, device: torch.device) -> None:
    inputs = make_inputs(case, device)
    assert_equal_bits(run(triton_aif, inputs, **case.options), run(triton_aif, inputs, **case.options))


@pytest.mark.parametrize("token", [None, 0])
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)], ids=str)
def test_no_rows_at_all(shape: tuple[int, int], token: int | None, device: torch.device) -> None:
    if token is not None and shape[1] == 0:
        pytest.skip("no token 0 in a sequence of length 0")
    case = Case(batch=shape[0], length=shape[1], mask="none", token=token)
    results = run(triton_aif, make_inputs(case, device), **case.options)
    assert results["z"].shape == (*(shape if token is None else shape[:1]), case.embed_dim)
    for name, value in results.items():
        assert value.eq(0).all(), name


@pytest.mark.parametrize("token", [None, 1])
@pytest.mark.parametrize("fuse", ["gate", "select"])
def test_one_tensor_as_both_inputs(fuse: str, token: int | None, device: torch.device) -> None:
    case = Case(batch=2, length=4, kernel_size=3, fuse=fuse, token=token)
    inputs = make_inputs(case, device)
    inputs.lower = inputs.last
    expected = exact(inputs, case)
    last = inputs.last.clone().requires_grad_()
    z = triton_aif(last, last, *inputs.weights, inputs.mask, **case.options)
    (gradient,) = torch.autograd.grad(z, last, inputs.dz if token is None else inputs.dz_token)
    torch.testing.assert_close(gradient.double(), expected["last"] + expected["lower"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("token", [None, 1])
def test_the_two_inputs_own_their_gradients(token: int | None, device: torch.device) -> None:
    case = Case(batch=2, length=4, token=token)
    inputs = make_inputs(case, device)
    last, lower = inputs.last.requires_grad_(), inputs.lower.requires_grad_()
    triton_aif(last, lower, *inputs.weights, inputs.mask, **case.options).sum().backward()
    kept = lower.grad.clone()
    last.grad.zero_()
    assert torch.equal(lower.grad, kept)


@pytest.mark.parametrize(
    ("case", "strides"),
    [
        (Case(batch=2, length=17), (1 << 31, 16, 1)),
        (Case(batch=1, length=258, mask="none"), (1 << 31, max_row_stride(3), 1)),
        (Case(lengths=(129, 129)), (max_row_stride(3), 1)),
        (Case(batch=2, length=17, token=3), (1 << 31, 16, 1)),
        (Case(lengths=(129, 129), token=128), (max_row_stride(3), 1)),
    ],
    ids=["sequences", "rows", "packed rows", "token", "packed token"],
)
def test_offsets_beyond_32_bits(case: Case, strides: tuple[int, ...], device: torch.device) -> None:
    case = case.but(embed_dim=16, kernel_size=3, fuse="select", dtype=torch.float16)
    inputs = make_inputs(case, device)
    places = {"x": "last", "y": "lower"} | ({"dz": "dz"} if case.token is None else {})
    apart = 1 << 12  # more than a sequence whose rows lie close, less than what lies between rows that are far apart
    torch.use_deterministic_algorithms(False)  # the allocation, of which a few pages are touched, is not to be filled
    memory = torch.empty(
        sum((size - 1) * stride for size, stride in zip(inputs.last.shape, strides, strict=True)) + len(places) * apart,
        dtype=case.dtype,
        device=device,
    )
    assert memory.numel() > 1 << 31
    for index, name in enumerate(places.values()):
        states = getattr(inputs, name)
        setattr(inputs, name, memory.as_strided(states.shape, strides, index * apart).copy_(states))
    with record_launches() as launched:
        assert_near_exact(inputs, case)
    for name in places:  # not copies of them
        arguments = [launch.arguments for launch in launched if f"{name}_ptr" in launch.arguments]
        assert arguments
        for axis, stride in zip(("row", "batch"), reversed(strides[:-1]), strict=False):
            assert {given[f"{name}_{axis}_stride"] for given in arguments} == {stride}


def assert_last_sequence_as_alone(batch: int, device: torch.device) -> None:
    """The last of `batch` equal sequences, the farthest in memory, is fused as one sequence alone is."""
    case = Case(batch=1, length=128, embed_dim=768, squeeze_dim=48, mask="none", dtype=torch.bfloat16, lower=False)
    inputs = make_inputs(case, device)
    alone = run(triton_aif, inputs, **case.options)
    last = inputs.last.repeat(batch, 1, 1).requires_grad_()
    z = triton_aif(last, None, *inputs.weights, **case.options)
    (gradient,) = torch.autograd.grad(z, last, inputs.dz.expand_as(z))
    assert torch.equal(z[-1], alone["z"][0])
    assert torch.equal(gradient[-1], alone["last"][0])


@pytest.mark.slow
def test_the_last_sequence_is_fused_as_alone(device: torch.device) -> None:
    assert_last_sequence_as_alone(2, device)


@pytest.mark.gpu
@pytest.mark.slow
def test_more_than_2_to_the_31_elements(device: torch.device) -> None:
    torch.use_deterministic_algorithms(False)  # filling tensors of this size first takes as long as the kernels
    if torch.cuda.mem_get_info(device)[0] < 40 * 2**30:
        pytest.skip("needs 40 GiB of free GPU memory")
    batch = 2**31 // (128 * 768) + 2
    assert_last_sequence_as_alone(batch, device)
