"""Locate and load the rows of a program's slot, for padded and packed states.

A slot is a tile of BLOCK_T rows: consecutive tokens of a sequence or, of padded states with SEQUENCES = 2, half as many
of each of two neighbouring sequences, at the same positions. Where sequences end early, both halves tend to be padding.
"""

import triton
import triton.language as tl

# Triton would specialise on a stride of 1, and compile again; these strides are not specialised on, and ALIGN is a
# common divisor of them.
STRIDES = [f"{name}_{axis}_stride" for name in ("dz", "x", "y") for axis in ("batch", "row")]


@triton.jit
def slot_of_sequence(sequence, first_row, length, BLOCK_T: tl.constexpr, PACKED: tl.constexpr):
    """Return the slot of a sequence's first tile.

    Padded: every sequence has cdiv(length, BLOCK_T) slots. Packed: first_row // BLOCK_T + sequence, which gives each
    sequence at least as many slots as tiles, so that the host need not know lengths.
    """
    if PACKED:
        return first_row // BLOCK_T + sequence
    else:
        return sequence * tl.cdiv(length, BLOCK_T)


@triton.jit
def sequence_rows(cu_seqlens_ptr, sequence, length, inside, PACKED: tl.constexpr):
    """Return first row (int64) and number of rows of `sequence`, a scalar or a block; 0 rows if not `inside`."""
    if PACKED:
        first_row = tl.load(cu_seqlens_ptr + sequence, mask=inside, other=0).to(tl.int64)
        rows = tl.load(cu_seqlens_ptr + sequence + 1, mask=inside, other=0).to(tl.int64) - first_row
        return first_row, rows
    else:
        first_row = sequence.to(tl.int64) * length
        return first_row, tl.where(inside, length, 0).to(tl.int64)


@triton.jit
def count_started(cu_seqlens_ptr, sequences, inside, slot, BLOCK_T: tl.constexpr):
    """Count the packed sequences of a block, only those `inside`, whose first slot is at or before `slot`."""
    first_rows = tl.load(cu_seqlens_ptr + sequences, mask=inside, other=0)
    started = slot_of_sequence(sequences, first_rows, 0, BLOCK_T, True) <= slot
    return tl.sum((started & inside).to(tl.int32), axis=0)


@triton.jit
def locate_tile(
    slot, cu_seqlens_ptr, batch, length, BLOCK_T: tl.constexpr, PACKED: tl.constexpr, SEQUENCES: tl.constexpr
):
    """Return a slot's sequence (int64), first position in it (int64), the sequence's rows, and its first row (int64).

    With SEQUENCES = 2 these are of the first one, and the other is the next, if there are so many. The position of an
    unused packed slot is at or past the sequence's end.
    """
    tokens: tl.constexpr = BLOCK_T // SEQUENCES
    if PACKED:
        # Find the last sequence whose first slot is at or before this one: among 256 spaced by `step`, then in between.
        step = tl.cdiv(batch, 256)
        apart = tl.arange(0, 256) * step
        sequence = (count_started(cu_seqlens_ptr, apart, apart < batch, slot, BLOCK_T) - 1) * step
        begin, end = sequence + 1, tl.minimum(sequence + step, batch)
        for chunk in range(begin, end, 256):
            candidates = chunk + tl.arange(0, 256)
            sequence += count_started(cu_seqlens_ptr, candidates, candidates < end, slot, BLOCK_T)
    else:
        sequence = slot // tl.cdiv(length, tokens) * SEQUENCES
    first_row, rows = sequence_rows(cu_seqlens_ptr, sequence, length, True, PACKED)
    tile = slot - slot_of_sequence(sequence // SEQUENCES, first_row, length, tokens, PACKED)
    return sequence.to(tl.int64), tile.to(tl.int64) * tokens, rows, first_row


@triton.jit
def dealt(turn, splits, rotation):
    """Return which slot a program has at its `turn`, counted from the first one; `splits` programs deal the slots.

    Each round starts `rotation` programs further on (`LaunchPlan.rotation`), so that none gets the same tile of all
    sequences: where they end in padding, the programs with the first tiles would have all the work.
    """
    return turn * splits + (tl.program_id(1) + turn * rotation) % splits


@triton.jit
def row_sequences(BLOCK_T: tl.constexpr, SEQUENCES: tl.constexpr):
    """Return for each row of a tile which of its sequences it belongs to, 0 or 1."""
    return tl.arange(0, BLOCK_T) // (BLOCK_T // SEQUENCES)


@triton.jit
def tile_positions(BLOCK_T: tl.constexpr, SEQUENCES: tl.constexpr):
    """Return the positions of a tile's rows in their sequences, from the tile's first position on."""
    t = tl.arange(0, BLOCK_T)
    if SEQUENCES > 1:
        t = t % (BLOCK_T // SEQUENCES)
    return t


@triton.jit
def contiguous_rows(t, length, SEQUENCES: tl.constexpr):
    """Return the rows of a tile in a tensor of one row a token, from the tile's first row on; t: `tile_positions`."""
    if SEQUENCES > 1:
        t += row_sequences(t.shape[0], SEQUENCES) * length
    return t


@triton.jit
def rows_inside(t, sequence, start, rows, batch, SEQUENCES: tl.constexpr):
    """Return a mask of the rows of a tile that exist; t: `tile_positions`, the others: see `locate_tile`."""
    inside = start + t < rows
    if SEQUENCES > 1:
        inside = inside & (sequence + row_sequences(t.shape[0], SEQUENCES) < batch)
    return inside


@triton.jit
def real_tokens(mask_ptr, sequence, positions, rows, length, HAS_MASK: tl.constexpr):
    """Return a mask of the positions of a sequence that hold a real token; positions may be out of range.

    `sequence` and its `rows` are scalars or blocks like the positions.
    """
    real = (positions >= 0) & (positions < rows)
    if HAS_MASK:
        real = real & (tl.load(mask_ptr + sequence * length + positions, mask=real, other=0) != 0)
    return real


@triton.jit
def locate_real_tokens(
    slot,
    present,
    mask_ptr,
    cu_seqlens_ptr,
    batch,
    length,
    HAS_MASK: tl.constexpr,
    PACKED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    SEQUENCES: tl.constexpr = 1,
):
    """Return the slot in int64, a mask of its real tokens (BLOCK_T,), and the results of `locate_tile`.

    A slot that is not `present` has no rows.
    """
    sequence, start, rows, first_row = locate_tile(slot, cu_seqlens_ptr, batch, length, BLOCK_T, PACKED, SEQUENCES)
    rows = tl.where(present, rows, 0)
    positions = start + tile_positions(BLOCK_T, SEQUENCES)
    if SEQUENCES == 1:
        real = real_tokens(mask_ptr, sequence, positions, rows, length, HAS_MASK)
    else:
        sequences = sequence + row_sequences(BLOCK_T, SEQUENCES)
        rows_of_each = tl.where(sequences < batch, rows, 0)
        real = real_tokens(mask_ptr, sequences, positions, rows_of_each, length, HAS_MASK)
    return slot.to(tl.int64), real, sequence, start, rows, first_row


@triton.jit
def aligned(stride, ALIGN: tl.constexpr):
    """Return the stride in a form that shows the compiler that ALIGN divides it: a hint on an argument gets lost."""
    return stride // ALIGN * ALIGN


@triton.jit
def tile_pointer(ptr, sequence, start, first_row, batch_stride, row_stride, PACKED: tl.constexpr, ALIGN: tl.constexpr):
    """Return a pointer to the first channel of a tile's first row in x, y or dz; ALIGN divides both strides."""
    row_stride = aligned(row_stride, ALIGN)
    if PACKED:
        return ptr + (first_row + start) * row_stride
    else:
        return ptr + (sequence * aligned(batch_stride, ALIGN) + start * row_stride)


@triton.jit
def row_offsets(t, batch_stride, row_stride, ALIGN: tl.constexpr, SEQUENCES: tl.constexpr):
    """Return the offsets of a tile's rows from its pointer, int32: one register each, half of an address."""
    offsets = t * aligned(row_stride, ALIGN)
    if SEQUENCES > 1:
        offsets += row_sequences(t.shape[0], SEQUENCES) * aligned(batch_stride, ALIGN)
    return offsets


@triton.jit
def tile_rows(
    ptr,
    sequence,
    start,
    first_row,
    t,
    batch_stride,
    row_stride,
    PACKED: tl.constexpr,
    ALIGN: tl.constexpr,
    SEQUENCES: tl.constexpr = 1,
):
    """Return `tile_pointer`, and the `row_offsets` of the tile's rows t from it."""
    tile_ptr = tile_pointer(ptr, sequence, start, first_row, batch_stride, row_stride, PACKED, ALIGN)
    return tile_ptr, row_offsets(t, batch_stride, row_stride, ALIGN, SEQUENCES)


@triton.jit
def inside_dim(channels, DIM: tl.constexpr, SPAN: tl.constexpr):
    """Return a mask of a block's channels that exist: a constant, all true, if SPAN divides DIM.

    SPAN is the number of channels that a program's blocks cover together: then all inside or all outside DIM.
    """
    if DIM % SPAN == 0:
        return tl.arange(0, channels.shape[0]) < channels.shape[0]
    else:
        return channels < DIM


@triton.jit
def load_float32(ptr, offsets, inside):
    """Load a block in float32, zero outside; it is converted at once, as the interpreter cannot compute in bfloat16."""
    return tl.load(ptr + offsets, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def widen(values, TARGET: tl.constexpr):
    """Return a block in float32; NVIDIA, bfloat16: one instruction a value, where the compiler takes three for two."""
    if TARGET == "nvidia" and values.dtype == tl.bfloat16:
        return tl.inline_asm_elementwise(
            "shl.b32 $0, $2, 16; and.b32 $1, $2, 0xffff0000;", "=&r,=r,r", [values], dtype=tl.float32, is_pure=True,
            pack=2,
        )  # fmt: skip
    else:
        return values.to(tl.float32)


@triton.jit
def load_wide(ptr, offsets, inside, TARGET: tl.constexpr):
    """Load a block in float32, zero outside, by `widen`."""
    return widen(tl.load(ptr + offsets, mask=inside, other=0.0), TARGET)


@triton.jit
def load_last(ptr, offsets, inside):
    """Load a block as stored, zero outside, that no later launch of the pass reads: L2 may evict it first."""
    return tl.load(ptr + offsets, mask=inside, other=0.0, eviction_policy="evict_first")


@triton.jit
def load_integrated(x_ptr, y_ptr, x_offsets, y_offsets, inside, HAS_LOWER: tl.constexpr):
    """Load w = x + y, or x alone, in float32."""
    w = load_float32(x_ptr, x_offsets, inside)
    if HAS_LOWER:
        w += load_float32(y_ptr, y_offsets, inside)
    return w


@triton.jit
def load_sequence_rows(ptr, sequence, batch, e, inside_e, EMBED_DIM: tl.constexpr, SEQUENCES: tl.constexpr):
    """Load the channels e of a (B, E) tensor's rows of a tile's sequences: (BLOCK_E,), or (SEQUENCES, BLOCK_E)."""
    if SEQUENCES == 1:
        return tl.load(ptr + sequence * EMBED_DIM + e, mask=inside_e, other=0.0)
    else:
        which = tl.arange(0, SEQUENCES)
        return tl.load(
            ptr + sequence * EMBED_DIM + which[:, None] * EMBED_DIM + e[None, :],
            mask=(sequence + which < batch)[:, None] & inside_e[None, :],
            other=0.0,
        )


@triton.jit
def add_sequence_rows(values, rows, SEQUENCES: tl.constexpr):
    """Add to each row of a tile's block (BLOCK_T, BLOCK_E) the row of its sequence, of `load_sequence_rows`."""
    if SEQUENCES == 1:
        return values + rows[None, :]
    else:
        # a warp's rows are of one sequence, so that a thread loads and adds the row of that one alone
        split = tl.reshape(values, (SEQUENCES, values.shape[0] // SEQUENCES, values.shape[1]))
        return tl.reshape(split + rows[:, None, :], values.shape)


@triton.jit
def store_zeros(tile_ptr, t, rows, begin, end, EMBED_DIM: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_E: tl.constexpr):
    """Store zeros to channels begin .. end - 1 of those of a tile's rows t in the mask `rows`; contiguous (rows, E)."""
    nothing = tl.zeros((BLOCK_T, BLOCK_E), dtype=tile_ptr.dtype.element_ty)
    for block_e in range(begin, end, BLOCK_E):
        e = block_e + tl.arange(0, BLOCK_E)
        written = rows[:, None] & inside_dim(e, EMBED_DIM, BLOCK_E)[None, :]
        tl.store(tile_ptr + t[:, None] * EMBED_DIM + e[None, :], nothing, mask=written)
