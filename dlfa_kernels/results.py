"""The results of a forward and a backward pass."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .operands import Inputs
from .parameters import AIFWeights
from .settings import Settings


class ForwardResult(NamedTuple):
    """z, and the tensors that the backward needs besides the inputs; float32 unless stated otherwise."""

    z: Tensor  # as last
    squeezed: Tensor  # (rows, H) in the dtype of products: u with relu, else a; token form: a, (B, H) float32
    hidden: Tensor  # (B, H), the global squeeze before its activation
    pooled: Tensor  # (B, E), p
    context: Tensor  # (B, E), g + b_le
    tokens: Tensor  # (B,) int32, |V_b|

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All six tensors, in the order of the forward operators' outputs."""
        return tuple(self)


class BackwardResult(NamedTuple):
    """The gradients of a pass."""

    dx: Tensor  # as last, (B, T, E) or (N, E); empty if not needed
    dy: Tensor  # as dx; empty without select: dx then serves both inputs, or there is only one
    weights: AIFWeights  # each in its parameter's shape and dtype

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All ten tensors, in the order of the backward operators' outputs."""
        return self.dx, self.dy, *self.weights


def empty_backward(inputs: Inputs, settings: Settings) -> BackwardResult:
    """Return uninitialised results of a backward pass, for any input form; tracing uses their shapes."""
    last = inputs.last
    dx = torch.empty_like(last, memory_format=torch.contiguous_format) if settings.needs_dx else last.new_empty(0)
    return BackwardResult(
        dx=dx,
        dy=torch.empty_like(dx) if settings.fuse == "select" else dx.new_empty(0),
        weights=AIFWeights._make(torch.empty_like(w, memory_format=torch.contiguous_format) for w in inputs.weights),
    )
