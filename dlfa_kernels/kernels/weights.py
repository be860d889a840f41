"""Backward, last stage: the eight parameter gradients from partial sums and per-sequence rows."""

import triton
import triton.language as tl

from .arithmetic import activate, dot, round_to
from .rows import inside_dim


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
    ROW_PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """dW_le, dW_ls, db_ls: sums of parts in a fixed order; dW_ge = dg^T phi(hidden), dW_gs = dhidden^T p.

    db_le = db_ge = sum_b dg_b; db_gs = sum_b dhidden_b.
    Grid (cdiv(E, BLOCK_E), cdiv(H, BLOCK_H), 4): one of dW_le; dW_ls; db_ls; and what the global branch has.
    reads   expand_parts (splits, H, E), squeeze_parts (splits, k, H, E), bias_parts (bias_rows, H) float32: once
            context_gradient, pooled (B, E), hidden, hidden_gradient (B, H) float32: once a block of the other axis
    writes  the eight gradients, each in its parameter's shape and dtype: once
    """
    e = tl.program_id(0).to(tl.int64) * BLOCK_E + tl.arange(0, BLOCK_E)
    h = tl.program_id(1).to(tl.int64) * BLOCK_H + tl.arange(0, BLOCK_H)
    role = tl.program_id(2)
    dtype: tl.constexpr = local_squeeze_weight_ptr.dtype.element_ty
    inside_e = inside_dim(e, EMBED_DIM, BLOCK_E)
    inside_h = inside_dim(h, SQUEEZE_DIM, BLOCK_H)
    inside_he = inside_h[:, None] & inside_e[None, :]
    h_by_e = h[:, None] * EMBED_DIM + e[None, :]

    if role == 0:
        expand = sum_parts(expand_parts_ptr + h_by_e, splits, inside_he, EMBED_DIM * SQUEEZE_DIM, BLOCK_E, BLOCK_H)
        store_expand(local_expand_weight_ptr, expand, e, h, inside_he, dtype, SQUEEZE_DIM, INTERPRETED)
    elif role == 1:
        size: tl.constexpr = EMBED_DIM * SQUEEZE_DIM
        for tap in tl.static_range(KERNEL_SIZE):
            parts = squeeze_parts_ptr + tap * size + h_by_e
            squeeze = sum_parts(parts, splits, inside_he, KERNEL_SIZE * size, BLOCK_E, BLOCK_H)
            tl.store(
                local_squeeze_weight_ptr + h_by_e * KERNEL_SIZE + tap,
                round_to(squeeze, dtype, INTERPRETED),
                mask=inside_he,
            )
    elif role == 2:
        if tl.program_id(0) == 0:
            bias = tl.zeros((BLOCK_H,), dtype=tl.float32)
            for block in tl.range(0, bias_rows, BLOCK_ROWS, num_stages=3):
                row = block + tl.arange(0, BLOCK_ROWS).to(tl.int64)
                inside = (row < bias_rows)[:, None] & inside_h[None, :]
                part = tl.load(bias_parts_ptr + row[:, None] * SQUEEZE_DIM + h[None, :], mask=inside, other=0.0)
                bias += tl.sum(part, axis=0)
            tl.store(local_squeeze_bias_ptr + h, round_to(bias, dtype, INTERPRETED), mask=inside_h)
    else:
        expand = tl.zeros((BLOCK_H, BLOCK_E), dtype=tl.float32)
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
            expand = dot(tl.trans(activate(hidden, ACTIVATION)), dg, expand, ROW_PRECISION, INTERPRETED)
            squeeze = dot(tl.trans(dhidden), p, squeeze, ROW_PRECISION, INTERPRETED)
            context_bias += tl.sum(dg, axis=0)
            hidden_bias += tl.sum(dhidden, axis=0)
        store_expand(global_expand_weight_ptr, expand, e, h, inside_he, dtype, SQUEEZE_DIM, INTERPRETED)
        tl.store(global_squeeze_weight_ptr + h_by_e, round_to(squeeze, dtype, INTERPRETED), mask=inside_he)
        if tl.program_id(1) == 0:
            tl.store(global_expand_bias_ptr + e, round_to(context_bias, dtype, INTERPRETED), mask=inside_e)
            tl.store(local_expand_bias_ptr + e, round_to(context_bias, dtype, INTERPRETED), mask=inside_e)
        if tl.program_id(0) == 0:
            tl.store(global_squeeze_bias_ptr + h, round_to(hidden_bias, dtype, INTERPRETED), mask=inside_h)


@triton.jit
def sum_parts(pointers, splits, inside, stride, BLOCK_E: tl.constexpr, BLOCK_H: tl.constexpr):
    """Sum of `splits` blocks (BLOCK_H, BLOCK_E) that are `stride` elements apart, in their order."""
    total = tl.zeros((BLOCK_H, BLOCK_E), dtype=tl.float32)
    wide_stride = tl.full((), stride, dtype=tl.int64)
    for split in tl.range(splits, num_stages=4):
        total += tl.load(pointers + split * wide_stride, mask=inside, other=0.0)
    return total


@triton.jit
def store_expand(
    weight_ptr, gradient, e, h, inside, dtype: tl.constexpr, SQUEEZE_DIM: tl.constexpr, INTERPRETED: tl.constexpr
):
    """A (BLOCK_H, BLOCK_E) block to an (E, H) weight gradient."""
    tl.store(
        weight_ptr + e[:, None] * SQUEEZE_DIM + h[None, :],
        round_to(tl.trans(gradient), dtype, INTERPRETED),
        mask=tl.trans(inside),
    )
