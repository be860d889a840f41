"""Backward, for k > 1: each program's part of the weight gradient of the local squeeze."""

import triton
import triton.language as tl

from .arithmetic import add_part, dot, round_to
from .chunks import load_squeezed
from .rows import STRIDES, dealt, inside_dim, load_integrated, locate_real_tokens, real_tokens, tile_rows


@triton.jit(do_not_specialize=STRIDES + ["batch", "length", "first_slot", "end_slot", "rotation"])
def tap_grads_kernel(
    x_ptr,
    y_ptr,
    mask_ptr,
    cu_seqlens_ptr,
    squeezed_gradient_ptr,
    squeeze_parts_ptr,
    x_batch_stride,
    x_row_stride,
    y_batch_stride,
    y_row_stride,
    batch,
    length,
    first_slot,
    end_slot,
    rotation,
    EMBED_DIM: tl.constexpr,
    SQUEEZE_DIM: tl.constexpr,
    KERNEL_SIZE: tl.constexpr,
    ADD: tl.constexpr,
    HAS_LOWER: tl.constexpr,
    HAS_MASK: tl.constexpr,
    PACKED: tl.constexpr,
    ALIGN: tl.constexpr,
    TARGET: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """Compute dW_ls[:, :, j] = sum_bt da_bt w_b,t+j-(k-1)/2^T for k > 1: one program's registers cannot hold all taps.

    Grid (cdiv(E, BLOCK_E) * cdiv(H, BLOCK_H), splits, k).
    reads   x, y (B, T, E): once per tap and block of H; squeezed_gradient (rows, H): once per tap and block of E
            mask, cu_seqlens: once per tile, tap, block of E and block of H, the mask twice
    writes  squeeze_parts (splits, k, H, E) float32: once; groups after the first ADD to it
    """
    blocks_e: tl.constexpr = (EMBED_DIM + BLOCK_E - 1) // BLOCK_E
    e = (tl.program_id(0) % blocks_e) * BLOCK_E + tl.arange(0, BLOCK_E)
    h = (tl.program_id(0) // blocks_e) * BLOCK_H + tl.arange(0, BLOCK_H)
    tap = tl.program_id(2)
    inside_e = inside_dim(e, EMBED_DIM, BLOCK_E)
    inside_h = inside_dim(h, SQUEEZE_DIM, BLOCK_H)
    t = tl.arange(0, BLOCK_T)
    output_t = t - (tap - (KERNEL_SIZE - 1) // 2)
    product_dtype: tl.constexpr = squeezed_gradient_ptr.dtype.element_ty
    part = tl.zeros((BLOCK_H, BLOCK_E), dtype=tl.float32)
    slots, splits = end_slot - first_slot, tl.num_programs(1)
    for turn in range(0, tl.cdiv(slots, splits)):
        place = dealt(turn, splits, rotation)
        _, real, sequence, start, rows, first_row = locate_real_tokens(
            first_slot + tl.minimum(place, slots - 1), place < slots, mask_ptr, cu_seqlens_ptr, batch, length, HAS_MASK,
            PACKED, BLOCK_T,
        )  # fmt: skip
        if tl.sum(real.to(tl.int32), axis=0) > 0:
            x_tile, x_rows = tile_rows(
                x_ptr, sequence, start, first_row, t, x_batch_stride, x_row_stride, PACKED, ALIGN
            )
            y_tile, y_rows = tile_rows(
                y_ptr, sequence, start, first_row, t, y_batch_stride, y_row_stride, PACKED, ALIGN
            )
            w = load_integrated(
                x_tile, y_tile, x_rows[:, None] + e[None, :], y_rows[:, None] + e[None, :],
                real[:, None] & inside_e[None, :], HAS_LOWER,
            )  # fmt: skip
            gradient_tile = squeezed_gradient_ptr + (first_row + start) * SQUEEZE_DIM
            output_real = real_tokens(mask_ptr, sequence, start + output_t, rows, length, HAS_MASK)
            da = load_squeezed(gradient_tile, output_t, output_real, h, inside_h, SQUEEZE_DIM)
            part = dot(tl.trans(da), round_to(w, product_dtype, TARGET), part, TARGET)
    row = (tl.program_id(1).to(tl.int64) * KERNEL_SIZE + tap) * SQUEEZE_DIM + h
    inside = inside_h[:, None] & inside_e[None, :]
    add_part(squeeze_parts_ptr + row[:, None] * EMBED_DIM + e[None, :], part, inside, ADD)
