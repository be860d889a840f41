"""Backward: gradients of the two inputs, and each program's part of the local branch's weight gradients."""

import triton
import triton.language as tl

from .arithmetic import add_part, dot, round_to
from .chunks import (
    chunk_channels,
    held_expand,
    load_expand_weights,
    load_squeeze_weight,
    load_squeeze_weights,
    load_squeezed,
    load_squeezed_chunks,
    read_expand,
    transposed,
    zero_chunks,
)
from .gate import gate_gradient, sigmoid
from .rows import (
    STRIDES,
    add_sequence_rows,
    contiguous_rows,
    dealt,
    inside_dim,
    load_last,
    load_sequence_rows,
    locate_real_tokens,
    real_tokens,
    row_offsets,
    rows_inside,
    store_zeros,
    tile_pointer,
    tile_positions,
)


@triton.jit(do_not_specialize=STRIDES + ["batch", "length", "first_slot", "end_slot", "rotation"])
def input_grads_kernel(
    dz_ptr,
    x_ptr,
    y_ptr,
    mask_ptr,
    cu_seqlens_ptr,
    u_ptr,
    squeezed_gradient_ptr,
    squeeze_weight_ptr,
    expand_weight_ptr,
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
    rotation,
    EMBED_DIM: tl.constexpr,
    SQUEEZE_DIM: tl.constexpr,
    KERNEL_SIZE: tl.constexpr,
    NEEDS_DX: tl.constexpr,
    ADD: tl.constexpr,
    SELECT: tl.constexpr,
    HAS_LOWER: tl.constexpr,
    HAS_MASK: tl.constexpr,
    PACKED: tl.constexpr,
    ALIGN: tl.constexpr,
    TARGET: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
    CHUNKS: tl.constexpr,
    EARLY: tl.constexpr,
    AHEAD: tl.constexpr,
    SEQUENCES: tl.constexpr,
):
    """Compute dx = dz m + dw', dy = dz (1-m) + dw' with SELECT; else one gradient dz m + dw' serves both inputs.

    dw'_bt = sum_j W_ls[:, :, j]^T da_b,t-j+(k-1)/2 + dp_b / |V_b|. A program works on one block of channels and
    iterates over its slots of a group, which `splits` programs deal (`dealt`), so that dW_le and dW_ls (k = 1; wider
    kernels: tap_grads_kernel) accumulate in registers, transposed. Slots are in reverse order, as in `expand_kernel`:
    rows that L2 still holds come first. Without NEEDS_DX, when the states need no gradient, it computes only these
    weight gradients.
    With EARLY all loads of a tile precede its first product, except dz of float32, so that the program waits for memory
    once; that takes more registers on chips whose products have their operands in registers. With AHEAD too it waits
    less: it loads u of its next tile after the input gradients of this one, and da too if registers allow
    (`da_ahead`), so that they arrive during the products of the weight gradients. It loads dz, x and y before the
    product that waits for u alone.

    Derived constants, and the shipped cases that have them:
    gathered    products of 16 bits: operands are loaded once for all of their products; all below require it
    held        all of H in one program, whose two weights then stay in shared memory: H up to 256
    early       EARLY: Hopper, Blackwell (sm_100)
    ahead       AHEAD: Hopper, H over 128 and held
    late_w      dW_ls after dW_le, because u arrives first: with `ahead`, H up to 192
    da_ahead    da is loaded ahead too: with `late_w`, 16-bit states, k = 1, dx needed

    Grid (cdiv(E, BLOCK_E), splits, cdiv(H, CHUNKS BLOCK_H)). With all of H in one program:
    reads   dz, x, y (B, T, E): once; tiles without real tokens are not read
            u (rows, H): once per block of E, twice with products of float32
            squeezed_gradient (rows, H): k times per block of E, at k = 1 twice with products of float32
            squeeze_weight (k, H, E), expand_weight (E, H): once per program; squeeze_weight at k > 1, and both with
            products of float32, once per tile, from cache
            context, pooled_gradient (B, E) float32: once per tile
            mask, cu_seqlens: once per tile and block of E, the mask at k > 1 once more per tap and step of at most 64
            channels of H
            without NEEDS_DX: squeeze_weight, pooled_gradient never; squeezed_gradient once per block of E at k = 1,
            else never; mask once per tile and block of E
    writes  with NEEDS_DX dx (B, T, E), and dy with SELECT: once
            expand_parts and, at k = 1, squeeze_parts (splits, H, E) float32: once; groups after the first ADD to them
    """
    e = tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    inside_e = inside_dim(e, EMBED_DIM, BLOCK_E)
    t = tile_positions(BLOCK_T, SEQUENCES)
    row = contiguous_rows(t, length, SEQUENCES)
    state_dtype: tl.constexpr = x_ptr.dtype.element_ty
    product_dtype: tl.constexpr = u_ptr.dtype.element_ty
    expand_part = transposed(zero_chunks(BLOCK_E, SQUEEZE_DIM, CHUNKS, BLOCK_H), CHUNKS)
    squeeze_part = expand_part
    # A float32 product is three tensor-core products: operands that are gathered before it would spill.
    gathered: tl.constexpr = product_dtype.primitive_bitwidth == 16
    held: tl.constexpr = SQUEEZE_DIM <= CHUNKS * BLOCK_H and gathered
    early: tl.constexpr = EARLY > 0 and gathered
    early_dz: tl.constexpr = early and state_dtype.primitive_bitwidth == 16
    ahead: tl.constexpr = AHEAD > 0 and held and early
    # These are limited by registers and shared memory, which sums of 256 squeeze channels use up; so do float32 states,
    # and da if it is the operand of only one product.
    late_w: tl.constexpr = ahead and SQUEEZE_DIM <= 192
    da_ahead: tl.constexpr = late_w and early_dz and KERNEL_SIZE == 1 and NEEDS_DX
    if SQUEEZE_DIM <= CHUNKS * BLOCK_H:
        first_h = 0
    else:
        first_h = tl.program_id(2) * (CHUNKS * BLOCK_H)
    if held:
        # Both are read transposed and turned here: Triton 3.9 also keeps in registers what is stored in shared memory
        # as it was read, and stores it again in every iteration.
        expand_weights = transposed(
            load_expand_weights(
                expand_weight_ptr, 0, e, SQUEEZE_DIM, EMBED_DIM, product_dtype, TARGET, BLOCK_E, BLOCK_H, CHUNKS
            ),
            CHUNKS,
        )
        if NEEDS_DX and KERNEL_SIZE == 1:
            squeeze_weights = transposed(
                load_squeeze_weights(
                    squeeze_weight_ptr, e, SQUEEZE_DIM, EMBED_DIM, product_dtype, TARGET, BLOCK_E, BLOCK_H, CHUNKS
                ),
                CHUNKS,
            )

    slots, splits, last_slot = end_slot - first_slot, tl.num_programs(1), end_slot - 1
    if ahead:
        place = dealt(0, splits, rotation)
        _, real, sequence, start, rows, first_row = locate_real_tokens(
            last_slot - tl.minimum(place, slots - 1), place < slots, mask_ptr, cu_seqlens_ptr, batch, length, HAS_MASK,
            PACKED, BLOCK_T, SEQUENCES,
        )  # fmt: skip
        operands = load_operands(
            u_ptr, squeezed_gradient_ptr, first_row + start, row, real, SQUEEZE_DIM, CHUNKS, BLOCK_H, da_ahead
        )
    # Without `disable_licm`, registers hold the addresses of all operands in shared memory, and spill.
    for turn in tl.range(0, tl.cdiv(slots, splits), disable_licm=True):
        place = dealt(turn + 1 if ahead else turn, splits, rotation)
        if ahead:
            _, next_real, next_sequence, next_start, next_rows, next_first_row = locate_real_tokens(
                last_slot - tl.minimum(place, slots - 1), place < slots, mask_ptr, cu_seqlens_ptr, batch, length,
                HAS_MASK, PACKED, BLOCK_T, SEQUENCES,
            )  # fmt: skip
            next_row = next_first_row + next_start
        else:
            _, real, sequence, start, rows, first_row = locate_real_tokens(
                last_slot - tl.minimum(place, slots - 1), place < slots, mask_ptr, cu_seqlens_ptr, batch, length,
                HAS_MASK, PACKED, BLOCK_T, SEQUENCES,
            )  # fmt: skip
        tile_row = first_row + start
        dx_tile = dx_ptr + tile_row * EMBED_DIM
        dy_tile = dy_ptr
        if SELECT:
            dy_tile = dy_ptr + tile_row * EMBED_DIM
        if tl.sum(real.to(tl.int32), axis=0) > 0:
            inside = real[:, None] & inside_e[None, :]
            u_tile = u_ptr + tile_row * SQUEEZE_DIM
            gradient_tile = squeezed_gradient_ptr + tile_row * SQUEEZE_DIM
            dz_tile = tile_pointer(dz_ptr, sequence, start, first_row, dz_batch_stride, dz_row_stride, PACKED, ALIGN)
            x_tile = tile_pointer(x_ptr, sequence, start, first_row, x_batch_stride, x_row_stride, PACKED, ALIGN)
            y_tile = tile_pointer(y_ptr, sequence, start, first_row, y_batch_stride, y_row_stride, PACKED, ALIGN)
            x_rows = row_offsets(t, x_batch_stride, x_row_stride, ALIGN, SEQUENCES)
            y_rows = row_offsets(t, y_batch_stride, y_row_stride, ALIGN, SEQUENCES)
            dz_rows = row_offsets(t, dz_batch_stride, dz_row_stride, ALIGN, SEQUENCES)
            x = load_last(x_tile, x_rows[:, None] + e[None, :], inside)
            if HAS_LOWER:
                y = load_last(y_tile, y_rows[:, None] + e[None, :], inside)
            if early_dz:
                dz = load_last(dz_tile, dz_rows[:, None] + e[None, :], inside)
            if da_ahead:
                da = operands[1]
            elif early and KERNEL_SIZE == 1:
                da = load_squeezed_chunks(gradient_tile, row, real, first_h, SQUEEZE_DIM, CHUNKS, BLOCK_H)
            if early and not ahead:
                u = load_squeezed_chunks(u_tile, row, real, first_h, SQUEEZE_DIM, CHUNKS, BLOCK_H)
            if ahead:
                u = operands[0]
                tl.debug_barrier()  # the assembler would move the loads after the product that should hide them
                local = held_expand(u, expand_weights, TARGET, BLOCK_T, BLOCK_E, CHUNKS)
            w = x.to(tl.float32)
            if HAS_LOWER:
                w += y.to(tl.float32)
            w = round_to(w, product_dtype, TARGET)
            gated = w  # the gate's factor; rounded, it takes half the registers
            if SELECT:
                gated = round_to(x.to(tl.float32) - y.to(tl.float32), product_dtype, TARGET)
            if KERNEL_SIZE == 1 and not late_w:
                if gathered:
                    if not early:
                        da = load_squeezed_chunks(gradient_tile, row, real, first_h, SQUEEZE_DIM, CHUNKS, BLOCK_H)
                    squeeze_part = add_products(squeeze_part, da, w, TARGET, CHUNKS)
                else:
                    squeeze_part = add_read_products(
                        squeeze_part, gradient_tile, row, real, first_h, w, SQUEEZE_DIM, TARGET, CHUNKS, BLOCK_H
                    )
            if not early_dz:
                dz = load_last(dz_tile, dz_rows[:, None] + e[None, :], inside)
                dz = dz.to(tl.float32)  # here, because later it takes more registers
            if not ahead:
                if gathered and not early:
                    u = load_squeezed_chunks(u_tile, row, real, first_h, SQUEEZE_DIM, CHUNKS, BLOCK_H)
                if held:
                    local = held_expand(u, expand_weights, TARGET, BLOCK_T, BLOCK_E, CHUNKS)
                else:
                    local = read_expand(
                        u_tile, row, real, expand_weight_ptr, e, SQUEEZE_DIM, EMBED_DIM, "none", TARGET, BLOCK_T,
                        BLOCK_E, BLOCK_H,
                    )  # fmt: skip
            context = load_sequence_rows(context_ptr, sequence, batch, e, inside_e, EMBED_DIM, SEQUENCES)
            m = sigmoid(add_sequence_rows(local, context, SEQUENCES), TARGET)
            dz = dz.to(tl.float32)
            ds = round_to(gate_gradient(dz, m, gated.to(tl.float32)), product_dtype, TARGET)
            if gathered and not early:  # here, because after the input gradients registers spill
                expand_part = add_products(expand_part, u, ds, TARGET, CHUNKS)
            if NEEDS_DX and first_h == 0:
                pooled = load_sequence_rows(pooled_gradient_ptr, sequence, batch, e, inside_e, EMBED_DIM, SEQUENCES)
                dx = add_sequence_rows(dz * m, pooled, SEQUENCES)
                if KERNEL_SIZE == 1 and held:
                    for chunk in tl.static_range(CHUNKS):
                        dx = dot(da[chunk], squeeze_weights[chunk], dx, TARGET)
                else:
                    step_h: tl.constexpr = 64 if BLOCK_H > 64 else BLOCK_H
                    blocks_h: tl.constexpr = (SQUEEZE_DIM + step_h - 1) // step_h
                    for step in range(0, KERNEL_SIZE * blocks_h):
                        tap = step // blocks_h
                        h = (step % blocks_h) * step_h + tl.arange(0, step_h)
                        shift = (KERNEL_SIZE - 1) // 2 - tap
                        output_real = real
                        if KERNEL_SIZE > 1:
                            output_real = real_tokens(mask_ptr, sequence, start + t + shift, rows, length, HAS_MASK)
                        inside_h = inside_dim(h, SQUEEZE_DIM, step_h)
                        weight = load_squeeze_weight(
                            squeeze_weight_ptr, tap, h, inside_h, e, SQUEEZE_DIM, EMBED_DIM, product_dtype, TARGET,
                            BLOCK_E,
                        )  # fmt: skip
                        tap_da = load_squeezed(gradient_tile, row + shift, output_real, h, inside_h, SQUEEZE_DIM)
                        dx = dot(tap_da, weight, dx, TARGET)
                out_offsets = row[:, None] * EMBED_DIM + e[None, :]
                tl.store(dx_tile + out_offsets, round_to(dx, state_dtype, TARGET), mask=inside)
                if SELECT:
                    dy = dx + dz * (1 - 2 * m)
                    tl.store(dy_tile + out_offsets, round_to(dy, state_dtype, TARGET), mask=inside)
            if ahead:
                next_operands = load_operands(
                    u_ptr, squeezed_gradient_ptr, next_row, row, next_real, SQUEEZE_DIM, CHUNKS, BLOCK_H, da_ahead
                )
                tl.debug_barrier()  # as above
            if early:
                expand_part = add_products(expand_part, u, ds, TARGET, CHUNKS)
            if not gathered:
                expand_part = add_read_products(
                    expand_part, u_tile, row, real, first_h, ds, SQUEEZE_DIM, TARGET, CHUNKS, BLOCK_H
                )
            if KERNEL_SIZE == 1 and late_w:
                squeeze_part = add_products(squeeze_part, da, w, TARGET, CHUNKS)
        elif ahead:
            next_operands = load_operands(
                u_ptr, squeezed_gradient_ptr, next_row, row, next_real, SQUEEZE_DIM, CHUNKS, BLOCK_H, da_ahead
            )
        if NEEDS_DX and first_h == 0:
            padding = rows_inside(t, sequence, start, rows, batch, SEQUENCES) & ~real
            if tl.sum(padding.to(tl.int32), axis=0) > 0:
                begin = tl.program_id(0) * BLOCK_E
                store_zeros(dx_tile, row, padding, begin, begin + BLOCK_E, EMBED_DIM, BLOCK_T, BLOCK_E)
                if SELECT:
                    store_zeros(dy_tile, row, padding, begin, begin + BLOCK_E, EMBED_DIM, BLOCK_T, BLOCK_E)
        if ahead:
            operands, real = next_operands, next_real
            sequence, start, rows, first_row = next_sequence, next_start, next_rows, next_first_row

    part_row = tl.program_id(1).to(tl.int64) * SQUEEZE_DIM
    for chunk in tl.static_range(CHUNKS):
        h, inside_h = chunk_channels(first_h, chunk, SQUEEZE_DIM, CHUNKS, BLOCK_H)
        part_offsets = (part_row + h)[:, None] * EMBED_DIM + e[None, :]
        inside = inside_h[:, None] & inside_e[None, :]
        add_part(expand_parts_ptr + part_offsets, expand_part[chunk], inside, ADD)
        if KERNEL_SIZE == 1:
            add_part(squeeze_parts_ptr + part_offsets, squeeze_part[chunk], inside, ADD)


@triton.jit
def load_operands(
    u_ptr,
    gradient_ptr,
    row,
    t,
    real,
    SQUEEZE_DIM: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK_H: tl.constexpr,
    DA: tl.constexpr,
):
    """Load the blocks of u of the tile that begins at `row` and, with DA, those of da: one or two tuples."""
    operands = (load_squeezed_chunks(u_ptr + row * SQUEEZE_DIM, t, real, 0, SQUEEZE_DIM, CHUNKS, BLOCK_H),)
    if DA:
        da = load_squeezed_chunks(gradient_ptr + row * SQUEEZE_DIM, t, real, 0, SQUEEZE_DIM, CHUNKS, BLOCK_H)
        operands = operands + (da,)
    return operands


@triton.jit
def add_products(parts, left, right, TARGET: tl.constexpr, CHUNKS: tl.constexpr):
    """Return parts + left^T right, for each block of the tuple `left`."""
    sums = ()
    for chunk in tl.static_range(CHUNKS):
        sums = sums + (dot(tl.trans(left[chunk]), right, parts[chunk], TARGET),)
    return sums


@triton.jit
def add_read_products(
    parts,
    tile_ptr,
    t,
    real,
    first_h,
    right,
    SQUEEZE_DIM: tl.constexpr,
    TARGET: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """Apply `add_products` to a tile's rows of u or da, loading each block just before its product."""
    sums = ()
    for chunk in tl.static_range(CHUNKS):
        h, inside_h = chunk_channels(first_h, chunk, SQUEEZE_DIM, CHUNKS, BLOCK_H)
        left = load_squeezed(tile_ptr, t, real, h, inside_h, SQUEEZE_DIM)
        sums = sums + (dot(tl.trans(left), right, parts[chunk], TARGET),)
    return sums
