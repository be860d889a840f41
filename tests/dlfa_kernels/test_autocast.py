"""float32 states under autocast: the kernels multiply in its dtype, and hand back float32."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from aif_cases import Case, exact, make_inputs, relative_errors, run
from torch import Tensor

from benchmarks.errors import LIMITS
from dlfa_kernels import fused_aif
from dlfa_kernels.overrides import record_launches

pytestmark = pytest.mark.usefixtures("poisoned_memory")

triton_aif = partial(fused_aif, backend="triton")


def autocast_aif(dtype: torch.dtype) -> Any:
    """`fused_aif` by the kernels under autocast to `dtype`."""

    def fused(last: Tensor, *arguments: Any, **options: Any) -> Tensor:
        with torch.autocast(last.device.type, dtype=dtype):
            return triton_aif(last, *arguments, **options)

    return fused


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "case",
    [
        Case(batch=2, length=40, activation="gelu"),
        Case(batch=2, length=9, kernel_size=3, fuse="select", activation="silu", mask="empty"),
        Case(batch=1, length=9, squeeze_dim=264, lower=False, activation="gelu"),
        Case(lengths=(5, 0, 33), activation="gelu"),
    ],
    ids=str,
)
def test_float32_states_are_multiplied_in_the_dtype_of_autocast(
    case: Case, dtype: torch.dtype, device: torch.device
) -> None:
    inputs = make_inputs(case, device)
    with record_launches() as launches:
        results = run(autocast_aif(dtype), inputs, **case.options)
    assert {result.dtype for result in results.values()} == {torch.float32}
    for name in ("squeezed_ptr", "weight_ptr"):  # both are read by the forward and by the backward
        assert {item.arguments[name].dtype for item in launches if name in item.arguments} == {dtype}
    errors = relative_errors(results, exact(inputs, case))
    forward_limit, gradient_limit = LIMITS[dtype]  # those of states in the dtype of autocast
    assert errors.pop("z") <= forward_limit
    assert max(errors.values()) <= gradient_limit, errors


@pytest.mark.parametrize(
    "case",
    [Case(length=5, dtype=torch.float16), Case(length=5, token=1), Case(length=5, dtype=torch.bfloat16)],
    ids=str,
)
def test_other_calls_are_as_without_autocast(case: Case, device: torch.device) -> None:
    inputs = make_inputs(case, device)
    expected = run(triton_aif, inputs, **case.options)
    for name, value in run(autocast_aif(torch.bfloat16), inputs, **case.options).items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("options", [{"dtype": torch.bfloat16, "enabled": False}, {"dtype": torch.float32}], ids=str)
@pytest.mark.filterwarnings("ignore:In CPU autocast, but the target dtype is not supported")
def test_autocast_to_float32_or_off_changes_nothing(options: dict[str, Any], device: torch.device) -> None:
    case = Case(length=5)
    inputs = make_inputs(case, device)
    expected = run(triton_aif, inputs, **case.options)["z"]
    with torch.autocast(device.type, **options):
        assert torch.equal(run(triton_aif, inputs, **case.options)["z"], expected)


@pytest.mark.parametrize("backend", ["triton", "eager"])
@pytest.mark.parametrize("weight_dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "case", [Case(length=40), Case(lengths=(5, 0, 33), kernel_size=3, fuse="select"), Case(token=1)], ids=str
)
def test_parameters_of_16_bits_take_the_float32_states_of_a_layer_norm(
    case: Case, weight_dtype: torch.dtype, backend: str, device: torch.device
) -> None:
    inputs = make_inputs(case.but(weight_dtype=weight_dtype), device)

    def fused(last: Tensor, *arguments: Any, **options: Any) -> Tensor:
        with torch.autocast(last.device.type, dtype=torch.bfloat16):
            return fused_aif(last, *arguments, backend=backend, **options)

    results = run(fused, inputs, **case.options)
    assert {name: value.dtype for name, value in results.items()} == {
        name: torch.float32 if name in ("z", "last", "lower") else weight_dtype for name in results
    }
    errors = relative_errors(results, exact(inputs, case))
    forward_limit, gradient_limit = LIMITS[torch.bfloat16]
    assert errors.pop("z") <= forward_limit
    assert max(errors.values()) <= gradient_limit, errors
    with pytest.raises(
        TypeError, match=f"must be float32 or have the dtype of last, torch.float32, got {weight_dtype}"
    ):
        fused_aif(inputs.last, inputs.lower, *inputs.weights, inputs.mask, cu_seqlens=inputs.cu_seqlens)


def test_opcheck_with_other_products(device: torch.device) -> None:
    inputs = make_inputs(Case(batch=1, length=5, embed_dim=16, mask="full"), device)
    states = [inputs.last.requires_grad_(), inputs.lower.requires_grad_()]
    torch.library.opcheck(
        torch.ops.dlfa.aif, (*states, *inputs.weights, inputs.mask, None, "gate", "relu", torch.bfloat16)
    )


def test_compiled_under_autocast_with_float32_states(device: torch.device) -> None:
    case = Case(length=5, activation="gelu")
    inputs = make_inputs(case, device)
    torch._dynamo.reset()
    compiled = torch.compile(autocast_aif(torch.bfloat16), fullgraph=True, backend="aot_eager")
    expected = run(autocast_aif(torch.bfloat16), inputs, **case.options)
    for name, value in run(compiled, inputs, **case.options).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)
    torch._dynamo.reset()
