"""PyTorch operators over the kernels, in the namespace `dlfa`: implementation, fake and autograd of each, once.

A copy of the package under another name, as Hugging Face's `kernels` loads it, has a namespace of that name instead.

    dlfa::aif        (last, lower?, eight weights, mask?, cu_seqlens?, fuse, activation, product_dtype) -> ForwardResult
    dlfa::aif_token  the same with `token` before `fuse` and without `product_dtype`
    dlfa::aif_backward, dlfa::aif_token_backward
                     (dz, the tensors above, the six outputs, the settings, needs_dx) -> (dx, dy, eight gradients)

Arguments are taken as checked; `fused_aif` is the public entry. It calls `aif` and `aif_token` of this module, which go
through the registered operator only where a mode, transform, tracer or profiler has to see it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import passes
from .backends import resolve_backend
from .call import Settings
from .flop_counts import register_flop_counts
from .operands import Inputs
from .parameters import AIFWeights
from .results import ForwardResult, empty_backward

_INPUTS = ("Tensor last", "Tensor? lower", *(f"Tensor {name}" for name in AIFWeights._fields),
           "Tensor? mask", "Tensor? cu_seqlens")  # fmt: skip
_SAVED = tuple(f"Tensor {name}" for name in ForwardResult._fields)
_WEIGHT_COUNT = len(AIFWeights._fields)

# A namespace can be defined once a process, and the installed package may be there beside a copy of it.
NAMESPACE = "dlfa" if __package__ == "dlfa_kernels" else str(__package__).replace(".", "_")
library = torch.library.Library(NAMESPACE, "DEF")
ops = getattr(torch.ops, NAMESPACE)


def _inputs_of(arguments: Sequence[Any], dz: Tensor | None = None) -> Inputs:
    """What an operator's arguments begin with, but for dz."""
    last, lower, *rest = arguments[: len(_INPUTS)]
    *weights, mask, cu_seqlens = rest
    return Inputs(last, lower, dz, mask, cu_seqlens, AIFWeights._make(weights))


def _settings_of_forward(last: Tensor, fuse: str, activation: str, product_dtype: torch.dtype) -> Settings:
    return Settings(fuse, activation, product_dtype)


def _settings_of_backward(last: Tensor, saved: ForwardResult, fuse: str, activation: str, needs_dx: bool) -> Settings:
    return Settings(fuse, activation, saved.squeezed.dtype, needs_dx=needs_dx)


def _settings_of_token_forward(last: Tensor, token: int, fuse: str, activation: str) -> Settings:
    return Settings(fuse, activation, last.dtype, token)


def _settings_of_token_backward(
    last: Tensor, saved: ForwardResult, token: int, fuse: str, activation: str, needs_dx: bool
) -> Settings:
    return Settings(fuse, activation, last.dtype, token, needs_dx)


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
# What a thread adds to every call's dispatch keys where no mode, transform or tracer is at work.
_USUAL_KEYS = torch._C.DispatchKeySet(torch._C.DispatchKey.BackendSelect) | torch._C.DispatchKeySet(
    torch._C.DispatchKey.ADInplaceOrView
)


def _can_skip_dispatcher(tensors: Sequence[Tensor | None]) -> bool:
    """Whether an operator called on these tensors comes to its implementation with nothing before it but autograd.

    Dispatch modes, transforms, tracers, the profiler and subclasses of tensors are to see the operator, and the
    dispatcher first makes lazily negated and zero tensors real. Without any of these, calling the implementation itself
    saves the host the dispatch: a seventh of a training step on a small batch.
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


def _register(
    name: str,
    settings: tuple[str, ...],
    forward_settings: tuple[str, ...],
    of_forward: Callable[..., Settings],
    of_backward: Callable[..., Settings],
) -> Callable[..., Tensor]:
    """Define the operators `name` and `name`_backward over the passes of one input form.

    The forward takes `forward_settings` after `settings`; they show in what it saves.

    Returns:
        A function of the forward operator's arguments, which returns its z; by the operator unless
        `_can_skip_dispatcher`.
    """
    tensors = len(_INPUTS)
    fuse_setting = len(settings) - 2  # settings end with fuse, activation

    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        inputs = _inputs_of(arguments)
        if inputs.last.device.type == "cpu":
            resolve_backend("triton", inputs.last)
        return passes.forward(inputs, of_forward(inputs.last, *arguments[tensors:])).tensors

    def forward_fake(*arguments: Any) -> tuple[Tensor, ...]:
        inputs = _inputs_of(arguments)
        return passes.empty_forward(inputs, of_forward(inputs.last, *arguments[tensors:])).tensors

    def backward(dz: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        inputs, saved = _inputs_of(arguments, dz), ForwardResult._make(arguments[tensors : tensors + len(_SAVED)])
        others = of_backward(inputs.last, saved, *arguments[tensors + len(_SAVED) :])
        return passes.backward(inputs, others, saved).tensors

    def backward_fake(dz: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        inputs, saved = _inputs_of(arguments, dz), ForwardResult._make(arguments[tensors : tensors + len(_SAVED)])
        return empty_backward(inputs, of_backward(inputs.last, saved, *arguments[tensors + len(_SAVED) :])).tensors

    class Differentiated(torch.autograd.Function):
        """The forward below autograd, and the backward operator, or what implements it, as its derivative."""

        @staticmethod
        def forward(ctx: Any, run: Callable[..., tuple[Tensor, ...]], saved: list[Tensor], *inputs: Any) -> Tensor:
            z, *others = run(*inputs)
            saved += others
            ctx.settings = inputs[tensors : tensors + len(settings)]
            # Made under torch.inference_mode, as by a frozen encoder, a tensor cannot be saved itself.
            given = [
                value.clone() if value is not None and value.is_inference() else value for value in inputs[:tensors]
            ]
            # z itself is not read by the backward: an empty tensor stands for it, so that z need not be kept.
            ctx.save_for_backward(*given, z.new_empty(0), *others)
            ctx.set_materialize_grads(False)
            return z

        @staticmethod
        def backward(ctx: Any, dz: Tensor | None) -> tuple[Tensor | None, ...]:
            undifferentiated = (None,) * (2 + len(settings) + len(forward_settings))  # the 2 are mask and cu_seqlens
            if dz is None:
                return (None,) * (4 + _WEIGHT_COUNT) + undifferentiated
            needs_dx = any(ctx.needs_input_grad[2:4])
            values = (dz, *ctx.saved_tensors)  # read once: activation checkpointing recomputes it at each reading
            # With create_graph=True the operator's own autograd refuses a second derivative.
            direct = not torch.is_grad_enabled() and _can_skip_dispatcher(values)
            dx, dy, *weights = (backward if direct else backward_operator)(*values, *ctx.settings, needs_dx)
            if not needs_dx:
                dx = dy = None
            elif values[2] is None:
                dy = None
            elif ctx.settings[fuse_setting] == "gate":
                dy = dx
            return None, None, dx, dy, *weights, *undifferentiated

    def differentiated(run: Callable[..., tuple[Tensor, ...]], inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*inputs):
            saved: list[Tensor] = []  # what is no function of the inputs to autograd
            z = Differentiated.apply(run, saved, *inputs)
            return z, *saved
        return run(*inputs)

    # As torch.library.register_autograd does it, without looking up the schema's defaults, of which there are none, at
    # every call: that takes the host longer than all checks of the arguments.
    def autograd(keys: Any, *inputs: Any) -> tuple[Tensor, ...]:
        if forward_ad._current_level >= 0:
            _refuse_forward_mode(inputs)
        if (
            torch._C._are_functorch_transforms_active()
            and torch.is_grad_enabled()
            and torch._C._any_requires_grad(*inputs)
        ):
            raise NotImplementedError(
                "FusedAIF's kernels have no derivative by torch.func (grad, vjp, vmap over a backward); "
                "use FusedAIF(backend='eager'), which has, or torch.autograd"
            )

        def below(*inputs: Any) -> tuple[Tensor, ...]:
            with torch._C._AutoDispatchBelowAutograd():
                output: tuple[Tensor, ...] = operator.redispatch(keys & torch._C._after_autograd_keyset, *inputs)
            return output

        return differentiated(below, inputs)

    def call(*inputs: Any) -> Tensor:
        if _can_skip_dispatcher(inputs[:tensors]):
            return differentiated(forward, inputs)[0]
        return operator(*inputs)[0]

    inputs, outputs = ", ".join(_INPUTS), ", ".join(["Tensor"] * len(_SAVED))
    library.define(f"{name}({inputs}, {', '.join(settings + forward_settings)}) -> ({outputs})")
    library.define(
        f"{name}_backward(Tensor dz, {inputs}, {', '.join(_SAVED)}, {', '.join(settings)}, bool needs_dx)"
        f" -> ({', '.join(['Tensor'] * (2 + _WEIGHT_COUNT))})"
    )
    operator, backward_operator = getattr(ops, name).default, getattr(ops, f"{name}_backward").default
    for device in ("CPU", "CUDA"):
        library.impl(name, forward, device)
        library.impl(f"{name}_backward", backward, device)
    torch.library.register_fake(f"{NAMESPACE}::{name}", forward_fake, lib=library)
    torch.library.register_fake(f"{NAMESPACE}::{name}_backward", backward_fake, lib=library)
    library.impl(name, autograd, "Autograd", with_keyset=True)
    torch.library.register_autograd(f"{NAMESPACE}::{name}_backward", _refuse_double_backward, lib=library)
    register_flop_counts(getattr(ops, name), getattr(ops, f"{name}_backward"), token="SymInt token" in settings)
    return call


aif = _register(
    "aif", ("str fuse", "str activation"), ("ScalarType product_dtype",), _settings_of_forward, _settings_of_backward
)
aif_token = _register(
    "aif_token",
    ("SymInt token", "str fuse", "str activation"),
    (),
    _settings_of_token_forward,
    _settings_of_token_backward,
)
