"""The gate of a block of tokens and channels, recomputed wherever it is needed and never stored."""

import triton
import triton.language as tl

from .arithmetic import activate, dot, round_to
from .rows import load_float32


@triton.jit
def load_squeezed(squeezed_ptr, rows, real, h, SQUEEZE_DIM: tl.constexpr):
    """The squeeze before its activation, float32 (BLOCK_T, BLOCK_H); zero at padding, whose rows are never written."""
    inside = real[:, None] & (h < SQUEEZE_DIM)[None, :]
    return load_float32(squeezed_ptr, rows[:, None] * SQUEEZE_DIM + h[None, :], inside)


@triton.jit
def load_expand_weight(
    weight_ptr, h, e, SQUEEZE_DIM: tl.constexpr, EMBED_DIM: tl.constexpr, dtype: tl.constexpr, INTERPRETED: tl.constexpr
):
    """W_le^T, a (BLOCK_H, BLOCK_E) block."""
    inside = (h < SQUEEZE_DIM)[:, None] & (e < EMBED_DIM)[None, :]
    weight = tl.load(weight_ptr + e[None, :] * SQUEEZE_DIM + h[:, None], mask=inside, other=0.0)
    return round_to(weight, dtype, INTERPRETED)


@triton.jit
def gate_bias(bias_ptr, context_ptr, sequence, e, EMBED_DIM: tl.constexpr):
    """b_le + g_b, float32 (BLOCK_E,): what the gate of every token of a sequence has in common."""
    bias = load_float32(bias_ptr, e, e < EMBED_DIM)
    return bias + load_float32(context_ptr, sequence * EMBED_DIM + e, e < EMBED_DIM)


@triton.jit
def local_expand(
    u,
    squeezed_ptr,
    weight_ptr,
    rows,
    real,
    e,
    SQUEEZE_DIM: tl.constexpr,
    EMBED_DIM: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """W_le u, float32 (BLOCK_T, BLOCK_E). u is the caller's where H fits in one block, else it is read again."""
    dtype: tl.constexpr = squeezed_ptr.dtype.element_ty
    local = tl.zeros((BLOCK_T, BLOCK_E), dtype=tl.float32)
    if SQUEEZE_DIM <= BLOCK_H:
        weight = load_expand_weight(weight_ptr, tl.arange(0, BLOCK_H), e, SQUEEZE_DIM, EMBED_DIM, dtype, INTERPRETED)
        return dot(u, weight, local, PRECISION, INTERPRETED)
    else:
        for block_h in range(0, SQUEEZE_DIM, BLOCK_H):
            h = block_h + tl.arange(0, BLOCK_H)
            part = activate(load_squeezed(squeezed_ptr, rows, real, h, SQUEEZE_DIM), ACTIVATION)
            part = round_to(part, dtype, INTERPRETED)
            weight = load_expand_weight(weight_ptr, h, e, SQUEEZE_DIM, EMBED_DIM, dtype, INTERPRETED)
            local = dot(part, weight, local, PRECISION, INTERPRETED)
        return local
