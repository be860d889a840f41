"""The `token=i` form: the whole sequence is pooled, but only one row a sequence is gated.

Forward: sums (of w) -> pool -> context (g) -> token_expand (z). Backward: token_reduce (ds, da) -> context (dp) ->
token_branch (gradients of the row's neighbours) -> token_inputs (dx, dy), token_parts -> weight_grads.
"""

import triton
import triton.language as tl

from .arithmetic import activate, activation_slope, dot, round_to
from .chunks import (
    chunk_channels,
    held_expand,
    load_expand_weight,
    load_expand_weights,
    load_squeeze_weight,
    transposed,
    zero_chunks,
)
from .gate import gate_gradient, sigmoid
from .rows import (
    STRIDES,
    aligned,
    inside_dim,
    load_float32,
    load_integrated,
    locate_real_tokens,
    real_tokens,
    sequence_rows,
    tile_rows,
)


@triton.jit(do_not_specialize=STRIDES + ["batch", "length"])
def sums_kernel(
    x_ptr,
    y_ptr,
    mask_ptr,
    cu_seqlens_ptr,
    sums_ptr,
    counts_ptr,
    x_batch_stride,
    x_row_stride,
    y_batch_stride,
    y_row_stride,
    batch,
    length,
    EMBED_DIM: tl.constexpr,
    HAS_LOWER: tl.constexpr,
    HAS_MASK: tl.constexpr,
    PACKED: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Compute the sum of w over each tile's real tokens.

    Grid (slots, cdiv(E, BLOCK_E)).
    reads   x, y (B, T, E): once; mask, cu_seqlens: once per tile and block of E
    writes  sums (slots, E) float32, counts (slots,) int32: once; sums only if the count is not 0
    """
    slot, real, sequence, start, _, first_row = locate_real_tokens(
        tl.program_id(0), True, mask_ptr, cu_seqlens_ptr, batch, length, HAS_MASK, PACKED, BLOCK_T
    )
    t = tl.arange(0, BLOCK_T)
    count = tl.sum(real.to(tl.int32), axis=0)
    if tl.program_id(1) == 0:
        tl.store(counts_ptr + slot, count)
    if count > 0:
        e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
        inside_e = inside_dim(e, EMBED_DIM, BLOCK_E)
        x_tile, x_rows = tile_rows(x_ptr, sequence, start, first_row, t, x_batch_stride, x_row_stride, PACKED, ALIGN)
        y_tile, y_rows = tile_rows(y_ptr, sequence, start, first_row, t, y_batch_stride, y_row_stride, PACKED, ALIGN)
        w = load_integrated(
            x_tile, y_tile, x_rows[:, None] + e[None, :], y_rows[:, None] + e[None, :],
            real[:, None] & inside_e[None, :], HAS_LOWER,
        )  # fmt: skip
        tl.store(sums_ptr + slot * EMBED_DIM + e, tl.sum(w, axis=0), mask=inside_e)


@triton.jit
def token_positions(
    mask_ptr, cu_seqlens_ptr, sequences, token, offset, batch, length, HAS_MASK: tl.constexpr, PACKED: tl.constexpr
):
    """Return each sequence's first row (int64), the position token + offset, and whether that is a real token."""
    present = sequences < batch
    first_rows, rows = sequence_rows(cu_seqlens_ptr, sequences, length, present, PACKED)
    positions = tl.zeros_like(sequences) + token + offset
    real = real_tokens(mask_ptr, sequences, positions, rows, length, HAS_MASK)
    return first_rows, positions, real


@triton.jit
def state_offsets(
    sequences, positions, first_rows, batch_stride, row_stride, PACKED: tl.constexpr, ALIGN: tl.constexpr
):
    """Return the offset in x or y of the first channel of each sequence's position; ALIGN divides both strides."""
    row_stride = aligned(row_stride, ALIGN)
    if PACKED:
        return (first_rows + positions) * row_stride
    else:
        return sequences * aligned(batch_stride, ALIGN) + positions * row_stride


@triton.jit(do_not_specialize=STRIDES + ["batch", "length", "token"])
def token_expand_kernel(
    x_ptr,
    y_ptr,
    mask_ptr,
    cu_seqlens_ptr,
    squeeze_weight_ptr,
    squeeze_bias_ptr,
    expand_weight_ptr,
    context_ptr,
    squeezed_ptr,
    z_ptr,
    x_batch_stride,
    x_row_stride,
    y_batch_stride,
    y_row_stride,
    batch,
    length,
    token,
    EMBED_DIM: tl.constexpr,
    SQUEEZE_DIM: tl.constexpr,
    KERNEL_SIZE: tl.constexpr,
    SELECT: tl.constexpr,
    ACTIVATION: tl.constexpr,
    HAS_LOWER: tl.constexpr,
    HAS_MASK: tl.constexpr,
    PACKED: tl.constexpr,
    ALIGN: tl.constexpr,
    TARGET: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """Squeeze, expand, gate and fuse one token a sequence; BLOCK_B sequences a program.

    Grid (cdiv(B, BLOCK_B), cdiv(E, BLOCK_E)): each program repeats the squeeze, which is cheaper than a launch. If H is
    wider than CHUNKS BLOCK_H, a program reads x, y and mask again for each such part of it; else:
    reads   x, y: rows token - (k-1)/2 .. token + (k-1)/2 of each sequence, once per program, the chosen one once more
            all of squeeze_weight (k, H, E) and a block of E of expand_weight (E, H): once per program
            context (B, E) float32: once; mask, cu_seqlens at these rows: by every program
    writes  squeezed (B, H) float32, before the activation, and z (B, E): once
    """
    sequences = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    present = sequences < batch
    out_e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    state_dtype: tl.constexpr = x_ptr.dtype.element_ty
    first_rows, positions, wanted = token_positions(
        mask_ptr, cu_seqlens_ptr, sequences, token, 0, batch, length, HAS_MASK, PACKED
    )
    local = tl.zeros((BLOCK_B, BLOCK_E), dtype=tl.float32)
    for first_h in range(0, SQUEEZE_DIM, CHUNKS * BLOCK_H):
        a = zero_chunks(BLOCK_B, SQUEEZE_DIM, CHUNKS, BLOCK_H)
        # `disable_licm` prevents unrolling of the loop, which would spill.
        for step in tl.range(0, tl.cdiv(EMBED_DIM, BLOCK_E) * KERNEL_SIZE, disable_licm=True):
            e = (step // KERNEL_SIZE) * BLOCK_E + tl.arange(0, BLOCK_E)
            if KERNEL_SIZE == 1:  # a mask read within the loop would delay all other loads
                tap = 0
                neighbours = positions
                seen = wanted
            else:
                tap = step % KERNEL_SIZE
                _, neighbours, seen = token_positions(
                    mask_ptr, cu_seqlens_ptr, sequences, token, tap - (KERNEL_SIZE - 1) // 2, batch, length, HAS_MASK,
                    PACKED,
                )  # fmt: skip
            x_offsets = state_offsets(sequences, neighbours, first_rows, x_batch_stride, x_row_stride, PACKED, ALIGN)
            y_offsets = state_offsets(sequences, neighbours, first_rows, y_batch_stride, y_row_stride, PACKED, ALIGN)
            w = load_integrated(
                x_ptr, y_ptr, x_offsets[:, None] + e[None, :], y_offsets[:, None] + e[None, :],
                seen[:, None] & inside_dim(e, EMBED_DIM, BLOCK_E)[None, :], HAS_LOWER,
            )  # fmt: skip
            w = round_to(w, state_dtype, TARGET)
            accumulated = ()
            for chunk in tl.static_range(CHUNKS):
                h, inside_h = chunk_channels(first_h, chunk, SQUEEZE_DIM, CHUNKS, BLOCK_H)
                weight = load_squeeze_weight(
                    squeeze_weight_ptr, tap, h, inside_h, e, SQUEEZE_DIM, EMBED_DIM, state_dtype, TARGET, BLOCK_E
                )
                accumulated = accumulated + (dot(w, tl.trans(weight), a[chunk], TARGET),)
            a = accumulated
        for chunk in tl.static_range(CHUNKS):
            h, inside_h = chunk_channels(first_h, chunk, SQUEEZE_DIM, CHUNKS, BLOCK_H)
            squeezed = a[chunk] + load_float32(squeeze_bias_ptr, h, inside_h)[None, :]
            if tl.program_id(1) == 0:
                tl.store(
                    squeezed_ptr + sequences[:, None] * SQUEEZE_DIM + h[None, :],
                    squeezed,
                    mask=present[:, None] & inside_h[None, :],
                )
            u = round_to(activate(squeezed, ACTIVATION), state_dtype, TARGET)
            weight = load_expand_weight(
                expand_weight_ptr, h, inside_h, out_e, SQUEEZE_DIM, EMBED_DIM, state_dtype, TARGET, BLOCK_E
            )
            local = dot(u, tl.trans(weight), local, TARGET)

    inside_e = (out_e < EMBED_DIM)[None, :]
    out_offsets = sequences[:, None] * EMBED_DIM + out_e[None, :]
    m = sigmoid(local + load_float32(context_ptr, out_offsets, present[:, None] & inside_e), TARGET)
    inside = wanted[:, None] & inside_e
    x_offsets = state_offsets(sequences, positions, first_rows, x_batch_stride, x_row_stride, PACKED, ALIGN)
    x = load_float32(x_ptr, x_offsets[:, None] + out_e[None, :], inside)
    z = m * x
    if HAS_LOWER:
        y_offsets = state_offsets(sequences, positions, first_rows, y_batch_stride, y_row_stride, PACKED, ALIGN)
        y = load_float32(y_ptr, y_offsets[:, None] + out_e[None, :], inside)
        if SELECT:
            z += (1 - m) * y
        else:
            z = m * (x + y)  # not a sum of products: x and y may nearly cancel
    z = tl.where(inside, z, 0.0)
    tl.store(z_ptr + out_offsets, round_to(z, state_dtype, TARGET), mask=present[:, None] & inside_e)


@triton.jit
def load_token_u(
    squeezed_ptr,
    sequences,
    present,
    h,
    inside_h,
    SQUEEZE_DIM: tl.constexpr,
    ACTIVATION: tl.constexpr,
    dtype: tl.constexpr,
    TARGET: tl.constexpr,
):
    """Load u of a block of sequences, (BLOCK_B, BLOCK_H)."""
    inside = present[:, None] & inside_h[None, :]
    a = load_float32(squeezed_ptr, sequences[:, None] * SQUEEZE_DIM + h[None, :], inside)
    return round_to(activate(a, ACTIVATION), dtype, TARGET)


@triton.jit(do_not_specialize=STRIDES + ["batch", "length", "token"])
def token_reduce_kernel(
    dz_ptr,
    x_ptr,
    y_ptr,
    mask_ptr,
    cu_seqlens_ptr,
    squeezed_ptr,
    expand_weight_ptr,
    context_ptr,
    gate_ptr,
    context_gradient_ptr,
    squeezed_gradient_ptr,
    dz_batch_stride,
    x_batch_stride,
    x_row_stride,
    y_batch_stride,
    y_row_stride,
    batch,
    length,
    token,
    EMBED_DIM: tl.constexpr,
    SQUEEZE_DIM: tl.constexpr,
    SELECT: tl.constexpr,
    ACTIVATION: tl.constexpr,
    HAS_LOWER: tl.constexpr,
    HAS_MASK: tl.constexpr,
    PACKED: tl.constexpr,
    ALIGN: tl.constexpr,
    TARGET: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """Compute ds of the chosen rows, which is also dg, and da = phi'(a) * (W_le^T ds).

    Grid (cdiv(B, BLOCK_B), cdiv(H, BLOCK_H)).
    reads   dz (B, E), the chosen rows of x, y and mask, cu_seqlens, context (B, E) float32: once per block of H
            squeezed (B, H) float32, expand_weight (E, H): all of H once per program, its own block of H once more;
            if H is wider than CHUNKS BLOCK_H, all of `squeezed` once per block of E
    writes  gate m, context_gradient ds (B, E), squeezed_gradient da (B, H), float32: once
    """
    sequences = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    present = sequences < batch
    own_h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    own_inside_h = inside_dim(own_h, SQUEEZE_DIM, BLOCK_H)
    state_dtype: tl.constexpr = x_ptr.dtype.element_ty
    first_rows, positions, wanted = token_positions(
        mask_ptr, cu_seqlens_ptr, sequences, token, 0, batch, length, HAS_MASK, PACKED
    )
    x_offsets = state_offsets(sequences, positions, first_rows, x_batch_stride, x_row_stride, PACKED, ALIGN)
    y_offsets = state_offsets(sequences, positions, first_rows, y_batch_stride, y_row_stride, PACKED, ALIGN)
    held: tl.constexpr = SQUEEZE_DIM <= CHUNKS * BLOCK_H
    if held:
        u = ()
        for chunk in tl.static_range(CHUNKS):
            h, inside_h = chunk_channels(0, chunk, SQUEEZE_DIM, CHUNKS, BLOCK_H)
            chunk_u = load_token_u(
                squeezed_ptr, sequences, present, h, inside_h, SQUEEZE_DIM, ACTIVATION, state_dtype, TARGET
            )
            u = u + (chunk_u,)
    du = tl.zeros((BLOCK_B, BLOCK_H), dtype=tl.float32)
    for block_e in range(0, EMBED_DIM, BLOCK_E):
        e = block_e + tl.arange(0, BLOCK_E)
        if held:
            weights = load_expand_weights(
                expand_weight_ptr, 0, e, SQUEEZE_DIM, EMBED_DIM, state_dtype, TARGET, BLOCK_E, BLOCK_H, CHUNKS
            )
            local = held_expand(u, transposed(weights, CHUNKS), TARGET, BLOCK_B, BLOCK_E, CHUNKS)
        else:
            local = tl.zeros((BLOCK_B, BLOCK_E), dtype=tl.float32)
            for block_h in range(0, SQUEEZE_DIM, BLOCK_H):
                h = block_h + tl.arange(0, BLOCK_H)
                inside_h = inside_dim(h, SQUEEZE_DIM, BLOCK_H)
                block_u = load_token_u(
                    squeezed_ptr, sequences, present, h, inside_h, SQUEEZE_DIM, ACTIVATION, state_dtype, TARGET
                )
                weight = load_expand_weight(
                    expand_weight_ptr, h, inside_h, e, SQUEEZE_DIM, EMBED_DIM, state_dtype, TARGET, BLOCK_E
                )
                local = dot(block_u, tl.trans(weight), local, TARGET)
        out_offsets = sequences[:, None] * EMBED_DIM + e[None, :]
        out_inside = present[:, None] & (e < EMBED_DIM)[None, :]
        inside = wanted[:, None] & (e < EMBED_DIM)[None, :]
        m = sigmoid(local + load_float32(context_ptr, out_offsets, out_inside), TARGET)
        dz = load_float32(dz_ptr, sequences[:, None] * aligned(dz_batch_stride, ALIGN) + e[None, :], inside)
        x = load_float32(x_ptr, x_offsets[:, None] + e[None, :], inside)
        gated = x
        if HAS_LOWER:
            y = load_float32(y_ptr, y_offsets[:, None] + e[None, :], inside)
            gated = x - y if SELECT else x + y
        ds = gate_gradient(dz, m, gated)
        if tl.program_id(1) == 0:
            tl.store(gate_ptr + out_offsets, m, mask=out_inside)
            tl.store(context_gradient_ptr + out_offsets, ds, mask=out_inside)
        weight = load_expand_weight(
            expand_weight_ptr, own_h, own_inside_h, e, SQUEEZE_DIM, EMBED_DIM, state_dtype, TARGET, BLOCK_E
        )
        du = dot(round_to(ds, state_dtype, TARGET), weight, du, TARGET)
    own_offsets = sequences[:, None] * SQUEEZE_DIM + own_h[None, :]
    own_inside = present[:, None] & own_inside_h[None, :]
    a = load_float32(squeezed_ptr, own_offsets, own_inside)
    tl.store(squeezed_gradient_ptr + own_offsets, du * activation_slope(a, ACTIVATION), mask=own_inside)


@triton.jit(do_not_specialize=["batch"])
def token_branch_kernel(
    squeezed_gradient_ptr,
    squeeze_weight_ptr,
    branch_ptr,
    batch,
    EMBED_DIM: tl.constexpr,
    SQUEEZE_DIM: tl.constexpr,
    KERNEL_SIZE: tl.constexpr,
    TARGET: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """Compute branch_bj = W_ls[:, :, j]^T da_b, the gradient of the row that tap j reads.

    Grid (cdiv(B, BLOCK_B), cdiv(E, BLOCK_E), k).
    reads   squeezed_gradient (B, H) float32: once per tap and block of E; squeeze_weight (k, H, E): once per program
    writes  branch (B, k, E) float32: once
    """
    sequences = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    present = sequences < batch
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    tap = tl.program_id(2)
    branch = tl.zeros((BLOCK_B, BLOCK_E), dtype=tl.float32)
    for block_h in range(0, SQUEEZE_DIM, BLOCK_H):
        h = block_h + tl.arange(0, BLOCK_H)
        inside_h = inside_dim(h, SQUEEZE_DIM, BLOCK_H)
        da = load_float32(
            squeezed_gradient_ptr, sequences[:, None] * SQUEEZE_DIM + h[None, :], present[:, None] & inside_h[None, :]
        )
        weight = load_squeeze_weight(
            squeeze_weight_ptr, tap, h, inside_h, e, SQUEEZE_DIM, EMBED_DIM, tl.float32, TARGET, BLOCK_E
        )
        branch = dot(da, weight, branch, TARGET)
    tl.store(
        branch_ptr + (sequences[:, None] * KERNEL_SIZE + tap) * EMBED_DIM + e[None, :],
        branch,
        mask=present[:, None] & (e < EMBED_DIM)[None, :],
    )


@triton.jit(do_not_specialize=STRIDES + ["batch", "length", "token"])
def token_inputs_kernel(
    dz_ptr,
    mask_ptr,
    cu_seqlens_ptr,
    gate_ptr,
    branch_ptr,
    pooled_gradient_ptr,
    dx_ptr,
    dy_ptr,
    dz_batch_stride,
    batch,
    length,
    token,
    EMBED_DIM: tl.constexpr,
    KERNEL_SIZE: tl.constexpr,
    SELECT: tl.constexpr,
    HAS_MASK: tl.constexpr,
    PACKED: tl.constexpr,
    ALIGN: tl.constexpr,
    TARGET: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Compute dx_bt = dp_b / |V_b| at real tokens, + branch_bj at token + j - (k-1)/2, + dz_b m_b at the token.

    Grid (slots, cdiv(E, BLOCK_E)). With SELECT dy has dz (1 - m) instead of dz m; else dx serves both inputs.
    reads   pooled_gradient (B, E) float32: once per tile; mask, cu_seqlens: once per tile and block of E
            gate (B, E), branch (B, k, E) float32, dz (B, E): once, if a tile holds the token or one its taps read
    writes  dx (B, T, E), and dy with SELECT: once
    """
    _, real, sequence, start, rows, first_row = locate_real_tokens(
        tl.program_id(0), True, mask_ptr, cu_seqlens_ptr, batch, length, HAS_MASK, PACKED, BLOCK_T
    )
    positions = start + tl.arange(0, BLOCK_T)
    e = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    inside_e = (e < EMBED_DIM)[None, :]
    inside = real[:, None] & inside_e
    shared = tl.zeros((BLOCK_T, BLOCK_E), dtype=tl.float32)
    shared += load_float32(pooled_gradient_ptr, sequence * EMBED_DIM + e, e < EMBED_DIM)[None, :]
    tap = positions - token + (KERNEL_SIZE - 1) // 2
    seen = (real & (tap >= 0) & (tap < KERNEL_SIZE))[:, None] & inside_e
    shared += load_float32(branch_ptr, (sequence * KERNEL_SIZE + tap)[:, None] * EMBED_DIM + e[None, :], seen)
    chosen = (positions == token)[:, None] & inside
    row = tl.zeros_like(positions)[:, None] + e[None, :]
    dz = load_float32(dz_ptr, sequence * aligned(dz_batch_stride, ALIGN) + row, chosen)
    m = load_float32(gate_ptr, sequence * EMBED_DIM + row, chosen)
    out_offsets = (first_row + positions)[:, None] * EMBED_DIM + e[None, :]
    written = (positions < rows)[:, None] & inside_e
    state_dtype: tl.constexpr = dx_ptr.dtype.element_ty
    dx = tl.where(inside, shared + dz * m, 0.0)
    tl.store(dx_ptr + out_offsets, round_to(dx, state_dtype, TARGET), mask=written)
    if SELECT:
        dy = tl.where(inside, shared + dz * (1 - m), 0.0)
        tl.store(dy_ptr + out_offsets, round_to(dy, state_dtype, TARGET), mask=written)


@triton.jit(do_not_specialize=STRIDES + ["batch", "length", "token"])
def token_parts_kernel(
    x_ptr,
    y_ptr,
    mask_ptr,
    cu_seqlens_ptr,
    squeezed_ptr,
    context_gradient_ptr,
    squeezed_gradient_ptr,
    squeeze_parts_ptr,
    bias_parts_ptr,
    expand_parts_ptr,
    x_batch_stride,
    x_row_stride,
    y_batch_stride,
    y_row_stride,
    batch,
    length,
    token,
    EMBED_DIM: tl.constexpr,
    SQUEEZE_DIM: tl.constexpr,
    KERNEL_SIZE: tl.constexpr,
    ACTIVATION: tl.constexpr,
    HAS_LOWER: tl.constexpr,
    HAS_MASK: tl.constexpr,
    PACKED: tl.constexpr,
    ALIGN: tl.constexpr,
    TARGET: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """Compute dW_le = sum_b ds_b phi(a_b)^T, dW_ls[:, :, j] = sum_b da_b w_b,token+j-(k-1)/2^T, db_ls = sum_b da_b.

    Grid (cdiv(E, BLOCK_E), cdiv(H, BLOCK_H), k).
    reads   x, y: rows token - (k-1)/2 .. token + (k-1)/2 of each sequence, once per block of H
            mask, cu_seqlens at these rows: by every program
            context_gradient (B, E), squeezed (B, H) float32: once per block of the other axis
            squeezed_gradient (B, H) float32: once per tap and block of E
    writes  expand_parts (1, H, E), squeeze_parts (1, k, H, E), bias_parts (1, H), float32: once
    """
    e = tl.program_id(0) * BLOCK_E + tl.arange(0, BLOCK_E)
    h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    tap = tl.program_id(2)
    inside_e = e < EMBED_DIM
    inside_h = h < SQUEEZE_DIM
    expand = tl.zeros((BLOCK_H, BLOCK_E), dtype=tl.float32)
    squeeze = tl.zeros((BLOCK_H, BLOCK_E), dtype=tl.float32)
    bias = tl.zeros((BLOCK_H,), dtype=tl.float32)
    for block_b in range(0, batch, BLOCK_B):
        sequences = block_b + tl.arange(0, BLOCK_B).to(tl.int64)
        present = sequences < batch
        inside_bh = present[:, None] & inside_h[None, :]
        b_by_h = sequences[:, None] * SQUEEZE_DIM + h[None, :]
        da = load_float32(squeezed_gradient_ptr, b_by_h, inside_bh)
        first_rows, neighbours, seen = token_positions(
            mask_ptr, cu_seqlens_ptr, sequences, token, tap - (KERNEL_SIZE - 1) // 2, batch, length, HAS_MASK, PACKED
        )
        x_offsets = state_offsets(sequences, neighbours, first_rows, x_batch_stride, x_row_stride, PACKED, ALIGN)
        y_offsets = state_offsets(sequences, neighbours, first_rows, y_batch_stride, y_row_stride, PACKED, ALIGN)
        w = load_integrated(
            x_ptr, y_ptr, x_offsets[:, None] + e[None, :], y_offsets[:, None] + e[None, :],
            seen[:, None] & inside_e[None, :], HAS_LOWER,
        )  # fmt: skip
        squeeze = dot(tl.trans(da), w, squeeze, TARGET)
        if tap == 0:
            u = activate(load_float32(squeezed_ptr, b_by_h, inside_bh), ACTIVATION)
            ds = load_float32(
                context_gradient_ptr, sequences[:, None] * EMBED_DIM + e[None, :], present[:, None] & inside_e[None, :]
            )
            expand = dot(tl.trans(u), ds, expand, TARGET)
            bias += tl.sum(da, axis=0)
    tl.store(
        squeeze_parts_ptr + (tap.to(tl.int64) * SQUEEZE_DIM + h[:, None]) * EMBED_DIM + e[None, :],
        squeeze,
        mask=inside_h[:, None] & inside_e[None, :],
    )
    if tap == 0:
        tl.store(
            expand_parts_ptr + h[:, None] * EMBED_DIM + e[None, :],
            expand,
            mask=inside_h[:, None] & inside_e[None, :],
        )
        if tl.program_id(0) == 0:
            tl.store(bias_parts_ptr + h, bias, mask=inside_h)
