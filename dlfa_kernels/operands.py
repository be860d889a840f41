"""The tensors of a call, as given and as the kernels read them: copied, cast or viewed where necessary."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .parameters import AIFWeights
from .rounding import cdiv
from .tiles import MAX_BLOCK_T

# Launches for packed sequences round rows up to a multiple of this, so that batches of similar size launch alike.
PACKED_ROWS = 128


def sequence_count(states: Tensor, cu_seqlens: Tensor | None) -> int:
    """Return B of states (B, T, E), or (N, E) with `cu_seqlens`."""
    return states.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1


def max_row_stride(kernel_size: int) -> int:
    """Return the largest row stride in elements: offsets within a tile and its taps' neighbours are 32 bits wide."""
    return ((1 << 31) - 1) // (MAX_BLOCK_T + kernel_size)


def _rows_in_reach(states: Tensor, kernel_size: int) -> Tensor:
    """Return the states, copied if channels are strided or the row stride is too large; other strides are allowed."""
    in_reach = states.stride(-1) == 1 and states.stride(-2) <= max_row_stride(kernel_size)
    return states if in_reach else states.contiguous()


def _of_products(weight: Tensor, product_dtype: torch.dtype | None) -> Tensor:
    """Return the weight, cast if wider than `product_dtype`: once here, because every program reads all of it."""
    if product_dtype is not None and weight.dtype.itemsize > product_dtype.itemsize:
        weight = weight.to(product_dtype)
    return weight.contiguous()


class Inputs(NamedTuple):
    """The checked tensor arguments of a pass, without the tensors that the forward saved."""

    last: Tensor  # (B, T, E), or (N, E) with cu_seqlens
    lower: Tensor | None  # as last
    dz: Tensor | None  # as last, or (B, E) in the token form; None in a forward pass
    mask: Tensor | None  # (B, T), bool or an integer dtype
    cu_seqlens: Tensor | None  # (B+1,) int32, packed form only
    weights: AIFWeights

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """All tensors, in the order of `Operands`."""
        return *self[:-1], *self.weights

    @property
    def packed(self) -> bool:
        """Whether the states are packed, (N, E)."""
        return self.cu_seqlens is not None

    @property
    def batch(self) -> int:
        """B, the number of sequences."""
        return sequence_count(self.last, self.cu_seqlens)

    @property
    def rows(self) -> int:
        """Rows that launches cover, real or not: B T, or N rounded up to a multiple of PACKED_ROWS."""
        rows = math.prod(self.last.shape[:-1])
        return cdiv(rows, PACKED_ROWS) * PACKED_ROWS if self.packed else rows


class Operands(NamedTuple):
    """The inputs as the kernels read them. All are contiguous except states, whose channels alone must be."""

    x: Tensor  # (B, T, E), or (N, E) packed
    y: Tensor | None  # as x
    dz: Tensor | None  # as x, or (B, E) in the token form; None in a forward pass
    mask: Tensor | None  # (B, T), an integer dtype
    cu_seqlens: Tensor | None  # (B+1,) int32, packed form only
    squeeze_weight: Tensor  # (k, H, E): one matrix per tap
    squeeze_bias: Tensor  # (H,)
    expand_weight: Tensor  # (E, H, 1)
    expand_bias: Tensor  # (E,)
    global_squeeze_weight: Tensor  # (H, E)
    global_squeeze_bias: Tensor  # (H,)
    global_expand_weight: Tensor  # (E, H)
    global_expand_bias: Tensor  # (E,)

    @classmethod
    def of(cls, inputs: Inputs, product_dtype: torch.dtype | None) -> Operands:
        """Return the operands of a call.

        Args:
            inputs: as given.
            product_dtype: the dtype of products over tokens; None keeps the dtype of the local weights.
        """
        last, lower, dz, mask, cu_seqlens, (squeeze, squeeze_bias, expand, *others) = inputs
        kernel_size = squeeze.shape[2]
        if mask is not None:
            mask = mask.contiguous()
            mask = mask.view(torch.uint8) if mask.dtype == torch.bool else mask
        return cls(
            _rows_in_reach(last, kernel_size),
            None if lower is None else _rows_in_reach(lower, kernel_size),
            None if dz is None else _rows_in_reach(dz, kernel_size),
            mask,
            None if cu_seqlens is None else cu_seqlens.contiguous(),
            _of_products(squeeze.permute(2, 0, 1), product_dtype),
            squeeze_bias.contiguous(),
            _of_products(expand, product_dtype),
            *(weight.contiguous() for weight in others),
        )
