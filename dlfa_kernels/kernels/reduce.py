"""Backward, first stage: the sums over channels and tokens that the input gradients need."""

import triton
import triton.language as tl

from .arithmetic import activate, activation_slope, dot, round_to, store_column_sums
from .chunks import (
    chunk_channels,
    held_expand,
    load_expand_weights,
    load_squeezed,
    load_u_chunks,
    read_expand,
    transposed,
    zero_chunks,
)
from .gate import gate_gradient, sigmoid
from .rows import STRIDES, inside_dim, load_wide, locate_real_tokens, tile_rows


@triton.jit(do_not_specialize=STRIDES + ["batch", "length", "first_slot"])
def reduce_kernel(
    dz_ptr,
    x_ptr,
    y_ptr,
    mask_ptr,
    cu_seqlens_ptr,
    squeezed_ptr,
    weight_ptr,
    context_ptr,
    u_ptr,
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
    TARGET: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """Compute da_bt = phi'(a_bt) * (W_le^T ds_bt), and each tile's sums of da (db_ls) and ds (dg_b once pooled).

    Grid (slots of a group, cdiv(H, CHUNKS BLOCK_H)). With all of H in one program:
    reads   dz, x, y (B, T, E): once
            squeezed (rows, H): twice, for the gate and for the slope of the activation
            mask, cu_seqlens, weight (E, H), context (B, E) float32: once per tile
    writes  squeezed_gradient (rows, H) in the dtype of squeezed: real rows only
            u (rows, H), same dtype and rows, if `squeezed` is not u: once; for `input_grads`
            bias_parts (slots, H) float32: once
            sums (slots, E) float32, counts (slots,) int32: once; sums only if the count is not 0
    """
    slot, real, sequence, start, _, first_row = locate_real_tokens(
        first_slot + tl.program_id(0), True, mask_ptr, cu_seqlens_ptr, batch, length, HAS_MASK, PACKED, BLOCK_T
    )
    if SQUEEZE_DIM <= CHUNKS * BLOCK_H:
        first_h = 0
    else:
        first_h = tl.program_id(1) * (CHUNKS * BLOCK_H)
    t = tl.arange(0, BLOCK_T)
    count = tl.sum(real.to(tl.int32), axis=0)
    if first_h == 0:
        tl.store(counts_ptr + slot, count)
    if count > 0:
        product_dtype: tl.constexpr = squeezed_ptr.dtype.element_ty
        tile_row = first_row + start
        squeezed_tile = squeezed_ptr + tile_row * SQUEEZE_DIM
        dz_tile, dz_rows = tile_rows(
            dz_ptr, sequence, start, first_row, t, dz_batch_stride, dz_row_stride, PACKED, ALIGN
        )
        x_tile, x_rows = tile_rows(x_ptr, sequence, start, first_row, t, x_batch_stride, x_row_stride, PACKED, ALIGN)
        y_tile, y_rows = tile_rows(y_ptr, sequence, start, first_row, t, y_batch_stride, y_row_stride, PACKED, ALIGN)
        if SQUEEZE_DIM <= CHUNKS * BLOCK_H:
            u = load_u_chunks(squeezed_tile, t, real, 0, SQUEEZE_DIM, ACTIVATION, TARGET, CHUNKS, BLOCK_H)
        du = zero_chunks(BLOCK_T, SQUEEZE_DIM, CHUNKS, BLOCK_H)
        for block_e in range(0, EMBED_DIM, BLOCK_E):
            e = block_e + tl.arange(0, BLOCK_E)
            inside_e = inside_dim(e, EMBED_DIM, BLOCK_E)
            weights = load_expand_weights(
                weight_ptr, first_h, e, SQUEEZE_DIM, EMBED_DIM, product_dtype, TARGET, BLOCK_E, BLOCK_H, CHUNKS
            )
            if SQUEEZE_DIM <= CHUNKS * BLOCK_H:
                local = held_expand(u, transposed(weights, CHUNKS), TARGET, BLOCK_T, BLOCK_E, CHUNKS)
            else:
                local = read_expand(
                    squeezed_tile, t, real, weight_ptr, e, SQUEEZE_DIM, EMBED_DIM, ACTIVATION, TARGET, BLOCK_T, BLOCK_E,
                    BLOCK_H,
                )  # fmt: skip
            context = tl.load(context_ptr + sequence * EMBED_DIM + e, mask=inside_e, other=0.0)
            m = sigmoid(local + context[None, :], TARGET)
            inside = real[:, None] & inside_e[None, :]
            dz = load_wide(dz_tile, dz_rows[:, None] + e[None, :], inside, TARGET)
            x = load_wide(x_tile, x_rows[:, None] + e[None, :], inside, TARGET)
            gated = x
            if HAS_LOWER:
                y = load_wide(y_tile, y_rows[:, None] + e[None, :], inside, TARGET)
                gated = x - y if SELECT else x + y
            ds = round_to(gate_gradient(dz, m, gated), product_dtype, TARGET)
            if first_h == 0:
                store_column_sums(sums_ptr + slot * EMBED_DIM, ds, e, inside_e, TARGET)
            accumulated = ()
            for chunk in tl.static_range(CHUNKS):
                accumulated = accumulated + (dot(ds, weights[chunk], du[chunk], TARGET),)
            du = accumulated
        gradient_tile = squeezed_gradient_ptr + tile_row * SQUEEZE_DIM
        for chunk in tl.static_range(CHUNKS):
            h, inside_h = chunk_channels(first_h, chunk, SQUEEZE_DIM, CHUNKS, BLOCK_H)
            a = load_squeezed(squeezed_tile, t, real, h, inside_h, SQUEEZE_DIM).to(tl.float32)
            da = du[chunk] * activation_slope(a, ACTIVATION)
            if ACTIVATION != "relu":
                tl.store(
                    u_ptr + tile_row * SQUEEZE_DIM + t[:, None] * SQUEEZE_DIM + h[None, :],
                    round_to(activate(a, ACTIVATION), product_dtype, TARGET),
                    mask=real[:, None] & inside_h[None, :],
                )
            tl.store(bias_parts_ptr + slot * SQUEEZE_DIM + h, tl.sum(da, axis=0), mask=inside_h)
            tl.store(
                gradient_tile + t[:, None] * SQUEEZE_DIM + h[None, :],
                round_to(da, product_dtype, TARGET),
                mask=real[:, None] & inside_h[None, :],
            )
    else:
        for chunk in tl.static_range(CHUNKS):
            h, inside_h = chunk_channels(first_h, chunk, SQUEEZE_DIM, CHUNKS, BLOCK_H)
            nothing = tl.zeros(h.shape, dtype=tl.float32)
            tl.store(bias_parts_ptr + slot * SQUEEZE_DIM + h, nothing, mask=inside_h)
