"""Backward, last stage: the eight parameter gradients from partial sums and per-sequence rows."""

import triton
import triton.language as tl

from .arithmetic import activate, dot, round_to


@triton.jit(do_not_specialize=["batch", "splits", "bias_rows"])
def weights_kernel(
    expand_parts_ptr,
    squeeze_parts_ptr,
    bias_parts_ptr,
    pooled_ptr,
    hidden_ptr,
    context_gradient_ptr,
    hidden_gradient_ptr,
    local_squeeze_weight_ptr,
    local_squeeze_bias_ptr,
    local_expand_weight_ptr,
    local_expand_bias_ptr,
    global_squeeze_weight_ptr,
    global_squeeze_bias_ptr,
    global_expand_weight_ptr,
    global_expand_bias_ptr,
    batch,
    splits,
    bias_rows,
    EMBED_DIM: tl.constexpr,
    SQUEEZE_DIM: tl.constexpr,
    KERNEL_SIZE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """dW_le, dW_ls, db_ls: sums of parts in a fixed order; dW_ge = dg^T phi(hidden), dW_gs = dhidden^T p.

    db_le = db_ge = sum_b dg_b; db_gs = sum_b dhidden_b.
    Grid (cdiv(E, BLOCK_E), cdiv(H, BLOCK_H)).
    reads   expand_parts (splits, E, H), squeeze_parts (splits, k, E, H), bias_parts (bias_rows, H) float32: once
            context_gradient, pooled (B, E), hidden, hidden_gradient (B, H) float32: once a block of the other axis
    writes  the eight gradients, each in its parameter's shape and dtype: once
    """
    e = tl.program_id(0).to(tl.int64) * BLOCK_E + tl.arange(0, BLOCK_E)
    h = tl.program_id(1).to(tl.int64) * BLOCK_H + tl.arange(0, BLOCK_H)
    dtype: tl.constexpr = local_squeeze_weight_ptr.dtype.element_ty
    inside_e = e < EMBED_DIM
    inside_h = h < SQUEEZE_DIM
    first_e = tl.program_id(0) == 0
    first_h = tl.program_id(1) == 0
    inside_eh = inside_e[:, None] & inside_h[None, :]
    inside_he = inside_h[:, None] & inside_e[None, :]

    expand = tl.zeros((BLOCK_E, BLOCK_H), dtype=tl.float32)
    for split in range(splits):
        row = split * EMBED_DIM + e
        expand += tl.load(expand_parts_ptr + row[:, None] * SQUEEZE_DIM + h[None, :], mask=inside_eh, other=0.0)
    tl.store(
        local_expand_weight_ptr + e[:, None] * SQUEEZE_DIM + h[None, :],
        round_to(expand, dtype, INTERPRETED),
        mask=inside_eh,
    )

    for tap in tl.static_range(KERNEL_SIZE):
        squeeze = tl.zeros((BLOCK_E, BLOCK_H), dtype=tl.float32)
        for split in range(splits):
            row = (split * KERNEL_SIZE + tap) * EMBED_DIM + e
            squeeze += tl.load(squeeze_parts_ptr + row[:, None] * SQUEEZE_DIM + h[None, :], mask=inside_eh, other=0.0)
        squeeze = tl.trans(squeeze)
        offsets = (h[:, None] * EMBED_DIM + e[None, :]) * KERNEL_SIZE + tap
        tl.store(local_squeeze_weight_ptr + offsets, round_to(squeeze, dtype, INTERPRETED), mask=inside_he)

    bias = tl.zeros((BLOCK_H,), dtype=tl.float32)
    if first_e:
        for block in range(0, bias_rows, BLOCK_ROWS):
            row = block + tl.arange(0, BLOCK_ROWS).to(tl.int64)
            part_inside = (row < bias_rows)[:, None] & inside_h[None, :]
            bias += tl.sum(
                tl.load(bias_parts_ptr + row[:, None] * SQUEEZE_DIM + h[None, :], mask=part_inside, other=0.0), axis=0
            )
    if first_e:
        tl.store(local_squeeze_bias_ptr + h, round_to(bias, dtype, INTERPRETED), mask=inside_h)

    expand = tl.zeros((BLOCK_E, BLOCK_H), dtype=tl.float32)
    squeeze = tl.zeros((BLOCK_H, BLOCK_E), dtype=tl.float32)
    context_bias = tl.zeros((BLOCK_E,), dtype=tl.float32)
    hidden_bias = tl.zeros((BLOCK_H,), dtype=tl.float32)
    for block_b in range(0, batch, BLOCK_B):
        b = block_b + tl.arange(0, BLOCK_B).to(tl.int64)
        present = b < batch
        b_by_e = b[:, None] * EMBED_DIM + e[None, :]
        b_by_h = b[:, None] * SQUEEZE_DIM + h[None, :]
        inside_be = present[:, None] & inside_e[None, :]
        inside_bh = present[:, None] & inside_h[None, :]
        dg = tl.load(context_gradient_ptr + b_by_e, mask=inside_be, other=0.0)
        p = tl.load(pooled_ptr + b_by_e, mask=inside_be, other=0.0)
        hidden = tl.load(hidden_ptr + b_by_h, mask=inside_bh, other=0.0)
        dhidden = tl.load(hidden_gradient_ptr + b_by_h, mask=inside_bh, other=0.0)
        expand = dot(tl.trans(dg), activate(hidden, ACTIVATION), expand, PRECISION, INTERPRETED)
        squeeze = dot(tl.trans(dhidden), p, squeeze, PRECISION, INTERPRETED)
        context_bias += tl.sum(dg, axis=0)
        hidden_bias += tl.sum(dhidden, axis=0)
    tl.store(
        global_expand_weight_ptr + e[:, None] * SQUEEZE_DIM + h[None, :],
        round_to(expand, dtype, INTERPRETED),
        mask=inside_eh,
    )
    tl.store(
        global_squeeze_weight_ptr + h[:, None] * EMBED_DIM + e[None, :],
        round_to(squeeze, dtype, INTERPRETED),
        mask=inside_he,
    )
    if first_h:
        tl.store(global_expand_bias_ptr + e, round_to(context_bias, dtype, INTERPRETED), mask=inside_e)
        tl.store(local_expand_bias_ptr + e, round_to(context_bias, dtype, INTERPRETED), mask=inside_e)
    if first_e:
        tl.store(global_squeeze_bias_ptr + h, round_to(hidden_bias, dtype, INTERPRETED), mask=inside_h)
