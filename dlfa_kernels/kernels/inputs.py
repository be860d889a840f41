"""Backward: gradients of the two inputs, and each program's share of the local branch's weight gradients."""

import triton
import triton.language as tl

from .arithmetic import activate, dot, round_to
from .gate import gate_bias, load_expand_weight, load_squeezed
from .reduce import gate_gradient
from .rows import load_float32, load_integrated, locate_tile, real_tokens, state_offsets


@triton.jit
def load_squeeze_weight(
    weight_ptr,
    tap,
    h,
    e,
    SQUEEZE_DIM: tl.constexpr,
    EMBED_DIM: tl.constexpr,
    dtype: tl.constexpr,
    INTERPRETED: tl.constexpr,
):
    """W_ls[:, :, tap] from its (k, H, E) form, a (BLOCK_H, BLOCK_E) block."""
    inside = (h < SQUEEZE_DIM)[:, None] & (e < EMBED_DIM)[None, :]
    offsets = (tap * SQUEEZE_DIM + h[:, None]) * EMBED_DIM + e[None, :]
    return round_to(tl.load(weight_ptr + offsets, mask=inside, other=0.0), dtype, INTERPRETED)


@triton.jit(do_not_specialize=["batch", "length", "slots"])
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
    squeeze_bias_parts_ptr,
    expand_parts_ptr,
    dz_batch_stride,
    dz_row_stride,
    x_batch_stride,
    x_row_stride,
    y_batch_stride,
    y_row_stride,
    batch,
    length,
    slots,
    EMBED_DIM: tl.constexpr,
    SQUEEZE_DIM: tl.constexpr,
    KERNEL_SIZE: tl.constexpr,
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
):
    """dx = dz m + dw', dy = dz (1-m) + dw' with SELECT; else one gradient dz m + dw' serves both inputs.

    dw'_bt = sum_j W_ls[:, :, j]^T da_b,t-j+(k-1)/2 + dp_b / |V_b|. Channel-major: a program keeps a block of channels
    and walks over every `splits`-th slot, so that dW_le, dW_ls (k = 1; wider kernels: taps_kernel) and db_ls gather in
    registers. Blocks are channels by tokens here, so that every product has the channels as its rows.

    Grid (cdiv(E, BLOCK_E), splits, cdiv(H, BLOCK_H)). With one block of H:
    reads   dz, x, y (B, T, E): once; tiles without a real token are not read
            squeezed (rows, H): once a block of E; squeezed_gradient (rows, H): k times a block of E
            squeeze_weight (k, H, E), expand_weight (E, H), expand_bias (E,): once a tile, from cache
            context, pooled_gradient (B, E) float32: once a tile; mask, cu_seqlens: once a tile and block of E
    writes  dx (B, T, E), and dy with SELECT: once
            expand_parts and, at k = 1, squeeze_parts (splits, E, H), squeeze_bias_parts (splits, H),
            float32: once
    """
    e = tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    h = tl.program_id(2) * BLOCK_H + tl.arange(0, BLOCK_H)
    first_program = tl.program_id(2) == 0
    inside_e = e < EMBED_DIM
    state_dtype: tl.constexpr = x_ptr.dtype.element_ty
    expand_part = tl.zeros((BLOCK_E, BLOCK_H), dtype=tl.float32)
    if KERNEL_SIZE == 1:
        squeeze_part = tl.zeros((BLOCK_E, BLOCK_H), dtype=tl.float32)
    bias_part = tl.zeros((BLOCK_H,), dtype=tl.float32)

    for slot in range(tl.program_id(1), slots, tl.num_programs(1)):
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

            u = activate(load_squeezed(squeezed_ptr, packed_rows, real, h, SQUEEZE_DIM), ACTIVATION)
            u = round_to(u, state_dtype, INTERPRETED)
            local = tl.zeros((BLOCK_E, BLOCK_T), dtype=tl.float32)
            if SQUEEZE_DIM <= BLOCK_H:
                weight = load_expand_weight(expand_weight_ptr, h, e, SQUEEZE_DIM, EMBED_DIM, state_dtype, INTERPRETED)
                local = dot(tl.trans(weight), tl.trans(u), local, PRECISION, INTERPRETED)
            else:
                for block_h in range(0, SQUEEZE_DIM, BLOCK_H):
                    any_h = block_h + tl.arange(0, BLOCK_H)
                    any_u = activate(load_squeezed(squeezed_ptr, packed_rows, real, any_h, SQUEEZE_DIM), ACTIVATION)
                    any_u = round_to(any_u, state_dtype, INTERPRETED)
                    weight = load_expand_weight(
                        expand_weight_ptr, any_h, e, SQUEEZE_DIM, EMBED_DIM, state_dtype, INTERPRETED
                    )
                    local = dot(tl.trans(weight), tl.trans(any_u), local, PRECISION, INTERPRETED)
            m = tl.sigmoid(local + gate_bias(expand_bias_ptr, context_ptr, sequence, e, EMBED_DIM)[:, None])

            dz = load_float32(dz_ptr, dz_rows[None, :] + e[:, None], inside)
            x = load_float32(x_ptr, x_rows[None, :] + e[:, None], inside)
            y = x
            w = x
            if HAS_LOWER:
                y = load_float32(y_ptr, y_rows[None, :] + e[:, None], inside)
                w = x + y
            ds = round_to(gate_gradient(dz, m, x, y, SELECT, HAS_LOWER), state_dtype, INTERPRETED)
            expand_part = dot(ds, u, expand_part, PRECISION, INTERPRETED)

            branches = tl.zeros((BLOCK_E, BLOCK_T), dtype=tl.float32)
            for tap in tl.static_range(KERNEL_SIZE):
                da = load_tap_gradient(
                    squeezed_gradient_ptr, mask_ptr, sequence, positions, rows, first_row, length, tap, h,
                    SQUEEZE_DIM, KERNEL_SIZE, HAS_MASK,
                )  # fmt: skip
                if SQUEEZE_DIM <= BLOCK_H:
                    weight = load_squeeze_weight(
                        squeeze_weight_ptr, tap, h, e, SQUEEZE_DIM, EMBED_DIM, state_dtype, INTERPRETED
                    )
                    branches = dot(tl.trans(weight), tl.trans(da), branches, PRECISION, INTERPRETED)
                else:
                    for block_h in range(0, SQUEEZE_DIM, BLOCK_H):
                        any_h = block_h + tl.arange(0, BLOCK_H)
                        any_da = load_tap_gradient(
                            squeezed_gradient_ptr, mask_ptr, sequence, positions, rows, first_row, length, tap, any_h,
                            SQUEEZE_DIM, KERNEL_SIZE, HAS_MASK,
                        )  # fmt: skip
                        weight = load_squeeze_weight(
                            squeeze_weight_ptr, tap, any_h, e, SQUEEZE_DIM, EMBED_DIM, state_dtype, INTERPRETED
                        )
                        branches = dot(tl.trans(weight), tl.trans(any_da), branches, PRECISION, INTERPRETED)
                if tap == (KERNEL_SIZE - 1) // 2:
                    bias_part += tl.sum(da.to(tl.float32), axis=0)
                if KERNEL_SIZE == 1:
                    squeeze_part = dot(round_to(w, state_dtype, INTERPRETED), da, squeeze_part, PRECISION, INTERPRETED)

            branches += load_float32(pooled_gradient_ptr, sequence * EMBED_DIM + e, inside_e)[:, None]
            dx = tl.where(inside, dz * m + branches, 0.0)
            dy = tl.where(inside, dz * (1 - m) + branches, 0.0)
        else:
            dx = tl.zeros((BLOCK_E, BLOCK_T), dtype=tl.float32)
            dy = dx
        if first_program:
            tl.store(dx_ptr + out_offsets, round_to(dx, state_dtype, INTERPRETED), mask=written)
            if SELECT:
                tl.store(dy_ptr + out_offsets, round_to(dy, state_dtype, INTERPRETED), mask=written)

    part = tl.program_id(1).to(tl.int64)
    inside_h = h < SQUEEZE_DIM
    inside_eh = inside_e[:, None] & inside_h[None, :]
    part_offsets = (part * EMBED_DIM + e[:, None]) * SQUEEZE_DIM + h[None, :]
    tl.store(expand_parts_ptr + part_offsets, expand_part, mask=inside_eh)
    if KERNEL_SIZE == 1:
        tl.store(squeeze_parts_ptr + part_offsets, squeeze_part, mask=inside_eh)
    if tl.program_id(0) == 0:
        tl.store(squeeze_bias_parts_ptr + part * SQUEEZE_DIM + h, bias_part, mask=inside_h)


@triton.jit
def load_tap_gradient(
    squeezed_gradient_ptr,
    mask_ptr,
    sequence,
    positions,
    rows,
    first_row,
    length,
    tap,
    h,
    SQUEEZE_DIM: tl.constexpr,
    KERNEL_SIZE: tl.constexpr,
    HAS_MASK: tl.constexpr,
):
    """da of the token that saw each position through `tap`, (BLOCK_T, BLOCK_H); zero where that is no real token."""
    seers = positions - (tap - (KERNEL_SIZE - 1) // 2)
    real = real_tokens(mask_ptr, sequence, seers, rows, length, HAS_MASK)
    inside = real[:, None] & (h < SQUEEZE_DIM)[None, :]
    return tl.load(
        squeezed_gradient_ptr + (first_row + seers)[:, None] * SQUEEZE_DIM + h[None, :], mask=inside, other=0.0
    )


@triton.jit(do_not_specialize=["batch", "length", "slots"])
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
    slots,
    EMBED_DIM: tl.constexpr,
    SQUEEZE_DIM: tl.constexpr,
    KERNEL_SIZE: tl.constexpr,
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
    writes  squeeze_parts (splits, k, E, H) float32: once
    """
    blocks_e: tl.constexpr = (EMBED_DIM + BLOCK_E - 1) // BLOCK_E
    e = (tl.program_id(0) % blocks_e) * BLOCK_E + tl.arange(0, BLOCK_E)
    h = (tl.program_id(0) // blocks_e) * BLOCK_H + tl.arange(0, BLOCK_H)
    tap = tl.program_id(2)
    state_dtype: tl.constexpr = x_ptr.dtype.element_ty
    part = tl.zeros((BLOCK_E, BLOCK_H), dtype=tl.float32)
    for slot in range(tl.program_id(1), slots, tl.num_programs(1)):
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
            da = load_tap_gradient(
                squeezed_gradient_ptr, mask_ptr, sequence, positions, rows, first_row, length, tap, h,
                SQUEEZE_DIM, KERNEL_SIZE, HAS_MASK,
            )  # fmt: skip
            part = dot(round_to(w, state_dtype, INTERPRETED), da, part, PRECISION, INTERPRETED)
    row = (tl.program_id(1).to(tl.int64) * KERNEL_SIZE + tap) * EMBED_DIM + e
    tl.store(
        squeeze_parts_ptr + row[:, None] * SQUEEZE_DIM + h[None, :],
        part,
        mask=(e < EMBED_DIM)[:, None] & (h < SQUEEZE_DIM)[None, :],
    )
