"""Both passes: add the sums of a sequence's tiles to one row a sequence, in a fixed order."""

import triton
import triton.language as tl

from .rows import sequence_rows, slot_of_sequence


@triton.jit
def tile_sum(sums_ptr, counts_ptr, first, tiles, channels, inside, EMBED_DIM: tl.constexpr, BLOCK_TILES: tl.constexpr):
    """Return the sum over slots first .. first + tiles - 1 of one sequence, by channel; empty tiles are not read."""
    total = tl.zeros(channels.shape, dtype=tl.float32)
    count = first * 0
    for block in range(0, tiles, BLOCK_TILES):
        tile = block + tl.arange(0, BLOCK_TILES)
        slots = (first + tile).to(tl.int64)
        counts = tl.load(counts_ptr + slots, mask=tile < tiles, other=0)
        part = tl.load(
            sums_ptr + slots[:, None] * EMBED_DIM + channels[None, :],
            mask=(counts > 0)[:, None] & inside[None, :],
            other=0.0,
        )
        total += tl.sum(part, axis=0)
        count += tl.sum(counts, axis=0)
    return total, count


@triton.jit(do_not_specialize=["length", "first"])
def pool_kernel(
    sums_ptr,
    counts_ptr,
    cu_seqlens_ptr,
    pooled_ptr,
    tokens_ptr,
    length,
    first,
    EMBED_DIM: tl.constexpr,
    MEAN: tl.constexpr,
    PACKED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_TILES: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Compute the mean (MEAN, forward: p_b) or the sum (backward: dg_b) over a sequence's real tokens.

    Grid (sequences of a group, cdiv(E, BLOCK_E)), from `first` on. BLOCK_T is that of the stage that wrote sums.
    reads   sums (slots, E) float32: once; counts (slots,) int32, cu_seqlens: once per block of E
    writes  pooled (B, E) float32: once; with MEAN tokens (B,) int32: once
    """
    sequence = first + tl.program_id(0)
    first_row, rows = sequence_rows(cu_seqlens_ptr, sequence, length, True, PACKED)
    slot = slot_of_sequence(sequence, first_row, length, BLOCK_T, PACKED)
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    tiles = tl.cdiv(rows, BLOCK_T).to(tl.int32)
    total, count = tile_sum(sums_ptr, counts_ptr, slot, tiles, e, e < EMBED_DIM, EMBED_DIM, BLOCK_TILES)
    if MEAN:
        count = count.to(tl.int32)
        total = total / tl.maximum(count, 1).to(tl.float32)
        if tl.program_id(1) == 0:
            tl.store(tokens_ptr + sequence, count)
    tl.store(pooled_ptr + sequence.to(tl.int64) * EMBED_DIM + e, total, mask=e < EMBED_DIM)
