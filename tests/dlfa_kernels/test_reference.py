"""The definition itself: against torch's own layers, one sequence at a time, and against values worked out by hand."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
import torch
from aif_cases import AIFBySequence, Case, exact, make_inputs, plain_aif, relative_errors, run, state_names
from torch import Tensor

from dlfa_kernels import FusedAIF, aif_reference
from dlfa_kernels.checks import ACTIVATIONS, MASK_DTYPES

PADDED = Case(batch=4, length=7, embed_dim=12, squeeze_dim=5, mask="empty")
PACKED = Case(lengths=(0, 3, 1, 0, 6, 0), embed_dim=12, squeeze_dim=5)


def modes(case: Case) -> list[Case]:
    """`case` in every fuse mode that it can have, with one and two inputs."""
    return [case.but(fuse=fuse, lower=lower) for fuse, lower in (("gate", True), ("gate", False), ("select", True))]


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor], limit: float = 1e-13) -> None:
    errors = relative_errors(actual, expected)
    assert max(errors.values()) <= limit, errors


@pytest.mark.parametrize("token", [None, 0, 2, 5])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("form", [PADDED, PACKED], ids=["padded", "packed"])
def test_definition_equals_torch_layers(form: Case, kernel_size: int, token: int | None) -> None:
    for case, activation in itertools.product(modes(form), ACTIVATIONS):
        case = case.but(kernel_size=kernel_size, activation=activation, token=token)
        inputs = make_inputs(case).double()
        assert_same(run(aif_reference, inputs, **case.options), run(plain_aif, inputs, **case.options))


def test_state_dict_is_that_of_torch_layers() -> None:
    aif = FusedAIF(12, squeeze_dim=5, kernel_size=3, dtype=torch.float64)
    plain = AIFBySequence(12, 5, 3, "gate", "relu").double()
    assert list(plain.state_dict()) == list(aif.state_dict()) == state_names()
    plain.load_state_dict(aif.state_dict())
    last = torch.randn(2, 6, 12, dtype=torch.float64)
    torch.testing.assert_close(aif(last), plain(last, None, None, None, None), rtol=1e-13, atol=1e-13)


def test_values_worked_out_by_hand() -> None:
    # E = H = 1. Sequence of two real tokens: w = 1, 3, so p = 2, g = 2 * 2 + 1 = 5, l = 3 * relu(w) - 1 = 2, 8.
    last, lower = torch.tensor([[[4.0], [1.0], [99.0]]]), torch.tensor([[[-3.0], [2.0], [99.0]]])
    weights = [torch.tensor(v) for v in ([[[1.0]]], [0.0], [[[3.0]]], [-1.0], [[1.0]], [0.0], [[2.0]], [1.0])]
    mask = torch.tensor([[1, 1, 0]])
    first, second = (1 / (1 + math.exp(-s)) for s in (5 + 2, 5 + 8))
    z = aif_reference(last, lower, *weights, mask)
    torch.testing.assert_close(z, torch.tensor([[[first * 1], [second * 3], [0.0]]]))
    z = aif_reference(last, lower, *weights, mask, fuse="select")
    expected = [[first * 4 + (1 - first) * -3], [second * 1 + (1 - second) * 2], [0.0]]
    torch.testing.assert_close(z, torch.tensor([expected]))


@pytest.mark.parametrize("token", [None, 1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", [PADDED, PADDED.but(mask="none"), PACKED], ids=["padded", "no mask", "packed"])
def test_gradients_add_up_in_leaves_of_their_own(form: Case, dtype: torch.dtype, token: int | None) -> None:
    """dx = dy in gate mode; in one memory, what is added to one, or clipped, would be in the other as well."""
    inputs = make_inputs(form.but(token=token, dtype=dtype)).double()
    weights = [weight.to(dtype) for weight in inputs.weights]
    last, lower = (states.to(dtype).requires_grad_() for states in (inputs.last, inputs.lower))
    for times in (1, 2):
        aif_reference(last, lower, *weights, inputs.mask, cu_seqlens=inputs.cu_seqlens, token=token).sum().backward()
        if times == 1:
            once = last.grad.clone()
    assert last.grad.untyped_storage().data_ptr() != lower.grad.untyped_storage().data_ptr()
    torch.testing.assert_close(last.grad, 2 * once)
    torch.testing.assert_close(lower.grad, 2 * once)


def test_zero_weights_halve_or_average() -> None:
    inputs = make_inputs(PADDED).double()
    zeros = [torch.zeros_like(weight) for weight in inputs.weights]
    real = inputs.mask[..., None]
    z = aif_reference(inputs.last, inputs.lower, *zeros, inputs.mask, fuse="gate")
    torch.testing.assert_close(z, (inputs.last + inputs.lower) / 2 * real)
    assert torch.equal(z, aif_reference(inputs.last, inputs.lower, *zeros, inputs.mask, fuse="select"))


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_padded_and_packed_are_one_meaning(kernel_size: int) -> None:
    case = Case(lengths=(3, 0, 7, 1), kernel_size=kernel_size)
    inputs = make_inputs(case).double()
    z = aif_reference(inputs.last, inputs.lower, *inputs.weights, cu_seqlens=inputs.cu_seqlens)
    mask = torch.arange(7) < torch.tensor(case.lengths)[:, None]
    last, lower = (torch.full((4, 7, case.embed_dim), 9.0, dtype=torch.float64) for _ in range(2))
    last[mask], lower[mask] = inputs.last, inputs.lower
    torch.testing.assert_close(aif_reference(last, lower, *inputs.weights, mask)[mask], z, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("case", modes(Case(batch=3, length=5, embed_dim=6, squeeze_dim=4, mask="empty")), ids=str)
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_token_is_a_row_of_the_whole(case: Case, kernel_size: int) -> None:
    case = case.but(kernel_size=kernel_size)
    inputs = make_inputs(case).double()
    arguments = (inputs.last, inputs.lower, *inputs.weights, inputs.mask)
    whole = aif_reference(*arguments, **case.options)
    for token in range(case.length):
        row = aif_reference(*arguments, **case.options, token=token)
        torch.testing.assert_close(row, whole[:, token], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("token", [None, 1])
@pytest.mark.parametrize("kernel_size", [1, 5])
@pytest.mark.parametrize("hole", [math.nan, math.inf, -1e30])
def test_what_padding_holds_never_matters(hole: float, kernel_size: int, token: int | None) -> None:
    for case in modes(PADDED.but(kernel_size=kernel_size, token=token)):
        inputs = make_inputs(case).double()
        expected = run(aif_reference, inputs, **case.options)
        for states in (inputs.last, inputs.lower, inputs.dz):
            if states is not None:
                states[~inputs.mask] = hole
        actual = run(aif_reference, inputs, **case.options)
        for name, value in expected.items():
            assert torch.equal(actual[name], value), name
        assert actual["last"][~inputs.mask].eq(0).all()


@pytest.mark.parametrize("token", [None, 0])
@pytest.mark.parametrize("form", ["padded", "packed"])
def test_sequences_do_not_see_each_other(form: str, token: int | None) -> None:
    case = Case(lengths=(3, 3)) if form == "packed" else Case(batch=2, length=3, mask="none")
    case = case.but(kernel_size=5, fuse="select", token=token)
    inputs = make_inputs(case).double()
    expected = run(aif_reference, inputs, **case.options)
    first = slice(0, 3) if form == "packed" else 0
    inputs.last[first], inputs.lower[first] = math.nan, math.inf
    actual = run(aif_reference, inputs, **case.options)
    second = {"z": slice(3, 6) if form == "packed" and token is None else 1}
    second |= {name: slice(3, 6) if form == "packed" else 1 for name in ("last", "lower")}
    for name, rows in second.items():
        assert torch.equal(actual[name][rows], expected[name][rows]), name


@pytest.mark.parametrize("dtype", MASK_DTYPES[1:])
def test_integer_mask_is_the_bool_mask(dtype: torch.dtype) -> None:
    inputs = make_inputs(PADDED)
    arguments = (inputs.last, inputs.lower, *inputs.weights)
    assert torch.equal(aif_reference(*arguments, inputs.mask.to(dtype)), aif_reference(*arguments, inputs.mask))


@pytest.mark.parametrize("form", ["padded", "packed"])
@pytest.mark.parametrize("token", [None, 0])
def test_nothing_real_gives_zeros(form: str, token: int | None) -> None:
    case = (Case(lengths=(0, 0, 0)) if form == "packed" else Case(mask="all_empty")).but(token=token)
    results = run(aif_reference, make_inputs(case).double(), **case.options)
    for name, value in results.items():
        assert value.eq(0).all(), name
    assert results["z"].shape[0] == {"packed": 0, "padded": 2}[form] or token == 0


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)], ids=str)
def test_no_rows_at_all(shape: tuple[int, int]) -> None:
    case = Case(batch=shape[0], length=shape[1], mask="none")
    results = run(aif_reference, make_inputs(case).double(), **case.options)
    assert results["z"].shape == (*shape, case.embed_dim)
    assert all(value.eq(0).all() for value in results.values())


def test_a_token_of_no_rows_gives_every_parameter_a_gradient() -> None:
    aif = FusedAIF(24, backend="eager")
    aif(torch.empty(0, 24), cu_seqlens=torch.zeros(3, dtype=torch.int32), token=0).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.eq(0).all() for parameter in aif.parameters())


@pytest.mark.parametrize("embed_dim", [1, 3, 13])
@pytest.mark.parametrize("squeeze_dim", [1, 7])
def test_one_token_of_odd_width(embed_dim: int, squeeze_dim: int) -> None:
    case = Case(batch=3, length=1, embed_dim=embed_dim, squeeze_dim=squeeze_dim, kernel_size=3, mask="none")
    inputs = make_inputs(case).double()
    assert_same(run(aif_reference, inputs, **case.options), run(plain_aif, inputs, **case.options))


@pytest.mark.parametrize("token", [None, 1])
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("form", ["padded", "packed"])
def test_gradcheck_and_gradgradcheck(form: str, kernel_size: int, token: int | None) -> None:
    small: dict[str, Any] = {"embed_dim": 3, "squeeze_dim": 2, "kernel_size": kernel_size, "fuse": "select"}
    case = (Case(lengths=(2, 0, 3)) if form == "packed" else Case(batch=2, length=3)).but(**small)
    inputs = make_inputs(case).double()
    leaves = [t.requires_grad_() for t in (inputs.last, inputs.lower, *inputs.weights)]

    def fused(*tensors: Tensor) -> Tensor:
        return aif_reference(*tensors, inputs.mask, cu_seqlens=inputs.cu_seqlens, token=token, **case.options)

    assert torch.autograd.gradcheck(fused, leaves, fast_mode=True, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(fused, leaves, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weight_dtype", ["float32", "states"])
def test_half_precision_is_float32_rounded_once(dtype: torch.dtype, weight_dtype: str) -> None:
    case = Case(dtype=dtype, weight_dtype=torch.float32 if weight_dtype == "float32" else dtype)
    inputs = make_inputs(case)
    z = aif_reference(inputs.last, inputs.lower, *inputs.weights, inputs.mask)
    weights = [weight.float() for weight in inputs.weights]
    wide = aif_reference(inputs.last.float(), inputs.lower.float(), *weights, inputs.mask)
    assert z.dtype == dtype
    assert torch.equal(z, wide.to(dtype))


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_leaves_accumulation_in_float32(dtype: torch.dtype, device: torch.device) -> None:
    inputs = make_inputs(Case(dtype=dtype), device)
    leaves = [tensor.requires_grad_() for tensor in (inputs.last, inputs.lower, *inputs.weights)]
    plain = aif_reference(*leaves, inputs.mask)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        under_autocast = aif_reference(*leaves, inputs.mask)
    assert under_autocast.dtype == dtype
    assert torch.equal(under_autocast, plain)
    for actual, expected in zip(
        torch.autograd.grad(under_autocast, leaves, inputs.dz),
        torch.autograd.grad(plain, leaves, inputs.dz),
        strict=True,
    ):
        assert torch.equal(actual, expected)


def test_float32_is_close_to_float64() -> None:
    case = Case(batch=3, length=40, embed_dim=64, kernel_size=3)
    inputs = make_inputs(case)
    errors = relative_errors(run(aif_reference, inputs, **case.options), exact(inputs, case))
    assert max(errors.values()) < 1e-6, errors


@pytest.mark.parametrize(("starts", "limit"), [(None, 1e-6), ((0, 7, 7, 16384), 5e-6)])
def test_rounding_errors_do_not_grow_with_the_length(starts: tuple[int, ...] | None, limit: float) -> None:
    aif = FusedAIF(16)
    for parameter in aif.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    states = (torch.randn(16) + 0.1).expand(16384, 16)  # equal numbers: their rounding errors have one sign
    options = {} if starts is None else {"cu_seqlens": torch.tensor(starts, dtype=torch.int32)}
    results = []
    for module in (aif, copy.deepcopy(aif).double()):
        weight = module.global_expand.weight
        z = module(states[None].to(weight.dtype) if starts is None else states.to(weight.dtype), **options)
        results.append({"z": z, "weight": torch.autograd.grad(z.sum(), weight)[0]})
    assert_same(*results, limit=limit)


def test_strided_states_are_read_where_they_lie() -> None:
    inputs = make_inputs(Case(batch=3, length=5, mask="holes")).double()
    arguments = (*inputs.weights, inputs.mask)
    expected = aif_reference(inputs.last, inputs.lower, *arguments)
    transposed = inputs.last.transpose(0, 1).contiguous().transpose(0, 1)
    wide = torch.stack([inputs.lower, torch.full_like(inputs.lower, math.nan)], dim=-1)[..., 0]
    assert not transposed.is_contiguous()
    assert wide.stride(-1) == 2
    assert torch.equal(aif_reference(transposed, wide, *arguments), expected)
