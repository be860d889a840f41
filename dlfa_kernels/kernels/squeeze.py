"""Forward, first stage: the local squeeze of every token, and the sums for pooling."""

import triton
import triton.language as tl

from .arithmetic import activate, dot, round_to, store_column_sums
from .chunks import chunk_channels, load_squeeze_weight, zero_chunks
from .rows import (
    STRIDES,
    inside_dim,
    load_float32,
    load_integrated,
    locate_real_tokens,
    real_tokens,
    tile_rows,
)


@triton.jit(do_not_specialize=STRIDES + ["batch", "length", "first_slot", "end_slot"])
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
    first_slot,
    end_slot,
    EMBED_DIM: tl.constexpr,
    SQUEEZE_DIM: tl.constexpr,
    KERNEL_SIZE: tl.constexpr,
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
    SLOTS: tl.constexpr,
):
    """Compute a_bt = sum_j W_ls[:, :, j] w_b,t+j-(k-1)/2 + b_ls, and the sum of w over each tile's real tokens.

    A program works on SLOTS consecutive slots, so that it reads the weights once for all of their tiles.
    Grid (cdiv(slots of a group, SLOTS), cdiv(H, CHUNKS BLOCK_H)). With all of H in one program, at k = 1:
    reads   x, y (B, T, E): once; at k > 1 each of the k taps reads its shifted rows again, from cache
            mask (B, T), cu_seqlens (B+1,): once per tile, the mask at k > 1 once more per tap and block of E
            weight (k, H, E), bias (H,): once per program
    writes  squeezed (rows, H), a or with relu u = phi(a), in the dtype of products: once; 0 at padding
            sums (slots, E) float32, counts (slots,) int32: once, and zeros for the last program's slots past the end;
            sums only if a program's counts are not all 0
    """
    if SQUEEZE_DIM <= CHUNKS * BLOCK_H:
        first_h = 0
    else:
        first_h = tl.program_id(1) * (CHUNKS * BLOCK_H)
    t = tl.arange(0, BLOCK_T)
    product_dtype: tl.constexpr = squeezed_ptr.dtype.element_ty
    # One of each a slot. `place` stays a tuple here: names such as `real`, which the loop below assigns too, would
    # become values that the loop carries from step to step.
    places, a = (), ()
    count = 0
    for index in tl.static_range(SLOTS):
        place_slot = first_slot + tl.program_id(0) * SLOTS + index
        place = locate_real_tokens(
            place_slot, place_slot < end_slot, mask_ptr, cu_seqlens_ptr, batch, length, HAS_MASK, PACKED, BLOCK_T
        )
        slot_count = tl.sum(place[1].to(tl.int32), axis=0)
        if first_h == 0:
            tl.store(counts_ptr + place[0], slot_count)
        count += slot_count
        places, a = places + (place,), a + (zero_chunks(BLOCK_T, SQUEEZE_DIM, CHUNKS, BLOCK_H),)
    if count > 0:
        # One loop over blocks of E and, within them, taps, so that it is pipelined for every k.
        for step in tl.range(0, tl.cdiv(EMBED_DIM, BLOCK_E) * KERNEL_SIZE):
            e = (step // KERNEL_SIZE) * BLOCK_E + tl.arange(0, BLOCK_E)
            inside_e = inside_dim(e, EMBED_DIM, BLOCK_E)
            if KERNEL_SIZE == 1:
                tap = 0
            else:
                tap = step % KERNEL_SIZE
            weights = ()
            for chunk in tl.static_range(CHUNKS):
                h, inside_h = chunk_channels(first_h, chunk, SQUEEZE_DIM, CHUNKS, BLOCK_H)
                weight = load_squeeze_weight(
                    weight_ptr, tap, h, inside_h, e, SQUEEZE_DIM, EMBED_DIM, product_dtype, TARGET, BLOCK_E
                )
                weights = weights + (tl.trans(weight),)
            accumulated = ()
            for index in tl.static_range(SLOTS):
                slot, real, sequence, start, rows, first_row = places[index]
                if KERNEL_SIZE == 1:
                    seen_t = t
                    seen = real
                else:
                    seen_t = t + (tap - (KERNEL_SIZE - 1) // 2)
                    seen = real_tokens(mask_ptr, sequence, start + seen_t, rows, length, HAS_MASK)
                x_tile, x_rows = tile_rows(
                    x_ptr, sequence, start, first_row, seen_t, x_batch_stride, x_row_stride, PACKED, ALIGN
                )
                y_tile, y_rows = tile_rows(
                    y_ptr, sequence, start, first_row, seen_t, y_batch_stride, y_row_stride, PACKED, ALIGN
                )
                w = load_integrated(
                    x_tile, y_tile, x_rows[:, None] + e[None, :], y_rows[:, None] + e[None, :],
                    seen[:, None] & inside_e[None, :], HAS_LOWER,
                )  # fmt: skip
                w = round_to(w, product_dtype, TARGET)
                if tap == (KERNEL_SIZE - 1) // 2:
                    if first_h == 0:
                        store_column_sums(sums_ptr + slot * EMBED_DIM, w, e, inside_e, TARGET)
                chunks = ()
                for chunk in tl.static_range(CHUNKS):
                    chunks = chunks + (dot(w, weights[chunk], a[index][chunk], TARGET),)
                accumulated = accumulated + (chunks,)
            a = accumulated
    for index in tl.static_range(SLOTS):
        _, real, _, start, rows, first_row = places[index]
        squeezed_tile = squeezed_ptr + (first_row + start) * SQUEEZE_DIM
        for chunk in tl.static_range(CHUNKS):
            h, inside_h = chunk_channels(first_h, chunk, SQUEEZE_DIM, CHUNKS, BLOCK_H)
            squeezed = a[index][chunk] + load_float32(bias_ptr, h, inside_h)[None, :]
            if ACTIVATION == "relu":
                squeezed = activate(squeezed, ACTIVATION)
            tl.store(
                squeezed_tile + t[:, None] * SQUEEZE_DIM + h[None, :],
                round_to(tl.where(real[:, None], squeezed, 0.0), product_dtype, TARGET),
                mask=(start + t < rows)[:, None] & inside_h[None, :],
            )
