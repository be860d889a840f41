"""Both passes: the global branch, a two-layer network on one pooled row a sequence, and its gradient."""

import triton
import triton.language as tl

from .arithmetic import activate, activation_slope, dot
from .gate import zero_chunks
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
    tiles,
    EMBED_DIM: tl.constexpr,
    SQUEEZE_DIM: tl.constexpr,
    BACKWARD: tl.constexpr,
    POOLED: tl.constexpr,
    MAX_TILES: tl.constexpr,
    ACTIVATION: tl.constexpr,
    ROW_PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """Forward: g_b + b_le = W_ge phi(W_gs p_b + b_gs) + b_ge + b_le, what the gates of a sequence have in common.
    Backward: dp_b / |V_b| = W_gs^T (phi' * (W_ge^T dg_b)) / |V_b|.

    Both squeeze E to H, act, and expand H to E: the backward with the transposed weights of the other layer and no
    bias. Grid (cdiv(end - first, BLOCK_B), cdiv(E, BLOCK_E)) over the sequences first .. end - 1: each program squeezes
    anew, which is cheaper than a launch.
    reads   POOLED: pooled (B, E) float32, p or dg, once a program
            else: sums (B * tiles, E) float32 and counts (B * tiles,) int32, once a program; at most MAX_TILES tiles
            squeeze weights (H, E), (E, H): one wholly, of the other a block of E; biases alike
            backward: hidden (B, H) float32, tokens (B,) int32
    writes  context (B, E) float32, g + b_le or dp / |V|: once
            not POOLED: pooled (B, E) float32; forward also tokens (B,) int32: once
            forward: hidden (B, H) float32, before the activation; backward: hidden_gradient (B, H) float32: once
    """
    sequences = first + tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    present = sequences < end
    out_e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    out_inside = inside_dim(out_e, EMBED_DIM, BLOCK_E)
    first_program = tl.program_id(1) == 0

    slots = sequences * tiles
    no_tile = tl.zeros((BLOCK_B,), dtype=tl.int32)
    if BACKWARD:
        tokens = tl.load(tokens_ptr + sequences, mask=present, other=0)
    elif not POOLED:
        tokens = tl.zeros((BLOCK_B,), dtype=tl.int32)
        for tile in tl.static_range(MAX_TILES):
            tokens += tl.load(counts_ptr + slots + tile, mask=present & (no_tile + tile < tiles), other=0)
        if first_program:
            tl.store(tokens_ptr + sequences, tokens, mask=present)
    if BACKWARD or not POOLED:
        share = 1.0 / tl.maximum(tokens, 1).to(tl.float32)

    context = tl.zeros((BLOCK_B, BLOCK_E), dtype=tl.float32)
    for first_h in range(0, SQUEEZE_DIM, CHUNKS * BLOCK_H):
        squeezed = zero_chunks(CHUNKS, BLOCK_B, BLOCK_H)
        for block_e in range(0, EMBED_DIM, BLOCK_E):
            e = block_e + tl.arange(0, BLOCK_E)
            inside_e = inside_dim(e, EMBED_DIM, BLOCK_E)
            inside = present[:, None] & inside_e[None, :]
            row_offsets = sequences[:, None] * EMBED_DIM + e[None, :]
            if POOLED:
                p = tl.load(pooled_ptr + row_offsets, mask=inside, other=0.0)
            else:
                p = tl.zeros((BLOCK_B, BLOCK_E), dtype=tl.float32)
                for tile in tl.static_range(MAX_TILES):
                    counts = tl.load(counts_ptr + slots + tile, mask=present & (no_tile + tile < tiles), other=0)
                    p += tl.load(
                        sums_ptr + (slots + tile)[:, None] * EMBED_DIM + e[None, :],
                        mask=(counts > 0)[:, None] & inside_e[None, :],
                        other=0.0,
                    )
                if not BACKWARD:
                    p = p * share[:, None]
                if first_program:
                    if first_h == 0:
                        tl.store(pooled_ptr + row_offsets, p, mask=inside)
            accumulated = ()
            for chunk in tl.static_range(CHUNKS):
                h = first_h + chunk * BLOCK_H + tl.arange(0, BLOCK_H)
                inside_h = inside_dim(h, SQUEEZE_DIM, CHUNKS * BLOCK_H)
                if BACKWARD:
                    offsets = e[:, None] * SQUEEZE_DIM + h[None, :]
                    weight = load_float32(expand_weight_ptr, offsets, inside_e[:, None] & inside_h[None, :])
                else:
                    offsets = h[:, None] * EMBED_DIM + e[None, :]
                    weight = load_float32(squeeze_weight_ptr, offsets, inside_h[:, None] & inside_e[None, :])
                    weight = tl.trans(weight)
                accumulated = accumulated + (dot(p, weight, squeezed[chunk], ROW_PRECISION, INTERPRETED),)
            squeezed = accumulated

        for chunk in tl.static_range(CHUNKS):
            h = first_h + chunk * BLOCK_H + tl.arange(0, BLOCK_H)
            inside_h = inside_dim(h, SQUEEZE_DIM, CHUNKS * BLOCK_H)
            hidden_offsets = sequences[:, None] * SQUEEZE_DIM + h[None, :]
            hidden_inside = present[:, None] & inside_h[None, :]
            if BACKWARD:
                hidden = tl.load(hidden_ptr + hidden_offsets, mask=hidden_inside, other=0.0)
                inner = squeezed[chunk] * activation_slope(hidden, ACTIVATION)
                if first_program:
                    tl.store(hidden_gradient_ptr + hidden_offsets, inner, mask=hidden_inside)
                offsets = h[:, None] * EMBED_DIM + out_e[None, :]
                weight = load_float32(squeeze_weight_ptr, offsets, inside_h[:, None] & out_inside[None, :])
            else:
                inner = squeezed[chunk] + load_float32(squeeze_bias_ptr, h, inside_h)[None, :]
                if first_program:
                    tl.store(hidden_ptr + hidden_offsets, inner, mask=hidden_inside)
                inner = activate(inner, ACTIVATION)
                offsets = out_e[:, None] * SQUEEZE_DIM + h[None, :]
                weight = load_float32(expand_weight_ptr, offsets, out_inside[:, None] & inside_h[None, :])
                weight = tl.trans(weight)
            context = dot(inner, weight, context, ROW_PRECISION, INTERPRETED)

    if BACKWARD:
        context = context * share[:, None]
    else:
        bias = load_float32(expand_bias_ptr, out_e, out_inside) + load_float32(local_bias_ptr, out_e, out_inside)
        context += bias[None, :]
    tl.store(
        context_ptr + sequences[:, None] * EMBED_DIM + out_e[None, :],
        context,
        mask=present[:, None] & out_inside[None, :],
    )
