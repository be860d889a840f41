"""Backward: gradients of the two inputs, and each program's share of the local branch's weight gradients."""

import triton
import triton.language as tl

from .arithmetic import dot, round_to
from .gate import gate_bias, load_u, local_expand, zero_chunks
from .reduce import gate_gradient
from .rows import load_float32, load_integrated, locate_tile, real_tokens, state_offsets
from .squeeze import load_squeeze_weight


@triton.jit(do_not_specialize=["batch", "length", "first_slot", "end_slot"])
def inputs_kernel(
    dz_ptr,
    x_ptr,
    y_ptr,
    mask_ptr,
    cu_seqlens_ptr,
    squeezed_ptr,
    squeezed_gradient_ptr,
    squeeze_weight_ptr,
    expand_weight_ptr,
    expand_bias_ptr,
    context_ptr,
    pooled_gradient_ptr,
    dx_ptr,
    dy_ptr,
    squeeze_parts_ptr,
    expand_parts_ptr,
    dz_batch_stride,
    dz_row_stride,
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
    ADD: tl.constexpr,
    SELECT: tl.constexpr,
    ACTIVATION: tl.constexpr,
    HAS_LOWER: tl.constexpr,
    HAS_MASK: tl.constexpr,
    PACKED: tl.constexpr,
    ALIGN: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """dx = dz m + dw', dy = dz (1-m) + dw' with SELECT; else one gradient dz m + dw' serves both inputs.

    dw'_bt = sum_j W_ls[:, :, j]^T da_b,t-j+(k-1)/2 + dp_b / |V_b|. Channel-major: a program keeps a block of channels
    and walks over every `splits`-th slot of a group, so that dW_le and dW_ls (k = 1; wider kernels: taps_kernel) gather
    in registers. Blocks are channels by tokens here, so that every product has the channels as its rows.

    Grid (cdiv(E, BLOCK_E), splits, cdiv(H, CHUNKS BLOCK_H)). With all of H in one program:
    reads   dz, x, y (B, T, E): once; tiles without a real token are not read
            squeezed (rows, H): once a block of E; squeezed_gradient (rows, H): k times a block of E
            squeeze_weight (k, H, E), expand_weight (E, H), expand_bias (E,): once a tile, from cache
            context, pooled_gradient (B, E) float32: once a tile; mask, cu_seqlens: once a tile and block of E
    writes  dx (B, T, E), and dy with SELECT: once
            expand_parts and, at k = 1, squeeze_parts (splits, E, H) float32: once; groups after the first ADD to them
    """
    e = tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    first_h = tl.program_id(2) * (CHUNKS * BLOCK_H)
    inside_e = e < EMBED_DIM
    state_dtype: tl.constexpr = x_ptr.dtype.element_ty
    product_dtype: tl.constexpr = squeezed_ptr.dtype.element_ty
    expand_part = zero_chunks(CHUNKS, BLOCK_E, BLOCK_H)
    squeeze_part = zero_chunks(CHUNKS, BLOCK_E, BLOCK_H)

    for slot in range(first_slot + tl.program_id(1), end_slot, tl.num_programs(1)):
        sequence, start, rows, first_row = locate_tile(slot, cu_seqlens_ptr, batch, length, BLOCK_T, PACKED)
        positions = start + tl.arange(0, BLOCK_T)
        real = real_tokens(mask_ptr, sequence, positions, rows, length, HAS_MASK)
        packed_rows = first_row + positions
        written = inside_e[:, None] & (positions < rows)[None, :]
        out_offsets = packed_rows[None, :] * EMBED_DIM + e[:, None]
        if tl.sum(real.to(tl.int32), axis=0) > 0:
            inside = inside_e[:, None] & real[None, :]
            dz_rows = state_offsets(sequence, positions, first_row, dz_batch_stride, dz_row_stride, PACKED, ALIGN)
            x_rows = state_offsets(sequence, positions, first_row, x_batch_stride, x_row_stride, PACKED, ALIGN)
            y_rows = state_offsets(sequence, positions, first_row, y_batch_stride, y_row_stride, PACKED, ALIGN)
            x = load_float32(x_ptr, x_rows[None, :] + e[:, None], inside)
            y = x
            w = x
            if HAS_LOWER:
                y = load_float32(y_ptr, y_rows[None, :] + e[:, None], inside)
                w = x + y
            branches = tl.zeros((BLOCK_E, BLOCK_T), dtype=tl.float32)
            branches += load_float32(pooled_gradient_ptr, sequence * EMBED_DIM + e, inside_e)[:, None]
            w = round_to(w, product_dtype, INTERPRETED)
            if KERNEL_SIZE == 1:
                accumulated = ()
                for chunk in tl.static_range(CHUNKS):
                    h = first_h + chunk * BLOCK_H + tl.arange(0, BLOCK_H)
                    da = load_da(squeezed_gradient_ptr, packed_rows, real, h, SQUEEZE_DIM)
                    accumulated = accumulated + (dot(w, da, squeeze_part[chunk], PRECISION, INTERPRETED),)
                squeeze_part = accumulated
            blocks_h: tl.constexpr = (SQUEEZE_DIM + BLOCK_H - 1) // BLOCK_H
            for step in range(0, KERNEL_SIZE * blocks_h):
                tap = step // blocks_h
                h = (step % blocks_h) * BLOCK_H + tl.arange(0, BLOCK_H)
                seers = positions - (tap - (KERNEL_SIZE - 1) // 2)
                seeing = real_tokens(mask_ptr, sequence, seers, rows, length, HAS_MASK)
                da = load_da(squeezed_gradient_ptr, first_row + seers, seeing, h, SQUEEZE_DIM)
                weight = load_squeeze_weight(
                    squeeze_weight_ptr, tap, h, e, SQUEEZE_DIM, EMBED_DIM, product_dtype, INTERPRETED
                )
                branches = dot(tl.trans(weight), tl.trans(da), branches, PRECISION, INTERPRETED)
            # da above and u below are read once more: held, they would cost the weight gradients' registers.
            local = local_expand(
                (), squeezed_ptr, expand_weight_ptr, packed_rows, real, e, SQUEEZE_DIM, EMBED_DIM, ACTIVATION,
                PRECISION, INTERPRETED, True, BLOCK_T, BLOCK_E, BLOCK_H, 0,
            )  # fmt: skip
            m = tl.sigmoid(local + gate_bias(expand_bias_ptr, context_ptr, sequence, e, EMBED_DIM)[:, None])
            dz = load_float32(dz_ptr, dz_rows[None, :] + e[:, None], inside)
            ds = round_to(gate_gradient(dz, m, x, y, SELECT, HAS_LOWER), product_dtype, INTERPRETED)
            accumulated = ()
            for chunk in tl.static_range(CHUNKS):
                h = first_h + chunk * BLOCK_H + tl.arange(0, BLOCK_H)
                u = load_u(squeezed_ptr, packed_rows, real, h, SQUEEZE_DIM, ACTIVATION, INTERPRETED)
                accumulated = accumulated + (dot(ds, u, expand_part[chunk], PRECISION, INTERPRETED),)
            expand_part = accumulated

            dx = tl.where(inside, dz * m + branches, 0.0)
            dy = tl.where(inside, dz * (1 - m) + branches, 0.0)
        else:
            dx = tl.zeros((BLOCK_E, BLOCK_T), dtype=tl.float32)
            dy = dx
        if first_h == 0:
            tl.store(dx_ptr + out_offsets, round_to(dx, state_dtype, INTERPRETED), mask=written)
            if SELECT:
                tl.store(dy_ptr + out_offsets, round_to(dy, state_dtype, INTERPRETED), mask=written)

    row = tl.program_id(1).to(tl.int64) * EMBED_DIM + e
    for chunk in tl.static_range(CHUNKS):
        h = first_h + chunk * BLOCK_H + tl.arange(0, BLOCK_H)
        part_offsets = row[:, None] * SQUEEZE_DIM + h[None, :]
        inside = inside_e[:, None] & (h < SQUEEZE_DIM)[None, :]
        add_part(expand_parts_ptr + part_offsets, expand_part[chunk], inside, ADD)
        if KERNEL_SIZE == 1:
            add_part(squeeze_parts_ptr + part_offsets, squeeze_part[chunk], inside, ADD)


@triton.jit
def add_part(pointers, part, inside, ADD: tl.constexpr):
    """Store a group's part of a sum: the first group's as it is, a later one's (ADD) added to what is there."""
    if ADD:
        part += tl.load(pointers, mask=inside, other=0.0)
    tl.store(pointers, part, mask=inside)


@triton.jit
def load_da(squeezed_gradient_ptr, rows, real, h, SQUEEZE_DIM: tl.constexpr):
    """da, (BLOCK_T, BLOCK_H) in the dtype of products; zero at padding, whose rows are never written."""
    inside = real[:, None] & (h < SQUEEZE_DIM)[None, :]
    return tl.load(squeezed_gradient_ptr + rows[:, None] * SQUEEZE_DIM + h[None, :], mask=inside, other=0.0)


@triton.jit(do_not_specialize=["batch", "length", "first_slot", "end_slot"])
def taps_kernel(
    x_ptr,
    y_ptr,
    mask_ptr,
    cu_seqlens_ptr,
    squeezed_gradient_ptr,
    squeeze_parts_ptr,
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
    ADD: tl.constexpr,
    HAS_LOWER: tl.constexpr,
    HAS_MASK: tl.constexpr,
    PACKED: tl.constexpr,
    ALIGN: tl.constexpr,
    PRECISION: tl.constexpr,
    INTERPRETED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """dW_ls[:, :, j] = sum_bt da_bt w_b,t+j-(k-1)/2^T for k > 1, whose taps do not fit in one program's registers.

    Grid (cdiv(E, BLOCK_E) * cdiv(H, BLOCK_H), splits, k).
    reads   x, y (B, T, E): once a tap and block of H; squeezed_gradient (rows, H): once a tap and block of E
            mask, cu_seqlens: once a tile
    writes  squeeze_parts (splits, k, E, H) float32: once; groups after the first ADD to them
    """
    blocks_e: tl.constexpr = (EMBED_DIM + BLOCK_E - 1) // BLOCK_E
    e = (tl.program_id(0) % blocks_e) * BLOCK_E + tl.arange(0, BLOCK_E)
    h = (tl.program_id(0) // blocks_e) * BLOCK_H + tl.arange(0, BLOCK_H)
    tap = tl.program_id(2)
    product_dtype: tl.constexpr = squeezed_gradient_ptr.dtype.element_ty
    part = tl.zeros((BLOCK_E, BLOCK_H), dtype=tl.float32)
    for slot in range(first_slot + tl.program_id(1), end_slot, tl.num_programs(1)):
        sequence, start, rows, first_row = locate_tile(slot, cu_seqlens_ptr, batch, length, BLOCK_T, PACKED)
        positions = start + tl.arange(0, BLOCK_T)
        real = real_tokens(mask_ptr, sequence, positions, rows, length, HAS_MASK)
        if tl.sum(real.to(tl.int32), axis=0) > 0:
            x_rows = state_offsets(sequence, positions, first_row, x_batch_stride, x_row_stride, PACKED, ALIGN)
            y_rows = state_offsets(sequence, positions, first_row, y_batch_stride, y_row_stride, PACKED, ALIGN)
            w = load_integrated(
                x_ptr, y_ptr, x_rows[None, :] + e[:, None], y_rows[None, :] + e[:, None],
                (e < EMBED_DIM)[:, None] & real[None, :], HAS_LOWER,
            )  # fmt: skip
            seers = positions - (tap - (KERNEL_SIZE - 1) // 2)
            seeing = real_tokens(mask_ptr, sequence, seers, rows, length, HAS_MASK)
            da = load_da(squeezed_gradient_ptr, first_row + seers, seeing, h, SQUEEZE_DIM)
            part = dot(round_to(w, product_dtype, INTERPRETED), da, part, PRECISION, INTERPRETED)
    row = (tl.program_id(1).to(tl.int64) * KERNEL_SIZE + tap) * EMBED_DIM + e
    inside = (e < EMBED_DIM)[:, None] & (h < SQUEEZE_DIM)[None, :]
    add_part(squeeze_parts_ptr + row[:, None] * SQUEEZE_DIM + h[None, :], part, inside, ADD)
