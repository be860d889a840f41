"""Forward, last stage: expand, gate and fuse."""

import triton
import triton.language as tl

from .arithmetic import round_to
from .gate import gate_bias, load_u_chunks, local_expand
from .rows import load_float32, locate_tile, real_tokens, state_offsets


@triton.jit(do_not_specialize=["batch", "length", "first_slot"])
def expand_kernel(
    x_ptr,
    y_ptr,
    mask_ptr,
    cu_seqlens_ptr,
    squeezed_ptr,
    weight_ptr,
    bias_ptr,
    context_ptr,
    z_ptr,
    x_batch_stride,
    x_row_stride,
    y_batch_stride,
    y_row_stride,
    batch,
    length,
    first_slot,
    EMBED_DIM: tl.constexpr,
    SQUEEZE_DIM: tl.constexpr,
    SELECT: tl.constexpr,
    ACTIVATION: tl.constexpr,
    HAS_LOWER: tl.constexpr,
    HAS_MASK: tl.constexpr,
    PACKED: tl.constexpr,
    ALIGN: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """m = sigmoid(W_le phi(a) + b_le + g_b); z = m w, or m x + (1 - m) y with SELECT; z = 0 at padding.

    Grid (slots of a group, splits of E). The slots run backwards, so that the rows which the squeeze saw last, and
    which L2 still holds, come first.
    reads   x, y (B, T, E): once; a tile without a real token is not read
            squeezed (rows, H): once a split; mask, cu_seqlens: once a tile
            weight (E, H), bias (E,), context (B, E) float32: once a tile
    writes  z (B, T, E) contiguous: once
    """
    slot = first_slot + tl.num_programs(0) - 1 - tl.program_id(0)
    sequence, start, rows, first_row = locate_tile(slot, cu_seqlens_ptr, batch, length, BLOCK_T, PACKED)
    positions = start + tl.arange(0, BLOCK_T)
    real = real_tokens(mask_ptr, sequence, positions, rows, length, HAS_MASK)
    inside_rows = positions < rows
    z_rows = first_row + positions
    blocks = tl.cdiv(EMBED_DIM, BLOCK_E)
    split = tl.cdiv(blocks, tl.num_programs(1)) * BLOCK_E
    begin = tl.program_id(1) * split
    end = tl.minimum(begin + split, EMBED_DIM)
    state_dtype: tl.constexpr = x_ptr.dtype.element_ty
    if tl.sum(real.to(tl.int32), axis=0) > 0:
        x_rows = state_offsets(sequence, positions, first_row, x_batch_stride, x_row_stride, PACKED, ALIGN)
        y_rows = state_offsets(sequence, positions, first_row, y_batch_stride, y_row_stride, PACKED, ALIGN)
        u = load_u_chunks(squeezed_ptr, z_rows, real, 0, SQUEEZE_DIM, ACTIVATION, INTERPRETED, CHUNKS, BLOCK_H)
        for block_e in range(begin, end, BLOCK_E):
            e = block_e + tl.arange(0, BLOCK_E)
            local = local_expand(
                u, squeezed_ptr, weight_ptr, z_rows, real, e, SQUEEZE_DIM, EMBED_DIM, ACTIVATION, PRECISION,
                INTERPRETED, False, BLOCK_T, BLOCK_E, BLOCK_H, CHUNKS,
            )  # fmt: skip
            m = tl.sigmoid(local + gate_bias(bias_ptr, context_ptr, sequence, e, EMBED_DIM)[None, :])
            inside = real[:, None] & (e < EMBED_DIM)[None, :]
            x = load_float32(x_ptr, x_rows[:, None] + e[None, :], inside)
            if HAS_LOWER:
                y = load_float32(y_ptr, y_rows[:, None] + e[None, :], inside)
                if SELECT:
                    z = m * x + (1 - m) * y
                else:
                    z = m * (x + y)
            else:
                z = m * x
            z = tl.where(inside, z, 0.0)
            written = inside_rows[:, None] & (e < EMBED_DIM)[None, :]
            tl.store(
                z_ptr + z_rows[:, None] * EMBED_DIM + e[None, :], round_to(z, state_dtype, INTERPRETED), mask=written
            )
    else:
        nothing = tl.zeros((BLOCK_T, BLOCK_E), dtype=state_dtype)
        for block_e in range(begin, end, BLOCK_E):
            e = block_e + tl.arange(0, BLOCK_E)
            written = inside_rows[:, None] & (e < EMBED_DIM)[None, :]
            tl.store(z_ptr + z_rows[:, None] * EMBED_DIM + e[None, :], nothing, mask=written)
