"""The gate of a block of tokens and channels, recomputed wherever it is needed and never stored.

The squeeze width H is held in `CHUNKS` blocks of BLOCK_H, a tuple of blocks: products stay small, and H need not be a
power of two to waste no arithmetic. Where H is wider than one program holds, it is read chunk by chunk instead.
"""

import triton
import triton.language as tl

from .arithmetic import activate, dot, round_to
from .rows import load_float32


@triton.jit
def zero_chunks(CHUNKS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A tuple of CHUNKS zero blocks (ROWS, COLUMNS), float32."""
    chunks = ()
    for _ in tl.static_range(CHUNKS):
        chunks = chunks + (tl.zeros((ROWS, COLUMNS), dtype=tl.float32),)
    return chunks


@triton.jit
def load_squeezed(squeezed_ptr, rows, real, h, SQUEEZE_DIM: tl.constexpr):
    """The squeeze before its activation, float32 (BLOCK_T, BLOCK_H); zero at padding."""
    inside = real[:, None] & (h < SQUEEZE_DIM)[None, :]
    return load_float32(squeezed_ptr, rows[:, None] * SQUEEZE_DIM + h[None, :], inside)


@triton.jit
def load_u(squeezed_ptr, rows, real, h, SQUEEZE_DIM: tl.constexpr, ACTIVATION: tl.constexpr, INTERPRETED: tl.constexpr):
    """u = phi(a), (BLOCK_T, BLOCK_H) in the dtype of products, that of `squeezed`."""
    u = activate(load_squeezed(squeezed_ptr, rows, real, h, SQUEEZE_DIM), ACTIVATION)
    return round_to(u, squeezed_ptr.dtype.element_ty, INTERPRETED)


@triton.jit
def load_u_chunks(
    squeezed_ptr,
    rows,
    real,
    first_h,
    SQUEEZE_DIM: tl.constexpr,
    ACTIVATION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """u of the channels first_h .. first_h + CHUNKS BLOCK_H - 1, a tuple of (BLOCK_T, BLOCK_H) blocks."""
    chunks = ()
    for chunk in tl.static_range(CHUNKS):
        h = first_h + chunk * BLOCK_H + tl.arange(0, BLOCK_H)
        chunks = chunks + (load_u(squeezed_ptr, rows, real, h, SQUEEZE_DIM, ACTIVATION, INTERPRETED),)
    return chunks


@triton.jit
def load_expand_weight(
    weight_ptr, h, e, SQUEEZE_DIM: tl.constexpr, EMBED_DIM: tl.constexpr, dtype: tl.constexpr, INTERPRETED: tl.constexpr
):
    """W_le, an (BLOCK_E, BLOCK_H) block."""
    inside = (e < EMBED_DIM)[:, None] & (h < SQUEEZE_DIM)[None, :]
    weight = tl.load(weight_ptr + e[:, None] * SQUEEZE_DIM + h[None, :], mask=inside, other=0.0)
    return round_to(weight, dtype, INTERPRETED)


@triton.jit
def gate_bias(bias_ptr, context_ptr, sequence, e, EMBED_DIM: tl.constexpr):
    """b_le + g_b, float32 (BLOCK_E,): what the gate of every token of a sequence has in common."""
    bias = load_float32(bias_ptr, e, e < EMBED_DIM)
    return bias + load_float32(context_ptr, sequence * EMBED_DIM + e, e < EMBED_DIM)


@triton.jit
def local_expand(
    u_chunks,
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
    TRANSPOSED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """W_le u, float32 (BLOCK_T, BLOCK_E), or (BLOCK_E, BLOCK_T) if TRANSPOSED.

    From the caller's chunks where they are all of H, else from all of H read again.
    """
    dtype: tl.constexpr = squeezed_ptr.dtype.element_ty
    if TRANSPOSED:
        local = tl.zeros((BLOCK_E, BLOCK_T), dtype=tl.float32)
    else:
        local = tl.zeros((BLOCK_T, BLOCK_E), dtype=tl.float32)
    if SQUEEZE_DIM <= CHUNKS * BLOCK_H:
        for chunk in tl.static_range(CHUNKS):
            h = chunk * BLOCK_H + tl.arange(0, BLOCK_H)
            weight = load_expand_weight(weight_ptr, h, e, SQUEEZE_DIM, EMBED_DIM, dtype, INTERPRETED)
            local = expand_dot(u_chunks[chunk], weight, local, PRECISION, INTERPRETED, TRANSPOSED)
    else:
        for block_h in range(0, SQUEEZE_DIM, BLOCK_H):
            h = block_h + tl.arange(0, BLOCK_H)
            u = load_u(squeezed_ptr, rows, real, h, SQUEEZE_DIM, ACTIVATION, INTERPRETED)
            weight = load_expand_weight(weight_ptr, h, e, SQUEEZE_DIM, EMBED_DIM, dtype, INTERPRETED)
            local = expand_dot(u, weight, local, PRECISION, INTERPRETED, TRANSPOSED)
    return local


@triton.jit
def expand_dot(u, weight, local, PRECISION: tl.constexpr, INTERPRETED: tl.constexpr, TRANSPOSED: tl.constexpr):
    """local + u W_le^T, or local + W_le u^T if TRANSPOSED."""
    if TRANSPOSED:
        return dot(weight, tl.trans(u), local, PRECISION, INTERPRETED)
    else:
        return dot(u, tl.trans(weight), local, PRECISION, INTERPRETED)
