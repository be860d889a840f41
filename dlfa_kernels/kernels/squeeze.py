"""Forward, first stage: the local squeeze of every token, and the sums that the pooling needs."""

import triton
import triton.language as tl

from .arithmetic import dot, round_to
from .rows import load_integrated, locate_tile, real_tokens, state_offsets


@triton.jit(do_not_specialize=["batch", "length"])
def squeeze_kernel(
    x_ptr,
    y_ptr,
    mask_ptr,
    cu_seqlens_ptr,
    weight_ptr,
    bias_ptr,
    squeezed_ptr,
    sums_ptr,
    counts_ptr,
    x_batch_stride,
    x_row_stride,
    y_batch_stride,
    y_row_stride,
    batch,
    length,
    EMBED_DIM: tl.constexpr,
    SQUEEZE_DIM: tl.constexpr,
    KERNEL_SIZE: tl.constexpr,
    HAS_LOWER: tl.constexpr,
    HAS_MASK: tl.constexpr,
    PACKED: tl.constexpr,
    ALIGN: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """a_bt = sum_j W_ls[:, :, j] w_b,t+j-(k-1)/2 + b_ls, and the sum of w over each tile's real tokens.

    Grid (slots, cdiv(H, BLOCK_H)). With one block of H, at k = 1:
    reads   x, y (B, T, E): once; at k > 1 each of the k taps reads its shifted rows again, from cache
            mask (B, T), cu_seqlens (B+1,): once a tile
            weight (k, H, E), bias (H,): once a tile
    writes  squeezed (rows, H), before the activation, in x's dtype: once; 0 at padding
            sums (slots, E) float32, counts (slots,) int32: once; sums only where the count is not 0
    """
    sequence, start, rows, first_row = locate_tile(tl.program_id(0), cu_seqlens_ptr, batch, length, BLOCK_T, PACKED)
    slot = tl.program_id(0).to(tl.int64)
    block_h = tl.program_id(1)
    positions = start + tl.arange(0, BLOCK_T)
    real = real_tokens(mask_ptr, sequence, positions, rows, length, HAS_MASK)
    count = tl.sum(real.to(tl.int32), axis=0)
    if block_h == 0:
        tl.store(counts_ptr + slot, count)
    h = block_h * BLOCK_H + tl.arange(0, BLOCK_H)
    state_dtype: tl.constexpr = x_ptr.dtype.element_ty
    a = tl.zeros((BLOCK_T, BLOCK_H), dtype=tl.float32)
    if count > 0:
        for block_e in range(0, EMBED_DIM, BLOCK_E):
            e = block_e + tl.arange(0, BLOCK_E)
            for tap in tl.static_range(KERNEL_SIZE):
                neighbours = positions + (tap - (KERNEL_SIZE - 1) // 2)
                if KERNEL_SIZE == 1:
                    seen = real
                else:
                    seen = real_tokens(mask_ptr, sequence, neighbours, rows, length, HAS_MASK)
                x_rows = state_offsets(sequence, neighbours, first_row, x_batch_stride, x_row_stride, PACKED, ALIGN)
                y_rows = state_offsets(sequence, neighbours, first_row, y_batch_stride, y_row_stride, PACKED, ALIGN)
                w = load_integrated(
                    x_ptr, y_ptr, x_rows[:, None] + e[None, :], y_rows[:, None] + e[None, :],
                    seen[:, None] & (e < EMBED_DIM)[None, :], HAS_LOWER,
                )  # fmt: skip
                if tap == (KERNEL_SIZE - 1) // 2:
                    if block_h == 0:
                        tl.store(sums_ptr + slot * EMBED_DIM + e, tl.sum(w, axis=0), mask=e < EMBED_DIM)
                weight = tl.load(
                    weight_ptr + (tap * SQUEEZE_DIM + h[None, :]) * EMBED_DIM + e[:, None],
                    mask=(h < SQUEEZE_DIM)[None, :] & (e < EMBED_DIM)[:, None],
                    other=0.0,
                )
                w = round_to(w, state_dtype, INTERPRETED)
                weight = round_to(weight, state_dtype, INTERPRETED)
                a = dot(w, weight, a, PRECISION, INTERPRETED)
        a += tl.load(bias_ptr + h, mask=h < SQUEEZE_DIM, other=0.0).to(tl.float32)[None, :]
        a = tl.where(real[:, None], a, 0.0)
    squeezed_rows = (first_row + positions) * SQUEEZE_DIM
    tl.store(
        squeezed_ptr + squeezed_rows[:, None] + h[None, :],
        round_to(a, state_dtype, INTERPRETED),
        mask=(positions < rows)[:, None] & (h < SQUEEZE_DIM)[None, :],
    )
