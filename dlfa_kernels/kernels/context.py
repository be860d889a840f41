"""Both passes: the global branch, a two-layer network on one pooled row a sequence, and its gradient."""

import triton
import triton.language as tl

from .arithmetic import activate, activation_slope, round_to, row_dot, weight_dot
from .chunks import chunk_channels, transposed, zero_chunks
from .rows import inside_dim, load_float32


@triton.jit(do_not_specialize=["first", "end"])
def context_kernel(
    pooled_ptr,
    sums_ptr,
    counts_ptr,
    tokens_ptr,
    squeeze_weight_ptr,
    squeeze_bias_ptr,
    expand_weight_ptr,
    expand_bias_ptr,
    local_bias_ptr,
    hidden_ptr,
    hidden_gradient_ptr,
    context_ptr,
    first,
    end,
    tiles_per_sequence,
    EMBED_DIM: tl.constexpr,
    SQUEEZE_DIM: tl.constexpr,
    BACKWARD: tl.constexpr,
    SQUEEZE: tl.constexpr,
    EXPAND: tl.constexpr,
    POOLED: tl.constexpr,
    MAX_TILES_PER_SEQUENCE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    ROW_PARTS: tl.constexpr,
    TARGET: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """Forward: compute g_b + b_le = W_ge phi(W_gs p_b + b_gs) + b_ge + b_le, shared by all gates of a sequence.
    Backward: compute dp_b / |V_b| = W_gs^T (phi' * (W_ge^T dg_b)) / |V_b|.

    Both squeeze E to H, activate, and expand H to E: the backward with the transposed weights of the other layer and no
    bias. A launch computes both products, with SQUEEZE and EXPAND, or one of them: only the first if dp is not needed,
    each in its own launch if the weights are large. The sequences are first .. end - 1. Grid with EXPAND
    (cdiv(end - first, BLOCK_B), cdiv(E, BLOCK_E)); with SQUEEZE each program repeats the squeeze, which is cheaper than
    a launch. Without EXPAND: (cdiv(end - first, BLOCK_B), cdiv(H, CHUNKS BLOCK_H)).
    With ROW_PARTS > 0 a program reads the input of the squeeze twice, for the upper and the lower part of each number;
    if H is wider than CHUNKS BLOCK_H, with EXPAND, again for each such part of H.
    reads   SQUEEZE: POOLED: pooled (B, E) float32, p or dg: by every program of its sequences
                     else: sums (slots, E) float32, counts (slots,) int32: likewise, tiles_per_sequence slots a
                     sequence, at most MAX_TILES_PER_SEQUENCE
                     the first product's weight: all of it by every program, without EXPAND a part of H
                     forward: squeeze_bias (H,) likewise; backward: hidden (B, H) float32
            EXPAND:  a block of E of the second product's weight: once per program
                     forward: expand_bias and local_bias (E,) likewise; backward: tokens (B,) int32
                     without SQUEEZE its output, hidden or hidden_gradient: once per block of E
    writes  SQUEEZE: forward hidden (B, H) float32, before the activation; backward hidden_gradient (B, H) float32: once
                     not POOLED: pooled (B, E) float32; forward also tokens (B,) int32: once
            EXPAND:  context (B, E) float32, g + b_le or dp / |V|: once
    """
    first_sequence = first + tl.program_id(0).to(tl.int64) * BLOCK_B
    # With parts, each row is held twice, for its upper and its lower part: one product computes both.
    copies: tl.constexpr = 1 if ROW_PARTS == 0 else 2
    row = tl.arange(0, copies * BLOCK_B)
    row_sequences = first_sequence + row % BLOCK_B
    row_present = row_sequences < end
    first_program = tl.program_id(1) == 0

    slots = row_sequences * tiles_per_sequence
    filled = ()  # for each tile, whether it holds a token; read before the loop, where loads would wait for it
    if not POOLED:
        counted = tl.zeros(row.shape, dtype=tl.int32)
        for tile in tl.static_range(MAX_TILES_PER_SEQUENCE):
            count = tl.load(
                counts_ptr + slots + tile, mask=row_present & (row * 0 + tile < tiles_per_sequence), other=0
            )
            filled = filled + (count > 0,)
            counted += count
        if not BACKWARD:
            mean_share = 1.0 / tl.maximum(counted, 1).to(tl.float32)
            if first_program:
                tl.store(tokens_ptr + row_sequences, counted, mask=row_present & (row < BLOCK_B))

    sequences = first_sequence + tl.arange(0, BLOCK_B)
    present = sequences < end
    out_e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    out_inside = inside_dim(out_e, EMBED_DIM, BLOCK_E)
    in_block: tl.constexpr = BLOCK_E if BLOCK_E < 64 else 64
    # Chips with products from shared memory use wide blocks: it has room for these weights, loaded before the loop.
    early: tl.constexpr = in_block < BLOCK_E and EXPAND
    # Channels are rows here and sequences columns: products of 64 rows use their first operand as loaded.
    context = tl.zeros((BLOCK_E, BLOCK_B), dtype=tl.float32)
    if EXPAND:
        begin_h, end_h = 0, SQUEEZE_DIM
    else:
        begin_h = tl.program_id(1) * (CHUNKS * BLOCK_H)
        end_h = begin_h + CHUNKS * BLOCK_H
    for first_h in range(begin_h, end_h, CHUNKS * BLOCK_H):
        if early:
            out_weights = ()
            for chunk in tl.static_range(CHUNKS):
                h, inside_h = chunk_channels(first_h, chunk, SQUEEZE_DIM, CHUNKS, BLOCK_H)
                out_weights = out_weights + (
                    load_out_weight(
                        squeeze_weight_ptr, expand_weight_ptr, out_e, h, out_inside, inside_h, EMBED_DIM, SQUEEZE_DIM,
                        BACKWARD,
                    ),
                )  # fmt: skip
        if SQUEEZE:
            squeezed = transposed(zero_chunks(copies * BLOCK_B, SQUEEZE_DIM, CHUNKS, BLOCK_H), CHUNKS)
            for block_e in range(0, EMBED_DIM, in_block):
                e = block_e + tl.arange(0, in_block)
                inside_e = inside_dim(e, EMBED_DIM, in_block)
                pooled_offsets = row_sequences[:, None] * EMBED_DIM + e[None, :]
                if POOLED:
                    p = tl.load(pooled_ptr + pooled_offsets, mask=row_present[:, None] & inside_e[None, :], other=0.0)
                else:
                    p = tl.zeros((copies * BLOCK_B, in_block), dtype=tl.float32)
                    for tile in tl.static_range(MAX_TILES_PER_SEQUENCE):
                        sums = sums_ptr + (slots + tile)[:, None] * EMBED_DIM + e[None, :]
                        p += tl.load(sums, mask=filled[tile][:, None] & inside_e[None, :], other=0.0)
                    if not BACKWARD:
                        p = p * mean_share[:, None]
                    if first_program:
                        if first_h == 0:
                            stored = (row_present & (row < BLOCK_B))[:, None] & inside_e[None, :]
                            tl.store(pooled_ptr + pooled_offsets, p, mask=stored)
                if ROW_PARTS > 0:
                    upper = round_to(p, tl.bfloat16, TARGET).to(tl.float32)
                    p = round_to(tl.where(row[:, None] < BLOCK_B, upper, p - upper), tl.bfloat16, TARGET)
                accumulated = ()
                for chunk in tl.static_range(CHUNKS):
                    h, inside_h = chunk_channels(first_h, chunk, SQUEEZE_DIM, CHUNKS, BLOCK_H)
                    if BACKWARD:
                        weight = load_transposed(expand_weight_ptr, h, e, inside_h, inside_e, SQUEEZE_DIM)
                    else:
                        weight = load_matrix(squeeze_weight_ptr, h, e, inside_h, inside_e, EMBED_DIM)
                    accumulated = accumulated + (weight_dot(weight, tl.trans(p), squeezed[chunk], ROW_PARTS, TARGET),)
                squeezed = accumulated

        for chunk in tl.static_range(CHUNKS):
            h, inside_h = chunk_channels(first_h, chunk, SQUEEZE_DIM, CHUNKS, BLOCK_H)
            hidden_offsets = sequences[None, :] * SQUEEZE_DIM + h[:, None]
            hidden_inside = inside_h[:, None] & present[None, :]
            if SQUEEZE:
                inner = tl.sum(tl.reshape(squeezed[chunk], (h.shape[0], copies, BLOCK_B)), axis=1)
                if BACKWARD:
                    hidden = tl.load(hidden_ptr + hidden_offsets, mask=hidden_inside, other=0.0)
                    inner = inner * activation_slope(hidden, ACTIVATION)
                    if first_program or not EXPAND:
                        tl.store(hidden_gradient_ptr + hidden_offsets, inner, mask=hidden_inside)
                else:
                    inner = inner + load_float32(squeeze_bias_ptr, h, inside_h)[:, None]
                    if first_program or not EXPAND:
                        tl.store(hidden_ptr + hidden_offsets, inner, mask=hidden_inside)
            elif BACKWARD:
                inner = tl.load(hidden_gradient_ptr + hidden_offsets, mask=hidden_inside, other=0.0)
            else:
                inner = tl.load(hidden_ptr + hidden_offsets, mask=hidden_inside, other=0.0)
            if not BACKWARD:
                inner = activate(inner, ACTIVATION)
            if EXPAND:
                if early:
                    out_weight = out_weights[chunk]
                else:
                    out_weight = load_out_weight(
                        squeeze_weight_ptr, expand_weight_ptr, out_e, h, out_inside, inside_h, EMBED_DIM, SQUEEZE_DIM,
                        BACKWARD,
                    )  # fmt: skip
                context = row_dot(out_weight, inner, context, ROW_PARTS, TARGET)

    if EXPAND:
        if BACKWARD:
            tokens = tl.load(tokens_ptr + sequences, mask=present, other=0)
            context = context / tl.maximum(tokens, 1).to(tl.float32)[None, :]
        else:
            bias = load_float32(expand_bias_ptr, out_e, out_inside) + load_float32(local_bias_ptr, out_e, out_inside)
            context += bias[:, None]
        tl.store(
            context_ptr + sequences[None, :] * EMBED_DIM + out_e[:, None],
            context,
            mask=out_inside[:, None] & present[None, :],
        )


@triton.jit
def load_matrix(ptr, rows, columns, inside_rows, inside_columns, WIDTH: tl.constexpr):
    """Load a block of a matrix whose rows have WIDTH elements; zero outside."""
    inside = inside_rows[:, None] & inside_columns[None, :]
    return tl.load(ptr + rows[:, None] * WIDTH + columns[None, :], mask=inside, other=0.0)


@triton.jit
def load_transposed(ptr, rows, columns, inside_rows, inside_columns, WIDTH: tl.constexpr):
    """Load a block of the transpose of such a matrix: `rows` are the matrix's columns."""
    return tl.trans(load_matrix(ptr, columns, rows, inside_columns, inside_rows, WIDTH))


@triton.jit
def load_out_weight(
    squeeze_weight_ptr,
    expand_weight_ptr,
    e,
    h,
    inside_e,
    inside_h,
    EMBED_DIM: tl.constexpr,
    SQUEEZE_DIM: tl.constexpr,
    BACKWARD: tl.constexpr,
):
    """Load the second product's weight, a (BLOCK_E, BLOCK_H) block of W_ge or, backward, W_gs^T."""
    if BACKWARD:
        return load_transposed(squeeze_weight_ptr, e, h, inside_e, inside_h, EMBED_DIM)
    else:
        return load_matrix(expand_weight_ptr, e, h, inside_e, inside_h, SQUEEZE_DIM)
