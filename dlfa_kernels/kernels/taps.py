"""Backward, for kernel sizes over 1: each program's share of the weight gradients of the local squeeze."""

import triton
import triton.language as tl

from .arithmetic import add_part, dot, round_to
from .chunks import load_squeezed
from .rows import STRIDES, inside_dim, load_integrated, locate_tile, real_tokens, row_offsets, tile_pointer


@triton.jit(do_not_specialize=STRIDES + ["batch", "length", "first_slot", "end_slot"])
def taps_kernel(
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
    EMBED_DIM: tl.constexpr,
    SQUEEZE_DIM: tl.constexpr,
    KERNEL_SIZE: tl.constexpr,
    ADD: tl.constexpr,
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
    """dW_ls[:, :, j] = sum_bt da_bt w_b,t+j-(k-1)/2^T for k > 1, whose taps do not fit in one program's registers.

    Grid (cdiv(E, BLOCK_E) * cdiv(H, BLOCK_H), splits, k).
    reads   x, y (B, T, E): once a tap and block of H; squeezed_gradient (rows, H): once a tap and block of E
            mask: twice a tile, tap and block of both; cu_seqlens: once
    writes  squeeze_parts (splits, k, H, E) float32: once; groups after the first ADD to them
    """
    blocks_e: tl.constexpr = (EMBED_DIM + BLOCK_E - 1) // BLOCK_E
    e = (tl.program_id(0) % blocks_e) * BLOCK_E + tl.arange(0, BLOCK_E)
    h = (tl.program_id(0) // blocks_e) * BLOCK_H + tl.arange(0, BLOCK_H)
    tap = tl.program_id(2)
    inside_e = inside_dim(e, EMBED_DIM, BLOCK_E)
    inside_h = inside_dim(h, SQUEEZE_DIM, BLOCK_H)
    t = tl.arange(0, BLOCK_T)
    seer = t - (tap - (KERNEL_SIZE - 1) // 2)
    product_dtype: tl.constexpr = squeezed_gradient_ptr.dtype.element_ty
    part = tl.zeros((BLOCK_H, BLOCK_E), dtype=tl.float32)
    for slot in range(first_slot + tl.program_id(1), end_slot, tl.num_programs(1)):
        sequence, start, rows, first_row = locate_tile(slot, cu_seqlens_ptr, batch, length, BLOCK_T, PACKED)
        real = real_tokens(mask_ptr, sequence, start + t, rows, length, HAS_MASK)
        if tl.sum(real.to(tl.int32), axis=0) > 0:
            x_tile = tile_pointer(x_ptr, sequence, start, first_row, x_batch_stride, x_row_stride, PACKED, ALIGN)
            y_tile = tile_pointer(y_ptr, sequence, start, first_row, y_batch_stride, y_row_stride, PACKED, ALIGN)
            x_rows = row_offsets(t, x_row_stride, ALIGN)
            y_rows = row_offsets(t, y_row_stride, ALIGN)
            w = load_integrated(
                x_tile, y_tile, x_rows[:, None] + e[None, :], y_rows[:, None] + e[None, :],
                real[:, None] & inside_e[None, :], HAS_LOWER,
            )  # fmt: skip
            gradient_tile = squeezed_gradient_ptr + (first_row + start) * SQUEEZE_DIM
            seeing = real_tokens(mask_ptr, sequence, start + seer, rows, length, HAS_MASK)
            da = load_squeezed(gradient_tile, seer, seeing, h, inside_h, SQUEEZE_DIM)
            part = dot(tl.trans(da), round_to(w, product_dtype, INTERPRETED), part, PRECISION, INTERPRETED)
    row = (tl.program_id(1).to(tl.int64) * KERNEL_SIZE + tap) * SQUEEZE_DIM + h
    inside = inside_h[:, None] & inside_e[None, :]
    add_part(squeeze_parts_ptr + row[:, None] * EMBED_DIM + e[None, :], part, inside, ADD)
