"""Forward, last stage: expand, gate and fuse."""

import triton
import triton.language as tl

from .arithmetic import round_to
from .chunks import held_expand, load_expand_weights, load_u_chunks, read_expand, transposed
from .gate import sigmoid
from .rows import (
    STRIDES,
    add_sequence_rows,
    contiguous_rows,
    inside_dim,
    load_last,
    load_sequence_rows,
    locate_real_tokens,
    rows_inside,
    store_zeros,
    tile_positions,
    tile_rows,
    widen,
)


@triton.jit(do_not_specialize=STRIDES + ["batch", "length", "first_slot"])
def expand_kernel(
    x_ptr,
    y_ptr,
    mask_ptr,
    cu_seqlens_ptr,
    squeezed_ptr,
    weight_ptr,
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
    TARGET: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
    CHUNKS: tl.constexpr,
    SEQUENCES: tl.constexpr,
):
    """Compute m = sigmoid(W_le phi(a) + context_b); z = m w, or m x + (1 - m) y with SELECT; z = 0 at padding.

    Grid (slots of a group, splits of E). Slots are in reverse order, to start with the rows that the squeeze read last
    and L2 still holds.
    reads   x, y (B, T, E): once; a tile without a real token is not read
            squeezed (rows, H): once per split, or once per block of E where H is over 256
            mask, cu_seqlens: once per split
            weight (E, H), context (B, E) float32, g + b_le: once per tile
    writes  z (B, T, E) contiguous: once
    """
    slot = first_slot + tl.num_programs(0) - 1 - tl.program_id(0)
    _, real, sequence, start, rows, first_row = locate_real_tokens(
        slot, True, mask_ptr, cu_seqlens_ptr, batch, length, HAS_MASK, PACKED, BLOCK_T, SEQUENCES
    )
    t = tile_positions(BLOCK_T, SEQUENCES)
    row = contiguous_rows(t, length, SEQUENCES)
    inside_rows = rows_inside(t, sequence, start, rows, batch, SEQUENCES)
    tile_row = first_row + start
    squeezed_tile = squeezed_ptr + tile_row * SQUEEZE_DIM
    z_tile = z_ptr + tile_row * EMBED_DIM
    blocks = tl.cdiv(EMBED_DIM, BLOCK_E)
    split = tl.cdiv(blocks, tl.num_programs(1)) * BLOCK_E
    begin = tl.program_id(1) * split
    end = tl.minimum(begin + split, EMBED_DIM)
    state_dtype: tl.constexpr = x_ptr.dtype.element_ty
    product_dtype: tl.constexpr = squeezed_ptr.dtype.element_ty
    count = tl.sum(real.to(tl.int32), axis=0)
    if count > 0:
        x_tile, x_rows = tile_rows(
            x_ptr, sequence, start, first_row, t, x_batch_stride, x_row_stride, PACKED, ALIGN, SEQUENCES
        )
        y_tile, y_rows = tile_rows(
            y_ptr, sequence, start, first_row, t, y_batch_stride, y_row_stride, PACKED, ALIGN, SEQUENCES
        )
        if SQUEEZE_DIM <= CHUNKS * BLOCK_H:
            u = load_u_chunks(squeezed_tile, row, real, 0, SQUEEZE_DIM, ACTIVATION, TARGET, CHUNKS, BLOCK_H)
        for block_e in range(begin, end, BLOCK_E):
            e = block_e + tl.arange(0, BLOCK_E)
            inside_e = inside_dim(e, EMBED_DIM, BLOCK_E)
            inside = real[:, None] & inside_e[None, :]
            # before the product, which hides their latency
            x = load_last(x_tile, x_rows[:, None] + e[None, :], inside)
            if HAS_LOWER:
                y = load_last(y_tile, y_rows[:, None] + e[None, :], inside)
            context = load_sequence_rows(context_ptr, sequence, batch, e, inside_e, EMBED_DIM, SEQUENCES)
            if SQUEEZE_DIM <= CHUNKS * BLOCK_H:
                weights = load_expand_weights(
                    weight_ptr, 0, e, SQUEEZE_DIM, EMBED_DIM, product_dtype, TARGET, BLOCK_E, BLOCK_H, CHUNKS
                )
                local = held_expand(u, transposed(weights, CHUNKS), TARGET, BLOCK_T, BLOCK_E, CHUNKS)
            else:
                local = read_expand(
                    squeezed_tile, row, real, weight_ptr, e, SQUEEZE_DIM, EMBED_DIM, ACTIVATION, TARGET, BLOCK_T,
                    BLOCK_E, BLOCK_H,
                )  # fmt: skip
            m = sigmoid(add_sequence_rows(local, context, SEQUENCES), TARGET)
            x = widen(x, TARGET)
            if HAS_LOWER:
                y = widen(y, TARGET)
            if SELECT:
                z = m * x + (1.0 - m) * y  # x - y would lose x where y is much larger
            elif HAS_LOWER:
                z = m * (x + y)
            else:
                z = m * x
            z = round_to(z, state_dtype, TARGET)
            tl.store(z_tile + row[:, None] * EMBED_DIM + e[None, :], z, mask=inside)
    if count < tl.sum(inside_rows.to(tl.int32), axis=0):
        store_zeros(z_tile, row, inside_rows & ~real, begin, end, EMBED_DIM, BLOCK_T, BLOCK_E)
