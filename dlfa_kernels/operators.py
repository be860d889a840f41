"""PyTorch operators over the kernels, in the namespace `dlfa`: implementation, fake and autograd of each, once.

    dlfa::aif           (last, lower?, eight weights, mask?, cu_seqlens?, fuse, activation) -> ForwardResult
    dlfa::aif_backward  (dz, the same, the six outputs of dlfa::aif, fuse, activation) -> (dx, dy, eight gradients)

Arguments are taken as checked; `fused_aif` is the public entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import launch
from .backends import resolve_backend
from .checks import AIFWeights

_INPUTS = (
    "Tensor last, Tensor? lower, " + ", ".join(f"Tensor {name}" for name in AIFWeights._fields)
    + ", Tensor? mask, Tensor? cu_seqlens"
)  # fmt: skip
_SAVED = ", ".join(f"Tensor {name}" for name in launch.ForwardResult._fields)
_WEIGHT_COUNT = len(AIFWeights._fields)
_INPUT_COUNT = _WEIGHT_COUNT + 4

library = torch.library.Library("dlfa", "DEF")
library.define(
    f"aif({_INPUTS}, str fuse, str activation) -> ({', '.join(['Tensor'] * len(launch.ForwardResult._fields))})"
)
library.define(
    f"aif_backward(Tensor dz, {_INPUTS}, {_SAVED}, str fuse, str activation)"
    f" -> ({', '.join(['Tensor'] * (2 + _WEIGHT_COUNT))})"
)


def _split(inputs: Sequence[Any]) -> tuple[Tensor, Tensor | None, AIFWeights, Tensor | None, Tensor | None]:
    last, lower, *rest = inputs
    return last, lower, AIFWeights._make(rest[:_WEIGHT_COUNT]), rest[_WEIGHT_COUNT], rest[_WEIGHT_COUNT + 1]


def _aif(*arguments: Any) -> tuple[Tensor, ...]:
    *inputs, fuse, activation = arguments
    if inputs[0].device.type == "cpu":
        resolve_backend("triton", inputs[0])
    return tuple(launch.forward(*_split(inputs), fuse, activation))


def _aif_fake(*arguments: Any) -> tuple[Tensor, ...]:
    last, _, weights, _, cu_seqlens = _split(arguments[:_INPUT_COUNT])
    return tuple(launch.empty_forward(last, weights, cu_seqlens))


def _aif_backward(dz: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *tensors, fuse, activation = arguments
    saved = launch.ForwardResult._make(tensors[_INPUT_COUNT:])
    result = launch.backward(dz, *_split(tensors[:_INPUT_COUNT]), saved, fuse, activation)
    return result.dx, result.dy, *result.weights


def _aif_backward_fake(dz: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    last, _, weights, _, _ = _split(arguments[:_INPUT_COUNT])
    result = launch.empty_backward(last, weights, arguments[-2])
    return result.dx, result.dy, *result.weights


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.fuse, ctx.activation = inputs
    # z itself is not read by the backward: an empty tensor stands for it, so that z need not be kept.
    ctx.save_for_backward(*tensors, output[0].new_empty(0), *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dz: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    nothing = (None,) * 4  # mask, cu_seqlens, fuse, activation
    if dz is None:
        return (None,) * (2 + _WEIGHT_COUNT) + nothing
    gradients = torch.ops.dlfa.aif_backward(dz, *ctx.saved_tensors, ctx.fuse, ctx.activation)
    dx, dy, *weights = gradients
    has_lower = ctx.saved_tensors[1] is not None
    if not has_lower:
        dy = None
    elif ctx.fuse == "gate":
        dy = dx
    return dx, dy, *weights, *nothing


def _refuse_double_backward(ctx: Any, *gradients: Tensor | None) -> tuple[None, ...]:
    raise RuntimeError(
        "the backward of dlfa::aif cannot be differentiated again (double backward); use FusedAIF(backend='eager'), "
        "which can"
    )


for _device in ("CPU", "CUDA"):
    library.impl("aif", _aif, _device)
    library.impl("aif_backward", _aif_backward, _device)
torch.library.register_fake("dlfa::aif", _aif_fake, lib=library)
torch.library.register_fake("dlfa::aif_backward", _aif_backward_fake, lib=library)
torch.library.register_autograd("dlfa::aif", _differentiate, setup_context=_save, lib=library)
torch.library.register_autograd("dlfa::aif_backward", _refuse_double_backward, lib=library)
