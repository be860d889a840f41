"""Backward, first stage: what has to be summed over channels or tokens before any input gradient."""

import triton
import triton.language as tl

from .arithmetic import activation_slope, dot, round_to
from .gate import gate_bias, load_expand_weight, load_squeezed, load_u_chunks, local_expand, zero_chunks
from .rows import load_float32, locate_tile, real_tokens, state_offsets


@triton.jit
def gate_gradient(dz, m, x, y, SELECT: tl.constexpr, HAS_LOWER: tl.constexpr):
    """ds, the gradient before the sigmoid: dz w m (1-m), or dz (x-y) m (1-m) with SELECT."""
    ds = dz * m * (1 - m)
    if SELECT:
        return ds * (x - y)
    elif HAS_LOWER:
        return ds * (x + y)
    else:
        return ds * x


@triton.jit(do_not_specialize=["batch", "length", "first_slot"])
def reduce_kernel(
    dz_ptr,
    x_ptr,
    y_ptr,
    mask_ptr,
    cu_seqlens_ptr,
    squeezed_ptr,
    weight_ptr,
    bias_ptr,
    context_ptr,
    squeezed_gradient_ptr,
    bias_parts_ptr,
    sums_ptr,
    counts_ptr,
    dz_batch_stride,
    dz_row_stride,
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
    """da_bt = phi'(a_bt) * (W_le^T ds_bt), and each tile's sums of da (db_ls) and ds (dg_b once pooled).

    Grid (slots of a group, cdiv(H, CHUNKS BLOCK_H)). With all of H in one program:
    reads   dz, x, y (B, T, E): once
            squeezed (rows, H), mask, cu_seqlens, weight (E, H), bias (E,), context (B, E) float32: once a tile
    writes  squeezed_gradient (rows, H) in the dtype of squeezed: real rows only
            bias_parts (slots, H) float32: once
            sums (slots, E) float32, counts (slots,) int32: once; sums only where the count is not 0
    """
    slot = first_slot + tl.program_id(0)
    sequence, start, rows, first_row = locate_tile(slot, cu_seqlens_ptr, batch, length, BLOCK_T, PACKED)
    slot = slot.to(tl.int64)
    first_h = tl.program_id(1) * (CHUNKS * BLOCK_H)
    positions = start + tl.arange(0, BLOCK_T)
    real = real_tokens(mask_ptr, sequence, positions, rows, length, HAS_MASK)
    count = tl.sum(real.to(tl.int32), axis=0)
    if first_h == 0:
        tl.store(counts_ptr + slot, count)
    if count > 0:
        packed_rows = first_row + positions
        product_dtype: tl.constexpr = squeezed_ptr.dtype.element_ty
        dz_rows = state_offsets(sequence, positions, first_row, dz_batch_stride, dz_row_stride, PACKED, ALIGN)
        x_rows = state_offsets(sequence, positions, first_row, x_batch_stride, x_row_stride, PACKED, ALIGN)
        y_rows = state_offsets(sequence, positions, first_row, y_batch_stride, y_row_stride, PACKED, ALIGN)
        u = load_u_chunks(
            squeezed_ptr, packed_rows, real, first_h, SQUEEZE_DIM, ACTIVATION, INTERPRETED, CHUNKS, BLOCK_H
        )
        du = zero_chunks(CHUNKS, BLOCK_T, BLOCK_H)
        for block_e in range(0, EMBED_DIM, BLOCK_E):
            e = block_e + tl.arange(0, BLOCK_E)
            local = local_expand(
                u, squeezed_ptr, weight_ptr, packed_rows, real, e, SQUEEZE_DIM, EMBED_DIM, ACTIVATION, PRECISION,
                INTERPRETED, False, BLOCK_T, BLOCK_E, BLOCK_H, CHUNKS,
            )  # fmt: skip
            m = tl.sigmoid(local + gate_bias(bias_ptr, context_ptr, sequence, e, EMBED_DIM)[None, :])
            inside = real[:, None] & (e < EMBED_DIM)[None, :]
            dz = load_float32(dz_ptr, dz_rows[:, None] + e[None, :], inside)
            x = load_float32(x_ptr, x_rows[:, None] + e[None, :], inside)
            y = x
            if HAS_LOWER:
                y = load_float32(y_ptr, y_rows[:, None] + e[None, :], inside)
            ds = gate_gradient(dz, m, x, y, SELECT, HAS_LOWER)
            if first_h == 0:
                tl.store(sums_ptr + slot * EMBED_DIM + e, tl.sum(ds, axis=0), mask=e < EMBED_DIM)
            ds = round_to(ds, product_dtype, INTERPRETED)
            accumulated = ()
            for chunk in tl.static_range(CHUNKS):
                h = first_h + chunk * BLOCK_H + tl.arange(0, BLOCK_H)
                weight = load_expand_weight(weight_ptr, h, e, SQUEEZE_DIM, EMBED_DIM, product_dtype, INTERPRETED)
                accumulated = accumulated + (dot(ds, weight, du[chunk], PRECISION, INTERPRETED),)
            du = accumulated
        for chunk in tl.static_range(CHUNKS):
            h = first_h + chunk * BLOCK_H + tl.arange(0, BLOCK_H)
            slope = activation_slope(load_squeezed(squeezed_ptr, packed_rows, real, h, SQUEEZE_DIM), ACTIVATION)
            da = du[chunk] * slope
            tl.store(bias_parts_ptr + slot * SQUEEZE_DIM + h, tl.sum(da, axis=0), mask=h < SQUEEZE_DIM)
            tl.store(
                squeezed_gradient_ptr + packed_rows[:, None] * SQUEEZE_DIM + h[None, :],
                round_to(da, product_dtype, INTERPRETED),
                mask=real[:, None] & (h < SQUEEZE_DIM)[None, :],
            )
    else:
        for chunk in tl.static_range(CHUNKS):
            h = first_h + chunk * BLOCK_H + tl.arange(0, BLOCK_H)
            nothing = tl.zeros((BLOCK_H,), dtype=tl.float32)
            tl.store(bias_parts_ptr + slot * SQUEEZE_DIM + h, nothing, mask=h < SQUEEZE_DIM)
