"""PyTorch operators over the kernels, in the namespace `dlfa`: implementation, fake and autograd of each.

A copy of the package under another name, as Hugging Face's `kernels` loads it, uses that name as its namespace.

    dlfa::aif        (last, lower?, eight weights, mask?, cu_seqlens?, fuse, activation, product_dtype) -> ForwardResult
    dlfa::aif_token  the same with `token` before `fuse` and without `product_dtype`
    dlfa::aif_backward, dlfa::aif_token_backward
                     (dz, the tensors above, the six outputs, the settings, needs_dx) -> (dx, dy, eight gradients)

Arguments must be checked already; `fused_aif` is the public entry. It calls `aif` and `aif_token` of this module, which
use the registered operator only if a mode, transform, tracer or profiler has to see it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import passes
from .backends import resolve_backend
from .device import runs_kernels
from .flop_counts import register_flop_counts
from .operands import Inputs
from .parameters import AIFWeights
from .results import ForwardResult, empty_backward
from .settings import Settings

_INPUTS = ("Tensor last", "Tensor? lower", *(f"Tensor {name}" for name in AIFWeights._fields),
           "Tensor? mask", "Tensor? cu_seqlens")  # fmt: skip
_SAVED = tuple(f"Tensor {name}" for name in ForwardResult._fields)
_GRADIENTS = ("dx", "dy", *AIFWeights._fields)

# A process can define a namespace only once, and may load both the installed package and a copy of it.
NAMESPACE = "dlfa" if __package__ == "dlfa_kernels" else str(__package__).replace(".", "_")
library = torch.library.Library(NAMESPACE, "DEF")
ops = getattr(torch.ops, NAMESPACE)


class _Form(NamedTuple):
    """The operators `name` and `name`_backward of an input form, and how their arguments become `Settings`."""

    name: str
    settings: tuple[str, ...]  # non-tensor arguments of both, as in a schema; the last two are fuse and activation
    forward_settings: tuple[str, ...]  # further ones of the forward; the backward infers them from saved tensors
    settings_of_forward: Callable[..., Settings]  # (last, *non-tensor arguments of the forward)
    settings_of_backward: Callable[..., Settings]  # (last, saved, *non-tensor arguments of the backward)

    @property
    def forward(self) -> Any:
        """The forward operator."""
        return getattr(ops, self.name).default

    @property
    def backward(self) -> Any:
        """The backward operator."""
        return getattr(ops, f"{self.name}_backward").default


_FULL = _Form(
    "aif",
    ("str fuse", "str activation"),
    ("ScalarType product_dtype",),
    lambda last, fuse, activation, product_dtype: Settings(fuse, activation, product_dtype),
    lambda last, saved, fuse, activation, needs_dx: Settings(
        fuse, activation, product_dtype=saved.squeezed.dtype, needs_dx=needs_dx
    ),
)
_TOKEN = _Form(
    "aif_token",
    ("SymInt token", "str fuse", "str activation"),
    (),
    lambda last, token, fuse, activation: Settings(fuse, activation, last.dtype, token),
    lambda last, saved, token, fuse, activation, needs_dx: Settings(
        fuse, activation, last.dtype, token, needs_dx=needs_dx
    ),
)


def _of_forward(form: _Form, arguments: Sequence[Any]) -> tuple[Inputs, Settings]:
    """Convert the arguments of a forward operator to those of `passes.forward`."""
    last, lower, *weights, mask, cu_seqlens = arguments[: len(_INPUTS)]
    inputs = Inputs(last, lower, None, mask, cu_seqlens, AIFWeights._make(weights))
    return inputs, form.settings_of_forward(last, *arguments[len(_INPUTS) :])


def _of_backward(form: _Form, arguments: Sequence[Any]) -> tuple[Inputs, Settings, ForwardResult]:
    """Convert the arguments of a backward operator to those of `passes.backward`."""
    end = 1 + len(_INPUTS)
    dz, last, lower, *weights, mask, cu_seqlens = arguments[:end]
    # kernels read them as contiguous, but hooks on saved tensors may return them otherwise
    saved = ForwardResult._make(tensor.contiguous() for tensor in arguments[end : end + len(_SAVED)])
    inputs = Inputs(last, lower, dz, mask, cu_seqlens, AIFWeights._make(weights))
    return inputs, form.settings_of_backward(last, saved, *arguments[end + len(_SAVED) :]), saved


def _forward(form: _Form, *arguments: Any) -> tuple[Tensor, ...]:
    """Implement the forward operator."""
    inputs, settings = _of_forward(form, arguments)
    # raises if the kernels cannot run: the caller may have been compiled or made for another device
    if inputs.last.device.type == "cpu" or not runs_kernels(inputs.last.device):
        resolve_backend("triton", inputs.last)
    return passes.forward(inputs, settings).tensors


def _forward_fake(form: _Form, *arguments: Any) -> tuple[Tensor, ...]:
    inputs, settings = _of_forward(form, arguments)
    return passes.input_form(settings).empty_forward(inputs, settings).tensors


def _backward(form: _Form, *arguments: Any) -> tuple[Tensor, ...]:
    """Implement the backward operator."""
    return passes.backward(*_of_backward(form, arguments)).tensors


def _backward_fake(form: _Form, *arguments: Any) -> tuple[Tensor, ...]:
    inputs, settings, _ = _of_backward(form, arguments)
    return empty_backward(inputs, settings).tensors


def _refuse_double_backward(ctx: Any, *gradients: Tensor | None) -> tuple[None, ...]:
    raise RuntimeError(
        "the backward of FusedAIF's kernels cannot be differentiated again (double backward); "
        "use FusedAIF(backend='eager'), which can"
    )


def _refuse_forward_mode(inputs: Sequence[Any]) -> None:
    if any(isinstance(value, Tensor) and forward_ad.unpack_dual(value).tangent is not None for value in inputs):
        raise NotImplementedError(
            "FusedAIF's kernels have no forward-mode derivative (torch.func.jvp, dual tensors); "
            "use FusedAIF(backend='eager'), which has"
        )


_PLAIN = {Tensor, torch.nn.Parameter}
_DEVICES = ("cuda", "cpu")
# The dispatch keys that a thread adds to every call when no mode, transform or tracer is active.
_USUAL_KEYS = torch._C.DispatchKeySet(torch._C.DispatchKey.BackendSelect) | torch._C.DispatchKeySet(
    torch._C.DispatchKey.ADInplaceOrView
)


def _can_skip_dispatcher(tensors: Sequence[Tensor | None]) -> bool:
    """Return whether an operator call on these tensors reaches its implementation through autograd alone.

    Dispatch modes, transforms, tracers, the profiler and tensor subclasses must see the operator, and the dispatcher
    materialises lazily negated and zero tensors. Without any of these, a direct call of the implementation saves the
    host the dispatch: a sixth of a training step on a small batch.
    """
    if (
        torch.compiler.is_compiling()
        or (torch._C._dispatch_tls_local_include_set() - _USUAL_KEYS).raw_repr()
        or forward_ad._current_level >= 0
        or torch.autograd._profiler_enabled()
    ):
        return False
    given = [tensor for tensor in tensors if tensor is not None]
    return (
        _PLAIN.issuperset(map(type, given))
        and given[0].device.type in _DEVICES
        and not any(map(Tensor.is_neg, given))
        and not any(map(Tensor._is_zerotensor, given))
    )


class FusedAIFFunction(torch.autograd.Function):
    """Autograd of `form`: call `run` on the forward operator's inputs; the backward is its operator or implementation.

    Return z. Append the other results to `saved`; autograd does not differentiate them.
    """

    @staticmethod
    def forward(
        ctx: Any, form: _Form, run: Callable[..., tuple[Tensor, ...]], saved: list[Tensor], *inputs: Any
    ) -> Tensor:
        z, *others = run(*inputs)
        saved += others
        ctx.form = form
        ctx.settings = inputs[len(_INPUTS) :][: len(form.settings)]
        *_, ctx.fuse, _activation = ctx.settings
        # Tensors made under torch.inference_mode, for example by a frozen encoder, cannot be saved themselves.
        given = [
            value.clone() if value is not None and value.is_inference() else value for value in inputs[: len(_INPUTS)]
        ]
        # The backward does not read z: an empty tensor takes its place, so that z is not kept alive.
        ctx.save_for_backward(*given, z.new_empty(0), *others)
        ctx.set_materialize_grads(False)
        return z

    @staticmethod
    def backward(ctx: Any, dz: Tensor | None) -> tuple[Tensor | None, ...]:
        if dz is None:
            return (None,) * len(ctx.needs_input_grad)
        _form, _run, _saved, *of_inputs = ctx.needs_input_grad
        needs_dx = any(of_inputs[: _INPUTS.index("Tensor? lower") + 1])
        values = (dz, *ctx.saved_tensors)  # read once: activation checkpointing recomputes at each access
        # With create_graph=True the operator's own autograd refuses a second derivative.
        direct = not torch.is_grad_enabled() and _can_skip_dispatcher(values)
        run = partial(_backward, ctx.form) if direct else ctx.form.backward
        dx, dy, *weights = run(*values, *ctx.settings, needs_dx)
        _dz, _last, lower, *_ = values
        if not needs_dx:
            dx = dy = None
        elif lower is None:
            dy = None
        elif ctx.fuse == "gate":
            dy = dx
        gradients = (None, None, None, dx, dy, *weights)
        return gradients + (None,) * (len(ctx.needs_input_grad) - len(gradients))


def _differentiated(form: _Form, run: Callable[..., tuple[Tensor, ...]], inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """Return all results of `run`; z is differentiable if an input requires grad and grad mode is on."""
    if torch.is_grad_enabled() and torch._C._any_requires_grad(*inputs):
        saved: list[Tensor] = []
        z = FusedAIFFunction.apply(form, run, saved, *inputs)
        return z, *saved
    return run(*inputs)


def _autograd(form: _Form, keys: Any, *inputs: Any) -> tuple[Tensor, ...]:
    """Run the forward operator with autograd.

    Unlike torch.library.register_autograd, it does not look up the schema's defaults, of which there are none, in every
    call: that takes the host longer than all checks of the arguments.
    """
    if forward_ad._current_level >= 0:
        _refuse_forward_mode(inputs)
    if torch._C._are_functorch_transforms_active() and torch.is_grad_enabled() and torch._C._any_requires_grad(*inputs):
        raise NotImplementedError(
            "FusedAIF's kernels have no derivative by torch.func (grad, vjp, vmap over a backward); "
            "use FusedAIF(backend='eager'), which has, or torch.autograd"
        )
    return _differentiated(form, partial(_below_autograd, form, keys), inputs)


def _below_autograd(form: _Form, keys: Any, *inputs: Any) -> tuple[Tensor, ...]:
    with torch._C._AutoDispatchBelowAutograd():
        outputs: tuple[Tensor, ...] = form.forward.redispatch(keys & torch._C._after_autograd_keyset, *inputs)
    return outputs


def _register(form: _Form) -> None:
    """Define the two operators of an input form: schema, implementation, fake, autograd and FLOP count."""
    forward, backward = form.name, f"{form.name}_backward"
    inputs, saved = ", ".join(_INPUTS), ", ".join(_SAVED)
    settings = ", ".join(form.settings)
    outputs, gradients = (", ".join(["Tensor"] * len(names)) for names in (_SAVED, _GRADIENTS))
    library.define(f"{forward}({', '.join((*_INPUTS, *form.settings, *form.forward_settings))}) -> ({outputs})")
    library.define(f"{backward}(Tensor dz, {inputs}, {saved}, {settings}, bool needs_dx) -> ({gradients})")
    for device in ("CPU", "CUDA"):
        library.impl(forward, partial(_forward, form), device)
        library.impl(backward, partial(_backward, form), device)
    torch.library.register_fake(f"{NAMESPACE}::{forward}", partial(_forward_fake, form), lib=library)
    torch.library.register_fake(f"{NAMESPACE}::{backward}", partial(_backward_fake, form), lib=library)
    library.impl(forward, partial(_autograd, form), "Autograd", with_keyset=True)
    torch.library.register_autograd(f"{NAMESPACE}::{backward}", _refuse_double_backward, lib=library)
    register_flop_counts(getattr(ops, forward), getattr(ops, backward), token=form is _TOKEN)


_register(_FULL)
_register(_TOKEN)


def _fused(form: _Form, *inputs: Any) -> Tensor:
    """Return z; arguments are those of the forward operator, which is bypassed if `_can_skip_dispatcher`."""
    if _can_skip_dispatcher(inputs[: len(_INPUTS)]):
        return _differentiated(form, partial(_forward, form), inputs)[0]
    z: Tensor = form.forward(*inputs)[0]
    return z


aif, aif_token = partial(_fused, _FULL), partial(_fused, _TOKEN)
