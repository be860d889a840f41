"""Backward, last stage: the eight parameter gradients from partial sums and per-sequence rows."""

import triton
import triton.language as tl

from .arithmetic import activate, round_to, row_dot
from .rows import inside_dim


@triton.jit(do_not_specialize=["batch", "splits", "bias_rows"])
def weight_grads_kernel(
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
    ROW_PARTS: tl.constexpr,
    TARGET: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """Compute dW_le, dW_ls, db_ls: sums of parts in a fixed order; dW_ge = dg^T phi(hidden), dW_gs = dhidden^T p.

    db_le = db_ge = sum_b dg_b; db_gs = sum_b dhidden_b.
    Grid (cdiv(E, BLOCK_E), cdiv(H, BLOCK_H), 5). The last axis selects the result: dW_le; dW_ls; db_ls; dW_ge, db_le
    and db_ge; or dW_gs and db_gs.
    reads   expand_parts (splits, H, E), squeeze_parts (splits, k, H, E), bias_parts (bias_rows, H) float32: once
            context_gradient, pooled (B, E), hidden, hidden_gradient (B, H) float32: once per block of the other axis
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
        store_expand(local_expand_weight_ptr, expand, e, h, inside_he, dtype, SQUEEZE_DIM, TARGET)
    elif role == 1:
        size: tl.constexpr = EMBED_DIM * SQUEEZE_DIM
        for tap in range(KERNEL_SIZE):  # not unrolled: large k would take seconds to compile
            parts = squeeze_parts_ptr + tl.full((), tap, dtype=tl.int64) * size + h_by_e
            squeeze = sum_parts(parts, splits, inside_he, KERNEL_SIZE * size, BLOCK_E, BLOCK_H)
            tl.store(
                local_squeeze_weight_ptr + h_by_e * KERNEL_SIZE + tap,
                round_to(squeeze, dtype, TARGET),
                mask=inside_he,
            )
    elif role == 2:
        if tl.program_id(0) == 0:
            bias = tl.zeros((BLOCK_H,), dtype=tl.float32)
            block_rows: tl.constexpr = 64
            for block in tl.range(0, bias_rows, block_rows, num_stages=3):
                row = block + tl.arange(0, block_rows).to(tl.int64)
                inside = (row < bias_rows)[:, None] & inside_h[None, :]
                part = tl.load(bias_parts_ptr + row[:, None] * SQUEEZE_DIM + h[None, :], mask=inside, other=0.0)
                bias += tl.sum(part, axis=0)
            tl.store(local_squeeze_bias_ptr + h, round_to(bias, dtype, TARGET), mask=inside_h)
    elif role == 3:
        gradient, context_bias, _hidden_sums = row_products(
            hidden_ptr, context_gradient_ptr, batch, h, e, inside_h, inside_e, SQUEEZE_DIM, EMBED_DIM, ACTIVATION,
            ROW_PARTS, TARGET, BLOCK_B, BLOCK_H, BLOCK_E,
        )  # fmt: skip
        store_expand(global_expand_weight_ptr, gradient, e, h, inside_he, dtype, SQUEEZE_DIM, TARGET)
        if tl.program_id(1) == 0:
            tl.store(global_expand_bias_ptr + e, round_to(context_bias, dtype, TARGET), mask=inside_e)
            tl.store(local_expand_bias_ptr + e, round_to(context_bias, dtype, TARGET), mask=inside_e)
    else:
        gradient, _pooled_sums, hidden_bias = row_products(
            hidden_gradient_ptr, pooled_ptr, batch, h, e, inside_h, inside_e, SQUEEZE_DIM, EMBED_DIM, "none",
            ROW_PARTS, TARGET, BLOCK_B, BLOCK_H, BLOCK_E,
        )  # fmt: skip
        tl.store(global_squeeze_weight_ptr + h_by_e, round_to(gradient, dtype, TARGET), mask=inside_he)
        if tl.program_id(0) == 0:
            tl.store(global_squeeze_bias_ptr + h, round_to(hidden_bias, dtype, TARGET), mask=inside_h)


@triton.jit
def row_products(
    narrow_ptr,
    wide_ptr,
    batch,
    h,
    e,
    inside_h,
    inside_e,
    SQUEEZE_DIM: tl.constexpr,
    EMBED_DIM: tl.constexpr,
    ACTIVATION: tl.constexpr,
    ROW_PARTS: tl.constexpr,
    TARGET: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Return sum_b phi(narrow_b) wide_b^T, (BLOCK_H, BLOCK_E), of rows (B, H) and (B, E) float32; and the sums of both.

    ACTIVATION "none" applies none.
    """
    products = tl.zeros((BLOCK_H, BLOCK_E), dtype=tl.float32)
    wide_sums = tl.zeros((BLOCK_B, BLOCK_E), dtype=tl.float32)
    narrow_sums = tl.zeros((BLOCK_B, BLOCK_H), dtype=tl.float32)
    for block_b in range(0, batch, BLOCK_B):
        b = block_b + tl.arange(0, BLOCK_B).to(tl.int64)
        present = b < batch
        narrow_offsets = b[:, None] * SQUEEZE_DIM + h[None, :]
        wide_offsets = b[:, None] * EMBED_DIM + e[None, :]
        narrow = tl.load(narrow_ptr + narrow_offsets, mask=present[:, None] & inside_h[None, :], other=0.0)
        wide = tl.load(wide_ptr + wide_offsets, mask=present[:, None] & inside_e[None, :], other=0.0)
        if ACTIVATION != "none":
            narrow = activate(narrow, ACTIVATION)
        products = row_dot(tl.trans(narrow), wide, products, ROW_PARTS, TARGET)
        wide_sums += wide
        narrow_sums += narrow
    return products, tl.sum(wide_sums, axis=0), tl.sum(narrow_sums, axis=0)


@triton.jit
def sum_parts(pointers, splits, inside, stride, BLOCK_E: tl.constexpr, BLOCK_H: tl.constexpr):
    """Return the sum of `splits` blocks (BLOCK_H, BLOCK_E) that are `stride` elements apart, in order."""
    total = tl.zeros((BLOCK_H, BLOCK_E), dtype=tl.float32)
    wide_stride = tl.full((), stride, dtype=tl.int64)
    for first in range(0, splits, 4):  # four loads in flight, to registers: nothing here needs shared memory
        parts = ()
        for step in tl.static_range(4):
            split = first + step
            there = inside & (tl.full((BLOCK_H, 1), split, dtype=tl.int32) < splits)
            parts = parts + (tl.load(pointers + split * wide_stride, mask=there, other=0.0),)
        for step in tl.static_range(4):
            total += parts[step]
    return total


@triton.jit
def store_expand(
    weight_ptr, gradient, e, h, inside, dtype: tl.constexpr, SQUEEZE_DIM: tl.constexpr, TARGET: tl.constexpr
):
    """Store a (BLOCK_H, BLOCK_E) block to an (E, H) weight gradient."""
    tl.store(
        weight_ptr + e[:, None] * SQUEEZE_DIM + h[None, :],
        round_to(tl.trans(gradient), dtype, TARGET),
        mask=tl.trans(inside),
    )
