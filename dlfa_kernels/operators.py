"""PyTorch operators over the kernels, in the namespace `dlfa`: implementation, fake and autograd of each, once.

A copy of the package under another name, as Hugging Face's `kernels` loads it, has a namespace of that name instead.

    dlfa::aif        (last, lower?, eight weights, mask?, cu_seqlens?, fuse, activation, products) -> ForwardResult
    dlfa::aif_token  the same with `token` before `fuse` and without `products`
    dlfa::aif_backward, dlfa::aif_token_backward
                     (dz, the tensors above, the six outputs, the settings, needs_dx) -> (dx, dy, eight gradients)

Arguments are taken as checked; `fused_aif` is the public entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import full_passes, token_passes
from .backends import resolve_backend
from .checks import AIFWeights
from .results import BackwardResult, ForwardResult, empty_backward

_INPUTS = ("Tensor last", "Tensor? lower", *(f"Tensor {name}" for name in AIFWeights._fields),
           "Tensor? mask", "Tensor? cu_seqlens")  # fmt: skip
_SAVED = tuple(f"Tensor {name}" for name in ForwardResult._fields)
_WEIGHT_COUNT = len(AIFWeights._fields)

# A namespace can be defined once a process, and the installed package may be there beside a copy of it.
NAMESPACE = "dlfa" if __package__ == "dlfa_kernels" else str(__package__).replace(".", "_")
library = torch.library.Library(NAMESPACE, "DEF")
ops = getattr(torch.ops, NAMESPACE)


class _Passes(Protocol):
    """A module with the host side of one input form."""

    forward: Any
    backward: Any
    empty_forward: Any


def _split(inputs: Sequence[Any]) -> tuple[Tensor, Tensor | None, AIFWeights, Tensor | None, Tensor | None]:
    last, lower, *rest = inputs
    return last, lower, AIFWeights._make(rest[:_WEIGHT_COUNT]), rest[_WEIGHT_COUNT], rest[_WEIGHT_COUNT + 1]


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


def _register(name: str, settings: tuple[str, ...], passes: _Passes, forward_settings: tuple[str, ...] = ()) -> None:
    """Define the operators `name` and `name`_backward over the passes of one input form.

    The forward takes `forward_settings` after `settings`; they show in what it saves.
    """
    tensors = len(_INPUTS)
    fuse_setting = len(settings) - 2  # settings end with fuse, activation

    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        if arguments[0].device.type == "cpu":
            resolve_backend("triton", arguments[0])
        return tuple(passes.forward(*_split(arguments[:tensors]), *arguments[tensors:]))

    def forward_fake(*arguments: Any) -> tuple[Tensor, ...]:
        last, _, weights, _, cu_seqlens = _split(arguments[:tensors])
        return tuple(passes.empty_forward(last, weights, cu_seqlens, *arguments[tensors + len(settings) :]))

    def backward(dz: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        inputs, saved = arguments[:tensors], arguments[tensors : tensors + len(_SAVED)]
        earlier, others = ForwardResult._make(saved), arguments[tensors + len(_SAVED) :]
        result: BackwardResult = passes.backward(dz, *_split(inputs), earlier, *others)
        return result.tensors

    def backward_fake(dz: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        last, _, weights, _, _ = _split(arguments[:tensors])
        fuse, _, needs_dx = arguments[-3:]
        return empty_backward(last, weights, fuse, needs_dx).tensors

    class Differentiated(torch.autograd.Function):
        """The forward operator below autograd, and the backward operator as its derivative."""

        @staticmethod
        def forward(ctx: Any, keys: Any, *inputs: Any) -> tuple[Tensor, ...]:
            output = run_below_autograd(keys, inputs)
            ctx.settings = inputs[tensors : tensors + len(settings)]
            # z itself is not read by the backward: an empty tensor stands for it, so that z need not be kept.
            ctx.save_for_backward(*inputs[:tensors], output[0].new_empty(0), *output[1:])
            ctx.mark_non_differentiable(*output[1:])
            ctx.set_materialize_grads(False)
            return output

        @staticmethod
        def backward(ctx: Any, dz: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
            undifferentiated = (None,) * (2 + len(settings) + len(forward_settings))  # the 2 are mask and cu_seqlens
            if dz is None:
                return (None,) * (3 + _WEIGHT_COUNT) + undifferentiated
            _, *needs_states = ctx.needs_input_grad[:3]
            needs_dx = any(needs_states)
            saved = ctx.saved_tensors  # read once: activation checkpointing recomputes it at each reading
            # The operator's own autograd refuses a second derivative, and need be asked with create_graph=True only.
            # Compiled autograd does not trace what leaves it out.
            asked = torch.is_grad_enabled() or torch.compiler.is_compiling()
            below = nullcontext() if asked else torch._C._AutoDispatchBelowAutograd()
            with below:
                dx, dy, *weights = backward_operator(dz, *saved, *ctx.settings, needs_dx)
            if not needs_dx:
                dx = dy = None
            elif saved[1] is None:
                dy = None
            elif ctx.settings[fuse_setting] == "gate":
                dy = dx
            return None, dx, dy, *weights, *undifferentiated

    # As torch.library.register_autograd does it, without looking up the schema's defaults, of which there are none, at
    # every call: that takes the host longer than all checks of the arguments.
    def run_below_autograd(keys: Any, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
        with torch._C._AutoDispatchBelowAutograd():
            output: tuple[Tensor, ...] = operator.redispatch(keys & torch._C._after_autograd_keyset, *inputs)
        return output

    def autograd(keys: Any, *inputs: Any) -> tuple[Tensor, ...]:
        if forward_ad._current_level >= 0:
            _refuse_forward_mode(inputs)
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*inputs):
            if torch._C._are_functorch_transforms_active():
                raise NotImplementedError(
                    "FusedAIF's kernels have no derivative by torch.func (grad, vjp, vmap over a backward); "
                    "use FusedAIF(backend='eager'), which has, or torch.autograd"
                )
            outputs: tuple[Tensor, ...] = Differentiated.apply(keys, *inputs)
            return outputs
        return run_below_autograd(keys, inputs)

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


_register("aif", ("str fuse", "str activation"), full_passes, ("ScalarType products",))
_register("aif_token", ("int token", "str fuse", "str activation"), token_passes)
