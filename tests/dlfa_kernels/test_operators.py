"""The operators torch.ops.dlfa.*, and FusedAIF under what PyTorch users wrap around a module."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from aif_cases import GRADIENTS, Case, Inputs, make_inputs, run
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.errors import LIMITS, relative_error
from dlfa_kernels import FusedAIF, fused_aif
from dlfa_kernels.overrides import record_launches

CASES = [
    Case(batch=1, length=5, embed_dim=16, kernel_size=3, fuse="select"),
    Case(batch=2, length=5, embed_dim=16, lower=False, mask="none", dtype=torch.bfloat16),
    Case(lengths=(3, 0, 4), embed_dim=16),
    Case(batch=2, length=5, embed_dim=16, kernel_size=3, token=1),
    Case(lengths=(3, 0, 4), embed_dim=16, token=1, fuse="select"),
]
BACKENDS = ["eager", "triton"]


def operator_arguments(case: Case, inputs: Inputs) -> tuple[Any, tuple[Any, ...], tuple[Any, ...]]:
    """The operator of a case, its tensor arguments, and its settings."""
    operator = torch.ops.dlfa.aif if case.token is None else torch.ops.dlfa.aif_token
    tensors = (inputs.last, inputs.lower, *inputs.weights, inputs.mask, inputs.cu_seqlens)
    settings = (case.fuse, case.activation)
    return operator, tensors, (*settings, inputs.last.dtype) if case.token is None else (case.token, *settings)


# Rows of padding stay unwritten in what the kernels save for the backward, and opcheck compares all results.
WITHOUT_PADDING = [case.but(mask="none" if case.mask == "none" else "full") for case in CASES]


@pytest.mark.parametrize("case", WITHOUT_PADDING, ids=str)
@pytest.mark.parametrize("with_gradients", [False, True])
def test_opcheck_of_the_forward(case: Case, with_gradients: bool, device: torch.device) -> None:
    operator, tensors, settings = operator_arguments(case, make_inputs(case, device))
    if with_gradients:
        tensors = tuple(t.requires_grad_() if isinstance(t, Tensor) and t.is_floating_point() else t for t in tensors)
    torch.library.opcheck(operator, (*tensors, *settings))


def backward_arguments(case: Case, inputs: Inputs, needs_dx: bool) -> tuple[Any, tuple[Any, ...]]:
    """The backward operator of a case, and its arguments, for what the forward saves."""
    operator, tensors, settings = operator_arguments(case, inputs)
    saved = operator(*tensors, *settings)
    dz = inputs.dz if case.token is None else inputs.dz_token
    settings = settings[:2] if case.token is None else settings
    return getattr(torch.ops.dlfa, f"{operator.__name__}_backward"), (dz, *tensors, *saved, *settings, needs_dx)


@pytest.mark.parametrize("case", WITHOUT_PADDING, ids=str)
@pytest.mark.parametrize("needs_dx", [False, True])
def test_opcheck_of_the_backward(case: Case, needs_dx: bool, device: torch.device) -> None:
    torch.library.opcheck(*backward_arguments(case, make_inputs(case, device), needs_dx))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fake_results_have_the_real_shapes(case: Case, device: torch.device) -> None:
    operator, tensors, settings = operator_arguments(case, make_inputs(case, device))
    assert_same_layout(operator, (*tensors, *settings))


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("needs_dx", [False, True])
def test_fake_gradients_have_the_real_shapes(case: Case, needs_dx: bool, device: torch.device) -> None:
    dx, dy, *_ = assert_same_layout(*backward_arguments(case, make_inputs(case, device), needs_dx))
    assert dx.numel() > 0 if needs_dx else dx.numel() == dy.numel() == 0


def assert_same_layout(operator: Any, arguments: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """What the operator returns, unless it returns other shapes, dtypes or strides for fake tensors."""
    real = operator(*arguments)
    fake = operator(*(value.to("meta") if isinstance(value, Tensor) else value for value in arguments))
    described = [[(t.shape, t.dtype, t.stride()) for t in results] for results in (real, fake)]
    assert described[0] == described[1]
    return real


class Block(nn.Module):
    """FusedAIF between layers that make it everything a compiler can see: inputs, outputs, and an autocast region."""

    def __init__(self, backend: str, **settings: Any) -> None:
        super().__init__()
        self.before = nn.Linear(16, 16)
        self.aif = FusedAIF(16, fuse="select", backend=backend, **settings)
        self.after = nn.Linear(16, 3)

    def forward(self, states: Tensor, mask: Tensor | None = None, token: int | None = None) -> Tensor:
        last = self.before(states)
        return self.after(self.aif(last, states.to(last.dtype), mask, token=token))


def block(backend: str, device: torch.device, **settings: Any) -> Block:
    torch.manual_seed(0)
    return Block(backend, **settings).to(device)


def padded(batch: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch * 1000 + length)
    states = torch.randn(batch, length, 16, generator=generator)
    mask = torch.rand(batch, length, generator=generator) > 0.3
    return states.to(device), mask.to(device)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def assert_same_gradients(twin: nn.Module, plain: nn.Module) -> None:
    expected = gradients(plain)
    for name, gradient in gradients(twin).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5)


@pytest.fixture
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


COMPILERS = ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("token", [None, 1])
def test_compiled_equals_plain(token: int | None, backend: str, compiler: str, device: torch.device) -> None:
    plain = block(backend, device, kernel_size=3)
    twin = copy.deepcopy(plain)
    compiled = torch.compile(twin, fullgraph=True, backend=compiler)
    fixed, mask = padded(2, 6, device)
    for states in (fixed, fixed.clone().requires_grad_()):
        expected, actual = plain(states, mask, token), compiled(states, mask, token)
        torch.testing.assert_close(actual, expected)
        expected.square().sum().backward()
        actual.square().sum().backward()
        assert_same_gradients(twin, plain)
    plain.eval()
    compiled.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(states, mask, token), plain(states, mask, token))


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_under_autocast(backend: str, device: torch.device) -> None:
    plain = block(backend, device)
    twin = copy.deepcopy(plain)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    states, mask = padded(2, 6, device)
    results = []
    for module in (plain, compiled):
        with torch.autocast(device.type, dtype=torch.bfloat16):
            z = module(states, mask)
        z.float().square().sum().backward()
        results.append(z)
    assert results[0].dtype == results[1].dtype == torch.bfloat16
    torch.testing.assert_close(results[1], results[0])
    for name, gradient in gradients(plain).items():
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradients(twin)[name], gradient, rtol=2e-2, atol=2e-2)


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("backend", "token"), [("eager", None), ("triton", None), ("triton", 0)])
def test_other_lengths_do_not_recompile(token: int | None, backend: str, training: bool, device: torch.device) -> None:
    plain = block(backend, device).train(training)
    twin = copy.deepcopy(plain)
    compiled = torch.compile(twin, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.set_grad_enabled(training):
        for length in (6, 9, 70):
            states, mask = padded(2, length, device)
            with torch._dynamo.config.patch(error_on_recompile=length != 6):
                actual = compiled(states, mask, token)
            expected = plain(states, mask, token)
            torch.testing.assert_close(actual, expected)
            if training:
                actual.square().sum().backward()
                expected.square().sum().backward()
                assert_same_gradients(twin, plain)


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("backend", BACKENDS)
def test_lengths_become_dynamic_by_themselves(backend: str, device: torch.device) -> None:
    plain = block(backend, device)
    twin = copy.deepcopy(plain)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for count, length in enumerate((6, 9, 70, 2)):
        states, mask = padded(2, length, device)
        with torch._dynamo.config.patch(error_on_recompile=count > 1):
            actual = compiled(states, mask)
            actual.square().sum().backward()
        expected = plain(states, mask)
        expected.square().sum().backward()
        torch.testing.assert_close(actual, expected)
        assert_same_gradients(twin, plain)


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("token", [None, 1])
def test_packed_form_compiles(token: int | None, backend: str, device: torch.device) -> None:
    inputs = make_inputs(Case(lengths=(3, 0, 4)), device)
    options = {"activation": "gelu", "token": token, "backend": backend}
    compiled = torch.compile(fused_aif, fullgraph=True, backend="aot_eager")
    expected, actual = run(fused_aif, inputs, **options), run(compiled, inputs, **options)
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value)


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("token", [None, 1])
def test_rows_that_a_mask_chose_inside_the_graph_compile(token: int | None, backend: str, device: torch.device) -> None:
    aif, last, lower, _ = module_and_inputs(backend, device)

    def packed(last: Tensor, lower: Tensor, mask: Tensor) -> Tensor:
        cu_seqlens = torch.nn.functional.pad(mask.sum(1).cumsum(0), (1, 0)).int()
        return aif(last[mask], lower[mask], cu_seqlens=cu_seqlens, token=token)

    compiled = torch.compile(packed, fullgraph=True, backend="aot_eager")
    position = torch.arange(last.shape[1], device=device)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        for lengths in ([3, 1], [0, last.shape[1]], [0, 0]):
            mask = position < torch.tensor(lengths, device=device)[:, None]
            torch.testing.assert_close(compiled(last, lower, mask), packed(last, lower, mask))


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("token", [None, 1])
def test_compiled_autograd(token: int | None, backend: str, device: torch.device) -> None:
    aif, last, lower, inputs = module_and_inputs(backend, device)

    def backward(loss: Tensor) -> None:
        loss.backward()

    leaves, gradients = [last, lower, *aif.parameters()], []
    for call in (backward, torch.compile(backward, backend="aot_eager")):
        for leaf in leaves:
            leaf.grad = None
        loss = aif(last, lower, inputs.mask, token=token).square().sum()
        with torch._dynamo.config.patch(compiled_autograd=True):
            call(loss)
        gradients.append([leaf.grad for leaf in leaves])
    for plain, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, plain)


def module_and_inputs(backend: str, device: torch.device) -> tuple[FusedAIF, Tensor, Tensor, Inputs]:
    """A module, and two leaves that require gradients."""
    torch.manual_seed(0)
    inputs = make_inputs(Case(batch=2, length=5, embed_dim=16), device)
    aif = FusedAIF(16, kernel_size=3, fuse="select", backend=backend, device=device)
    return aif, inputs.last.requires_grad_(), inputs.lower.requires_grad_(), inputs


@pytest.mark.parametrize("context", [nullcontext, torch.no_grad, torch.inference_mode, "autocast"])
def test_plain_calls_pass_the_operators_by(context: Any, device: torch.device) -> None:
    from dlfa_kernels import operators  # which needs triton

    aif, last, lower, inputs = module_and_inputs("triton", device)
    with torch.autocast(device.type, dtype=torch.bfloat16) if context == "autocast" else context():
        assert operators._can_skip_dispatcher((last, lower, *aif.weights, inputs.mask, None))
        assert not operators._can_skip_dispatcher((last.to("meta"),))
        assert not operators._can_skip_dispatcher((last.as_subclass(Subclass),))


class Subclass(Tensor):
    """A tensor of a class of its own."""


class Noting(TorchDispatchMode):
    """Notes the operators of `dlfa` that are called inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.namespace == "dlfa":
            self.names.append(func._opname)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("token", "name"), [(None, "aif"), (1, "aif_token")])
def test_modes_and_the_profiler_see_the_operators(token: int | None, name: str, device: torch.device) -> None:
    aif, last, lower, inputs = module_and_inputs("triton", device)
    leaves = [last, lower, *aif.parameters()]

    def step() -> list[Tensor]:
        z = aif(last, lower, inputs.mask, token=token)
        return [z, *torch.autograd.grad(z.sum(), leaves)]

    expected = step()
    with Noting() as mode:
        seen_by_mode = step()
    assert mode.names == [name, f"{name}_backward"]
    with torch.profiler.profile() as profile:
        seen_by_profiler = step()
    assert {f"dlfa::{name}", f"dlfa::{name}_backward"} <= {event.key for event in profile.key_averages()}
    for value, by_mode, by_profiler in zip(expected, seen_by_mode, seen_by_profiler, strict=True):
        assert torch.equal(by_mode, value)
        assert torch.equal(by_profiler, value)


@pytest.mark.parametrize("pre_dispatch", [False, True])
def test_tracers_see_the_operators(pre_dispatch: bool, device: torch.device) -> None:
    aif, last, lower, inputs = module_and_inputs("triton", device)

    def fused(last: Tensor, lower: Tensor) -> Tensor:
        return aif(last, lower, inputs.mask)

    states = last.detach(), lower.detach()
    with torch.no_grad():
        traced = make_fx(fused, tracing_mode="real", pre_dispatch=pre_dispatch)(*states)
        assert "dlfa.aif" in traced.code
        other = states[1], states[0] * 2
        assert torch.equal(traced(*other), fused(*other))


def negated(tensor: Tensor) -> Tensor:
    """Equal to `tensor`, whose negative is what lies in memory."""
    lazy = torch.complex(torch.zeros_like(tensor), -tensor.detach()).conj().imag
    assert lazy.is_neg()
    return lazy


@pytest.mark.parametrize("token", [None, 1])
def test_lazy_negations_are_made(token: int | None, device: torch.device) -> None:
    case = Case(batch=2, length=5, embed_dim=16, fuse="select", token=token)
    inputs = make_inputs(case, device)
    expected = run(fused_aif, inputs, **case.options, backend="triton")
    inputs.last, inputs.dz, inputs.dz_token = negated(inputs.last), negated(inputs.dz), negated(inputs.dz_token)
    inputs.weights = inputs.weights._replace(local_expand_weight=negated(inputs.weights.local_expand_weight))
    plain = {"last": inputs.last, "lower": inputs.lower, **inputs.weights._asdict()}
    z = fused_aif(*plain.values(), inputs.mask, **case.options, backend="triton")
    assert torch.equal(z, expected["z"])
    lower = inputs.lower.clone().requires_grad_()
    z = fused_aif(inputs.last, lower, *inputs.weights, inputs.mask, **case.options, backend="triton")
    z.backward(inputs.dz if token is None else inputs.dz_token)
    torch.testing.assert_close(lower.grad, expected["lower"])


@pytest.mark.parametrize("token", [None, 1])
def test_a_gradient_of_zeros_not_written(token: int | None, device: torch.device) -> None:
    aif, last, lower, inputs = module_and_inputs("triton", device)
    z = aif(last, lower, inputs.mask, token=token)
    zeros = torch._efficientzerotensor(z.shape, dtype=z.dtype, device=device)
    for gradient in torch.autograd.grad(z, [last, lower, *aif.parameters()], zeros):
        assert gradient.eq(0).all()


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("token", [None, 1])
def test_gradient_checkpointing(token: int | None, backend: str, use_reentrant: bool, device: torch.device) -> None:
    aif, last, lower, inputs = module_and_inputs(backend, device)
    results = []
    for wrap in (False, True):
        leaves = [last, lower, *aif.parameters()]
        for leaf in leaves:
            leaf.grad = None

        def fused(last: Tensor, lower: Tensor) -> Tensor:
            return aif(last, lower, inputs.mask, token=token)

        z = checkpoint(fused, last, lower, use_reentrant=use_reentrant) if wrap else fused(last, lower)
        z.backward(inputs.dz if token is None else inputs.dz_token)
        results.append([z.detach(), *(leaf.grad for leaf in leaves)])
    for plain, checkpointed in zip(*results, strict=True):
        assert torch.equal(plain, checkpointed)


class NoGradient(torch.autograd.Function):
    """The identity, whose input gets no gradient."""

    @staticmethod
    def forward(ctx: Any, states: Tensor) -> Tensor:
        return states.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> None:
        return None


@pytest.mark.parametrize("token", [None, 1])
@pytest.mark.parametrize("backend", BACKENDS)
def test_without_a_gradient_of_z_there_is_none_of_anything(
    backend: str, token: int | None, device: torch.device
) -> None:
    aif, last, lower, inputs = module_and_inputs(backend, device)
    z = aif(last, lower, inputs.mask, token=token)
    gradients = torch.autograd.grad(NoGradient.apply(z).sum(), [last, lower, *aif.parameters()], allow_unused=True)
    assert gradients == (None,) * 10


@pytest.mark.parametrize("token", [None, 1])
def test_double_backward_is_refused(token: int | None, device: torch.device) -> None:
    aif, last, lower, inputs = module_and_inputs("triton", device)
    z = aif(last, lower, inputs.mask, token=token)
    (gradient,) = torch.autograd.grad(z.square().sum(), last, create_graph=True)
    with pytest.raises(RuntimeError, match=r"double backward.*backend='eager'"):
        gradient.square().sum().backward()


@pytest.mark.parametrize("token", [None, 1])
def test_forward_mode_is_refused(token: int | None, device: torch.device) -> None:
    aif, last, lower, inputs = module_and_inputs("triton", device)
    last, lower = last.detach(), lower.detach()
    tangent = torch.ones_like(lower)
    with pytest.raises(NotImplementedError, match=r"no forward-mode derivative.*backend='eager'"):
        torch.func.jvp(lambda states: aif(last, states, inputs.mask, token=token), (lower,), (tangent,))
    torch.func.jvp(lambda states: states + aif(last, lower, inputs.mask).mean(), (lower,), (tangent,))
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="no forward-mode derivative"):
        aif(last, forward_ad.make_dual(lower, tangent), inputs.mask, token=token)
    aif.backend = "eager"
    slope = torch.func.jvp(lambda states: aif(last, states, inputs.mask, token=token), (lower,), (tangent,))[1]
    leaf, dz = lower.clone().requires_grad_(), inputs.dz if token is None else inputs.dz_token
    (gradient,) = torch.autograd.grad(aif(last, leaf, inputs.mask, token=token), leaf, dz)
    torch.testing.assert_close((slope * dz).sum(), (gradient * tangent).sum())  # one derivative, from both ends


@pytest.mark.parametrize("token", [None, 1])
def test_derivatives_by_torch_func_are_refused(token: int | None, device: torch.device) -> None:
    case = Case(batch=2, length=5, embed_dim=8, token=token)
    inputs = make_inputs(case, device)

    def total(last: torch.Tensor, backend: str) -> torch.Tensor:
        return fused_aif(
            last, inputs.lower, *inputs.weights, inputs.mask, token=token, activation="silu", backend=backend
        ).sum()

    for transform in (
        torch.func.grad(total),
        lambda *inputs: torch.func.vjp(lambda last: total(last, inputs[1]), inputs[0]),
    ):
        with pytest.raises(NotImplementedError, match=r"no derivative by torch\.func.*backend='eager'"):
            transform(inputs.last, "triton")
    last = inputs.last.clone().requires_grad_()
    total(last, "triton").backward()
    torch.testing.assert_close(torch.func.grad(total)(inputs.last, "eager"), last.grad)


@pytest.mark.parametrize("token", [None, 1])
def test_two_backwards_through_one_graph(token: int | None, device: torch.device) -> None:
    aif, last, lower, inputs = module_and_inputs("triton", device)
    z = aif(last, lower, inputs.mask, token=token).sum()
    leaves = [last, lower, *aif.parameters()]
    first = torch.autograd.grad(z, leaves, retain_graph=True)
    for again, gradient in zip(torch.autograd.grad(z, leaves), first, strict=True):
        assert torch.equal(again, gradient)


def test_vmap(device: torch.device) -> None:
    aif, last, _, _ = module_and_inputs("triton", device)
    stacked = torch.stack([last, last * 2, -last]).detach()
    aif.fuse = "gate"
    torch.testing.assert_close(torch.func.vmap(aif)(stacked), torch.stack([aif(states) for states in stacked]))


@pytest.mark.parametrize("token", [None, 1])
@pytest.mark.parametrize("changed", ["last", "lower", "mask", "weight"])
def test_what_changes_before_the_backward_is_noticed(changed: str, token: int | None, device: torch.device) -> None:
    aif, last, lower, inputs = module_and_inputs("triton", device)
    tensors = {"last": last * 1, "lower": lower * 1, "mask": inputs.mask, "weight": aif.global_expand.weight}
    z = aif(tensors["last"], tensors["lower"], tensors["mask"], token=token)
    with torch.no_grad():
        tensors[changed].logical_not_() if changed == "mask" else tensors[changed].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


@pytest.mark.parametrize("token", [None, 1])
def test_z_may_be_changed_in_place(token: int | None, device: torch.device) -> None:
    aif, last, lower, inputs = module_and_inputs("triton", device)
    gradient = []
    for change in (lambda z: z * 2, lambda z: z.mul_(2)):
        z = aif(last, lower, inputs.mask, token=token)
        gradient.append(torch.autograd.grad(change(z).sum(), last)[0])
    assert torch.equal(*gradient)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_z_is_no_view(backend: str, case: Case, device: torch.device) -> None:
    inputs = make_inputs(case, device)
    tensors = (inputs.last.requires_grad_(), inputs.lower, *inputs.weights, inputs.mask)
    z = fused_aif(*tensors, cu_seqlens=inputs.cu_seqlens, **case.options, backend=backend)
    assert z.is_contiguous()
    assert not z._is_view()


@pytest.mark.parametrize(("backend", "token"), [("eager", None), ("triton", None), ("triton", 1)])
@pytest.mark.parametrize("learning", [("last",), ("lower", "local_squeeze_weight"), GRADIENTS[2:]])
def test_frozen_tensors(learning: tuple[str, ...], token: int | None, backend: str, device: torch.device) -> None:
    case = Case(batch=1, length=5, embed_dim=16, fuse="select", token=token)
    inputs = make_inputs(case, device)
    expected = run(fused_aif, inputs, **case.options, backend=backend)
    tensors = {"last": inputs.last, "lower": inputs.lower, **inputs.weights._asdict()}
    tensors = {name: tensor.clone().requires_grad_(name in learning) for name, tensor in tensors.items()}
    z = fused_aif(*tensors.values(), inputs.mask, **case.options, backend=backend)
    z.backward(inputs.dz if token is None else inputs.dz_token)
    assert torch.equal(z, expected["z"])
    for name, tensor in tensors.items():
        if name in learning:
            torch.testing.assert_close(tensor.grad, expected[name], rtol=1e-5, atol=1e-6)
        else:
            assert tensor.grad is None, name


@pytest.mark.usefixtures("fresh_dynamo")
@pytest.mark.parametrize("wrapping", ["plain", "compiled", "checkpointed"])
@pytest.mark.parametrize("token", [None, 1])
@pytest.mark.parametrize("learning", [(), ("last",), ("lower",)])
def test_gradients_of_states_are_made_where_one_is_needed(
    learning: tuple[str, ...], token: int | None, wrapping: str, device: torch.device
) -> None:
    aif, last, lower, inputs = module_and_inputs("triton", device)
    last.requires_grad_("last" in learning)
    lower.requires_grad_("lower" in learning)

    def fused(last: Tensor, lower: Tensor) -> Tensor:
        return aif(last, lower, inputs.mask, token=token)

    wrapped: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "plain": fused,
        "compiled": torch.compile(fused, fullgraph=True, backend="aot_eager"),
        "checkpointed": lambda last, lower: checkpoint(fused, last, lower, use_reentrant=False),
    }
    with record_launches() as launched:
        wrapped[wrapping](last, lower).sum().backward()
    assert aif.local_squeeze.weight.grad is not None
    assert [name for name, states in (("last", last), ("lower", lower)) if states.grad is not None] == [*learning]
    written = [launch.arguments["dx_ptr"] for launch in launched if "dx_ptr" in launch.arguments]
    assert any(isinstance(dx, Tensor) and dx.numel() for dx in written) == bool(learning)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("token", [None, 1])
def test_without_gradients(mode: Callable[[], Any], token: int | None, device: torch.device) -> None:
    aif, last, lower, inputs = module_and_inputs("triton", device)
    expected = aif(last, lower, inputs.mask, token=token)
    assert expected.requires_grad
    with mode():
        z = aif(last, lower, inputs.mask, token=token)
    assert not z.requires_grad
    assert torch.equal(z, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("token", [None, 1])
def test_states_made_in_inference_mode_are_trained_on(token: int | None, backend: str, device: torch.device) -> None:
    aif, last, lower, inputs = module_and_inputs(backend, device)
    aif(last, lower, inputs.mask, token=token).square().sum().backward()
    expected = [parameter.grad for parameter in aif.parameters()]
    aif.zero_grad()
    with torch.inference_mode():
        made = [tensor.detach().clone() for tensor in (last, lower, inputs.mask)]
    assert all(map(Tensor.is_inference, made))
    aif(*made, token=token).square().sum().backward()
    for parameter, gradient in zip(aif.parameters(), expected, strict=True):
        assert torch.equal(parameter.grad, gradient)


@pytest.mark.parametrize("backend", BACKENDS)
def test_functional_call(backend: str, device: torch.device) -> None:
    aif, last, lower, inputs = module_and_inputs(backend, device)
    other = {name: torch.randn_like(value) / 4 for name, value in aif.named_parameters()}
    twin = copy.deepcopy(aif)
    twin.load_state_dict(other)
    z = torch.func.functional_call(aif, other, (last, lower, inputs.mask))
    assert torch.equal(z, twin(last, lower, inputs.mask))


def test_functional_gradient_of_the_eager_path(device: torch.device) -> None:
    aif, last, lower, inputs = module_and_inputs("eager", device)
    state = {name: value.detach() for name, value in aif.named_parameters()}

    def loss(state: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(aif, state, (last, lower, inputs.mask)).square().sum()

    functional = torch.func.grad(loss)(state)
    aif(last, lower, inputs.mask).square().sum().backward()
    for name, parameter in aif.named_parameters():
        torch.testing.assert_close(functional[name], parameter.grad)


@pytest.mark.parametrize("token", [None, 1])
def test_export_of_the_eager_path(token: int | None) -> None:
    aif = FusedAIF(16, kernel_size=3, fuse="select", backend="eager").eval()
    batch, length = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("length", min=2, max=512)
    states, mask = padded(3, 6, torch.device("cpu"))
    arguments = {"last": states, "lower": states * 2, "mask": mask}
    shapes: dict[str, Any] = {name: {0: batch, 1: length} for name in arguments}
    if token is not None:
        arguments["token"] = token
        shapes["token"] = None
    program = torch.export.export(aif, (), arguments, dynamic_shapes=shapes)
    for size in ((3, 6), (1, 2), (5, 33)):
        states, mask = padded(*size, torch.device("cpu"))
        arguments |= {"last": states, "lower": states * 2, "mask": mask}
        torch.testing.assert_close(program.module()(**arguments), aif(**arguments))


def test_export_of_the_packed_eager_path() -> None:
    aif = FusedAIF(16, kernel_size=3, backend="eager").eval()
    rows, starts = torch.export.Dim("rows", min=2, max=4096), torch.export.Dim("starts", min=3, max=512)
    arguments = {"last": torch.randn(7, 16), "cu_seqlens": torch.tensor([0, 3, 3, 7], dtype=torch.int32)}
    program = torch.export.export(aif, (), arguments, dynamic_shapes={"last": {0: rows}, "cu_seqlens": {0: starts}})
    for lengths in ((3, 0, 4), (2, 1), (0, 5, 1, 6, 0)):
        starts_of = torch.tensor([0, *lengths]).cumsum(0).int()
        arguments = {"last": torch.randn(sum(lengths), 16), "cu_seqlens": starts_of}
        torch.testing.assert_close(program.module()(**arguments), aif(**arguments))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_kept_for_the_backward(case: Case, device: torch.device) -> None:
    """Beside inputs and parameters, the tensors of `ForwardResult` without z; neither z nor the gate."""
    case = case.but(length=256, embed_dim=64, squeeze_dim=16, lengths=case.lengths and (200, 0, 312))
    inputs = make_inputs(case, device)
    tensors = [inputs.last, inputs.lower, *inputs.weights, inputs.mask, inputs.cu_seqlens]
    known = {tensor.data_ptr() for tensor in tensors if tensor is not None}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in known:
            kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        z = run_forward(inputs, case)
    assert z.requires_grad
    assert z.data_ptr() not in kept
    batch = len(inputs.dz_token)
    squeezed = 4 * batch if case.token is not None else inputs.last.element_size() * inputs.last[..., 0].numel()
    assert sum(kept.values()) == squeezed * 16 + 4 * batch * (16 + 2 * 64 + 1)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_hooks_may_give_saved_tensors_back_in_another_layout(case: Case, device: torch.device) -> None:
    def column_major(tensor: Tensor) -> Tensor:
        return tensor.detach().mT.contiguous().mT if tensor.dim() > 1 else tensor.detach()

    inputs = make_inputs(case, device)
    expected = run(partial(fused_aif, backend="triton"), inputs, **case.options)
    with torch.autograd.graph.saved_tensors_hooks(column_major, lambda tensor: tensor):
        actual = run(partial(fused_aif, backend="triton"), inputs, **case.options)
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value)


def run_forward(inputs: Inputs, case: Case) -> Tensor:
    leaves = [None if t is None else t.requires_grad_() for t in (inputs.last, inputs.lower, *inputs.weights)]
    return fused_aif(*leaves, inputs.mask, cu_seqlens=inputs.cu_seqlens, **case.options, backend="triton")


@pytest.mark.parametrize("backend", BACKENDS)
def test_random_state_is_untouched(backend: str, device: torch.device) -> None:
    def state() -> Tensor:
        return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()

    aif, last, lower, inputs = module_and_inputs(backend, device)
    before = state()
    aif(last, lower, inputs.mask).sum().backward()
    aif(last, lower, inputs.mask, token=0).sum().backward()
    assert torch.equal(state(), before)


@pytest.mark.gpu
@pytest.mark.parametrize("token", [None, 0])
def test_cuda_graph_of_forward_and_backward(token: int | None, device: torch.device) -> None:
    aif, last, lower, inputs = module_and_inputs("triton", device)
    leaves = [last, lower, *aif.parameters()]

    def step() -> tuple[Tensor, ...]:
        z = aif(last, lower, inputs.mask, token=token)
        return z, *torch.autograd.grad(z, leaves, inputs.dz if token is None else inputs.dz_token)

    expected = [tensor.detach() for tensor in step()]  # a graph of autograd kept alive would tie a stream to the leaves
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    graph.replay()
    for actual, value in zip(captured, expected, strict=True):
        assert torch.equal(actual, value)


@pytest.mark.gpu
@pytest.mark.parametrize("token", [None, 0])
def test_no_host_sync(token: int | None, device: torch.device) -> None:
    aif, last, lower, inputs = module_and_inputs("triton", device)
    aif(last, lower, inputs.mask, token=token).sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        aif(last, lower, inputs.mask, token=token).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_device_of_the_tensors_counts() -> None:
    aif, last, lower, inputs = module_and_inputs("triton", torch.device("cuda:1"))
    with torch.cuda.device(0):
        z = aif(last, lower, inputs.mask)
        z.sum().backward()
    assert z.device == last.grad.device == torch.device("cuda:1")
    eager = copy.deepcopy(aif).cpu()
    eager.backend = "eager"
    expected = eager(last.cpu(), lower.cpu(), inputs.mask.cpu())
    assert relative_error(z.cpu(), expected) <= LIMITS[z.dtype][0]


def test_an_operator_that_was_compiled_elsewhere_stops_where_kernels_do_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = make_inputs(Case(batch=1, length=3, embed_dim=8, squeeze_dim=8))
    states = (inputs.last, inputs.lower, *inputs.weights, inputs.mask, None)
    monkeypatch.setattr("dlfa_kernels.backends.TAKES_CPU_TENSORS", False)  # as without Triton's interpreter
    with pytest.raises(RuntimeError, match="needs CUDA or ROCm tensors, got a CPU tensor"):
        torch.ops.dlfa.aif(*states, "gate", "gelu", torch.float32)
    with pytest.raises(RuntimeError, match="needs CUDA or ROCm tensors, got a CPU tensor"):
        torch.ops.dlfa.aif_token(*states, 1, "gate", "gelu")


@pytest.mark.parametrize("values", [[0, 9, 5], [1, 3, 5], [0, 3, 6], [0, 3, 4]])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_call_stops_at_wrong_cu_seqlens(backend: str, values: list[int], device: torch.device) -> None:
    if device.type != "cpu":
        pytest.skip("on a GPU values are not read, and under DLFA_VALIDATE=1 the failure would end its use")
    aif = torch.compile(FusedAIF(16, backend=backend), fullgraph=True, backend="aot_eager")
    states = torch.randn(5, 16)
    assert aif(states, cu_seqlens=torch.tensor([0, 3, 5], dtype=torch.int32)).shape == states.shape
    with pytest.raises(RuntimeError, match="cu_seqlens must start at 0, end at N, the rows of last, and not decrease"):
        aif(states, cu_seqlens=torch.tensor(values, dtype=torch.int32))


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_token_is_no_other_graph(backend: str, device: torch.device) -> None:
    counter = CompileCounterWithBackend("aot_eager")
    aif = FusedAIF(16, backend=backend).to(device)
    compiled = torch.compile(aif, fullgraph=True, backend=counter)
    states, mask = padded(2, 9, device)
    for token in range(9):
        torch.testing.assert_close(compiled(states, mask=mask, token=token), aif(states, mask=mask, token=token))
    assert counter.frame_count <= 3  # 0, 1, and all others


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_export_with_any_token(backend: str, strict: bool, device: torch.device) -> None:
    class OneToken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.aif = FusedAIF(16, backend=backend)

        def forward(self, states: Tensor, token: int) -> Tensor:
            return self.aif(states, token=token)

    model = OneToken().to(device)
    states, _ = padded(2, 9, device)
    program = torch.export.export(model, (states, 2), dynamic_shapes=(None, torch.export.Dim.DYNAMIC), strict=strict)
    for token in (2, 3, 8):
        torch.testing.assert_close(program.module()(states, token), model(states, token))


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("frozen", [False, True])
def test_operations_are_counted(case: Case, frozen: bool, device: torch.device) -> None:
    def operations(backend: str) -> tuple[int, int]:
        inputs = make_inputs(case, device)
        leaves = [tensor.requires_grad_() for tensor in inputs.weights]
        states = [inputs.last, inputs.lower]
        if not frozen:
            states = [None if tensor is None else tensor.requires_grad_() for tensor in states]
        with FlopCounterMode(display=False) as forward:
            z = fused_aif(*states, *leaves, inputs.mask, cu_seqlens=inputs.cu_seqlens, **case.options, backend=backend)
        with FlopCounterMode(display=False) as backward:
            z.backward(inputs.dz if case.token is None else inputs.dz_token)
        return forward.get_total_flops(), backward.get_total_flops()

    (ours, ours_back), (eager, eager_back) = operations("triton"), operations("eager")
    assert ours == eager
    # beside what autograd multiplies, the gate is computed again
    sequences = len(case.lengths or ()) or case.batch
    tokens = sequences if case.token is not None else sum(case.lengths or (case.batch * case.length,))
    again = (2 if case.token is None else 1) * 2 * tokens * case.embed_dim * case.squeeze_dim
    assert ours_back == eager_back + again
