"""Both passes: the global branch, a two-layer network on one pooled row a sequence, and its gradient."""

import triton
import triton.language as tl

from .arithmetic import activate, activation_slope, dot


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
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """Forward: g_b = W_ge phi(W_gs p_b + b_gs) + b_ge. Backward: dp_b / |V_b| = W_gs^T (phi' * (W_ge^T dg_b)) / |V_b|.

    Both squeeze E to H, act, and expand H to E: the backward with the transposed weights of the other layer and no
    bias. Grid (cdiv(end - first, BLOCK_B), cdiv(E, BLOCK_E)) over the sequences first .. end - 1: each program squeezes
    anew, which is cheaper than a launch.
    reads   POOLED: pooled (B, E) float32, p or dg, once a program
            else: sums (B * tiles, E) float32 and counts (B * tiles,) int32, once a program
            squeeze weights (H, E), (E, H): one wholly, of the other a block of E; biases alike
            backward: hidden (B, H) float32, tokens (B,) int32
    writes  context (B, E) float32, g or dp / |V|: once
            not POOLED: pooled (B, E) float32; forward also tokens (B,) int32: once
            forward: hidden (B, H) float32, before the activation; backward: hidden_gradient (B, H) float32: once
    """
    sequences = first + tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    present = sequences < end
    out_e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    first_program = tl.program_id(1) == 0

    if BACKWARD:
        tokens = tl.load(tokens_ptr + sequences, mask=present, other=0)
    elif not POOLED:
        tokens = tl.zeros((BLOCK_B,), dtype=tl.int32)
        for tile in range(tiles):
            tokens += tl.load(counts_ptr + sequences * tiles + tile, mask=present, other=0)
        if first_program:
            tl.store(tokens_ptr + sequences, tokens, mask=present)

    context = tl.zeros((BLOCK_B, BLOCK_E), dtype=tl.float32)
    for block_h in range(0, SQUEEZE_DIM, BLOCK_H):
        h = block_h + tl.arange(0, BLOCK_H)
        squeezed = tl.zeros((BLOCK_B, BLOCK_H), dtype=tl.float32)
        for block_e in range(0, EMBED_DIM, BLOCK_E):
            e = block_e + tl.arange(0, BLOCK_E)
            inside = present[:, None] & (e < EMBED_DIM)[None, :]
            row_offsets = sequences[:, None] * EMBED_DIM + e[None, :]
            if POOLED:
                p = tl.load(pooled_ptr + row_offsets, mask=inside, other=0.0)
            else:
                p = tl.zeros((BLOCK_B, BLOCK_E), dtype=tl.float32)
                for tile in range(tiles):
                    slots = sequences * tiles + tile
                    counted = tl.load(counts_ptr + slots, mask=present, other=0) > 0
                    p += tl.load(
                        sums_ptr + slots[:, None] * EMBED_DIM + e[None, :],
                        mask=counted[:, None] & (e < EMBED_DIM)[None, :],
                        other=0.0,
                    )
                if not BACKWARD:
                    p = p / tl.maximum(tokens, 1).to(tl.float32)[:, None]
                if first_program:
                    if block_h == 0:
                        tl.store(pooled_ptr + row_offsets, p, mask=inside)
            weight_inside = (h < SQUEEZE_DIM)[None, :] & (e < EMBED_DIM)[:, None]
            if BACKWARD:
                weight = tl.load(
                    expand_weight_ptr + e[:, None] * SQUEEZE_DIM + h[None, :], mask=weight_inside, other=0.0
                )
            else:
                weight = tl.load(
                    squeeze_weight_ptr + h[None, :] * EMBED_DIM + e[:, None], mask=weight_inside, other=0.0
                )
            squeezed = dot(p, weight.to(tl.float32), squeezed, PRECISION, INTERPRETED)

        hidden_offsets = sequences[:, None] * SQUEEZE_DIM + h[None, :]
        hidden_inside = present[:, None] & (h < SQUEEZE_DIM)[None, :]
        out_inside = (h < SQUEEZE_DIM)[:, None] & (out_e < EMBED_DIM)[None, :]
        if BACKWARD:
            hidden = tl.load(hidden_ptr + hidden_offsets, mask=hidden_inside, other=0.0)
            squeezed = squeezed * activation_slope(hidden, ACTIVATION)
            if first_program:
                tl.store(hidden_gradient_ptr + hidden_offsets, squeezed, mask=hidden_inside)
            weight = tl.load(squeeze_weight_ptr + h[:, None] * EMBED_DIM + out_e[None, :], mask=out_inside, other=0.0)
        else:
            squeezed += tl.load(squeeze_bias_ptr + h, mask=h < SQUEEZE_DIM, other=0.0).to(tl.float32)[None, :]
            if first_program:
                tl.store(hidden_ptr + hidden_offsets, squeezed, mask=hidden_inside)
            squeezed = activate(squeezed, ACTIVATION)
            weight = tl.load(expand_weight_ptr + out_e[None, :] * SQUEEZE_DIM + h[:, None], mask=out_inside, other=0.0)
        context = dot(squeezed, weight.to(tl.float32), context, PRECISION, INTERPRETED)

    if BACKWARD:
        context = context / tl.maximum(tokens, 1).to(tl.float32)[:, None]
    else:
        context += tl.load(expand_bias_ptr + out_e, mask=out_e < EMBED_DIM, other=0.0).to(tl.float32)[None, :]
    tl.store(
        context_ptr + sequences[:, None] * EMBED_DIM + out_e[None, :],
        context,
        mask=present[:, None] & (out_e < EMBED_DIM)[None, :],
    )
