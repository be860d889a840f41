"""The part of the squeeze width that a program holds: tuples of blocks, their loads, and W_le u from them.

The squeeze width H is held in a tuple of CHUNKS blocks of BLOCK_H channels each, the last one of 64 if that is enough
(`chunk_channels`): products stay small, and no arithmetic is wasted if H is not a power of two. If H is wider than one
program holds, it is read block by block instead.

`squeezed` of all tokens holds u for relu, because its sign gives the slope, and a for other activations.
"""

import triton
import triton.language as tl

from .arithmetic import activate, dot, round_to
from .rows import inside_dim


@triton.jit
def chunk_channels(
    first_h, CHUNK: tl.constexpr, SQUEEZE_DIM: tl.constexpr, CHUNKS: tl.constexpr, BLOCK_H: tl.constexpr
):
    """Return the squeeze channels of block CHUNK of those held from first_h on, and a mask of those that exist.

    A block has BLOCK_H channels, but the last one has 64 if that covers the rest of H.
    """
    before: tl.constexpr = (CHUNKS - 1) * BLOCK_H
    last: tl.constexpr = 64 if BLOCK_H > 64 and before + 64 >= SQUEEZE_DIM else BLOCK_H
    width: tl.constexpr = last if CHUNK == CHUNKS - 1 else BLOCK_H
    h = first_h + CHUNK * BLOCK_H + tl.arange(0, width)
    return h, inside_dim(h, SQUEEZE_DIM, before + last)


@triton.jit
def zero_chunks(ROWS: tl.constexpr, SQUEEZE_DIM: tl.constexpr, CHUNKS: tl.constexpr, BLOCK_H: tl.constexpr):
    """Return a tuple of zero blocks (ROWS, channels of a chunk), float32."""
    chunks = ()
    for chunk in tl.static_range(CHUNKS):
        h, _ = chunk_channels(0, chunk, SQUEEZE_DIM, CHUNKS, BLOCK_H)
        chunks = chunks + (tl.zeros((ROWS, h.shape[0]), dtype=tl.float32),)
    return chunks


@triton.jit
def load_squeezed(tile_ptr, t, real, h, inside_h, SQUEEZE_DIM: tl.constexpr):
    """Load a tile's rows t of `squeezed` or its gradient da, (BLOCK_T, BLOCK_H) as stored; zero at padding."""
    inside = real[:, None] & inside_h[None, :]
    return tl.load(tile_ptr + t[:, None] * SQUEEZE_DIM + h[None, :], mask=inside, other=0.0)


@triton.jit
def load_squeezed_chunks(
    tile_ptr, t, real, first_h, SQUEEZE_DIM: tl.constexpr, CHUNKS: tl.constexpr, BLOCK_H: tl.constexpr
):
    """Apply `load_squeezed` to the channels held from first_h on; return a tuple of blocks (BLOCK_T, channels)."""
    chunks = ()
    for chunk in tl.static_range(CHUNKS):
        h, inside_h = chunk_channels(first_h, chunk, SQUEEZE_DIM, CHUNKS, BLOCK_H)
        chunks = chunks + (load_squeezed(tile_ptr, t, real, h, inside_h, SQUEEZE_DIM),)
    return chunks


@triton.jit
def load_u(
    tile_ptr,
    t,
    real,
    h,
    inside_h,
    SQUEEZE_DIM: tl.constexpr,
    ACTIVATION: tl.constexpr,
    TARGET: tl.constexpr,
):
    """Load u = phi(a), (BLOCK_T, BLOCK_H) in the dtype of products, that of `squeezed`.

    For "relu" and "none" the tile already holds u, and no activation is applied.
    """
    squeezed = load_squeezed(tile_ptr, t, real, h, inside_h, SQUEEZE_DIM)
    if ACTIVATION == "relu" or ACTIVATION == "none":
        return squeezed
    else:
        return round_to(activate(squeezed.to(tl.float32), ACTIVATION), tile_ptr.dtype.element_ty, TARGET)


@triton.jit
def load_u_chunks(
    tile_ptr,
    t,
    real,
    first_h,
    SQUEEZE_DIM: tl.constexpr,
    ACTIVATION: tl.constexpr,
    TARGET: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """Load u of the channels held from first_h on, a tuple of blocks (BLOCK_T, channels of a chunk)."""
    chunks = ()
    for chunk in tl.static_range(CHUNKS):
        h, inside_h = chunk_channels(first_h, chunk, SQUEEZE_DIM, CHUNKS, BLOCK_H)
        u = load_u(tile_ptr, t, real, h, inside_h, SQUEEZE_DIM, ACTIVATION, TARGET)
        chunks = chunks + (u,)
    return chunks


@triton.jit
def load_squeeze_weight(
    weight_ptr,
    tap,
    h,
    inside_h,
    e,
    SQUEEZE_DIM: tl.constexpr,
    EMBED_DIM: tl.constexpr,
    dtype: tl.constexpr,
    TARGET: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Load a (BLOCK_H, BLOCK_E) block of W_ls[:, :, tap] from its (k, H, E) form."""
    inside = inside_h[:, None] & inside_dim(e, EMBED_DIM, BLOCK_E)[None, :]
    tap_ptr = weight_ptr + tl.full((), tap, dtype=tl.int64) * (SQUEEZE_DIM * EMBED_DIM)
    weight = tl.load(tap_ptr + (h[:, None] * EMBED_DIM + e[None, :]), mask=inside, other=0.0)
    return round_to(weight, dtype, TARGET)


@triton.jit
def load_squeeze_weights(
    weight_ptr,
    e,
    SQUEEZE_DIM: tl.constexpr,
    EMBED_DIM: tl.constexpr,
    dtype: tl.constexpr,
    TARGET: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """Load W_ls^T of kernel size 1, a tuple of (BLOCK_E, BLOCK_H) blocks; CHUNKS BLOCK_H channels cover all of H."""
    chunks = ()
    for chunk in tl.static_range(CHUNKS):
        h, inside_h = chunk_channels(0, chunk, SQUEEZE_DIM, CHUNKS, BLOCK_H)
        inside = inside_dim(e, EMBED_DIM, BLOCK_E)[:, None] & inside_h[None, :]
        weight = tl.load(weight_ptr + h[None, :] * EMBED_DIM + e[:, None], mask=inside, other=0.0)
        chunks = chunks + (round_to(weight, dtype, TARGET),)
    return chunks


@triton.jit
def load_expand_weight(
    weight_ptr,
    h,
    inside_h,
    e,
    SQUEEZE_DIM: tl.constexpr,
    EMBED_DIM: tl.constexpr,
    dtype: tl.constexpr,
    TARGET: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    """Load a (BLOCK_E, BLOCK_H) block of W_le."""
    inside = inside_dim(e, EMBED_DIM, BLOCK_E)[:, None] & inside_h[None, :]
    weight = tl.load(weight_ptr + e[:, None] * SQUEEZE_DIM + h[None, :], mask=inside, other=0.0)
    return round_to(weight, dtype, TARGET)


@triton.jit
def load_expand_weights(
    weight_ptr,
    first_h,
    e,
    SQUEEZE_DIM: tl.constexpr,
    EMBED_DIM: tl.constexpr,
    dtype: tl.constexpr,
    TARGET: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """Load W_le of the channels first_h .. first_h + CHUNKS BLOCK_H - 1, a tuple of (BLOCK_E, BLOCK_H) blocks."""
    chunks = ()
    for chunk in tl.static_range(CHUNKS):
        h, inside_h = chunk_channels(first_h, chunk, SQUEEZE_DIM, CHUNKS, BLOCK_H)
        weight = load_expand_weight(weight_ptr, h, inside_h, e, SQUEEZE_DIM, EMBED_DIM, dtype, TARGET, BLOCK_E)
        chunks = chunks + (weight,)
    return chunks


@triton.jit
def read_expand(
    tile_ptr,
    t,
    real,
    weight_ptr,
    e,
    SQUEEZE_DIM: tl.constexpr,
    EMBED_DIM: tl.constexpr,
    ACTIVATION: tl.constexpr,
    TARGET: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """Return W_le u, float32 (BLOCK_T, BLOCK_E), for H wider than a program holds: it reads u block by block."""
    dtype: tl.constexpr = tile_ptr.dtype.element_ty
    local = tl.zeros((BLOCK_T, BLOCK_E), dtype=tl.float32)
    for block_h in range(0, SQUEEZE_DIM, BLOCK_H):
        h = block_h + tl.arange(0, BLOCK_H)
        inside_h = inside_dim(h, SQUEEZE_DIM, BLOCK_H)
        u = load_u(tile_ptr, t, real, h, inside_h, SQUEEZE_DIM, ACTIVATION, TARGET)
        weight = load_expand_weight(weight_ptr, h, inside_h, e, SQUEEZE_DIM, EMBED_DIM, dtype, TARGET, BLOCK_E)
        local = dot(u, tl.trans(weight), local, TARGET)
    return local


@triton.jit
def transposed(chunks, CHUNKS: tl.constexpr):
    """Return the transpose of each block of a tuple."""
    turned = ()
    for chunk in tl.static_range(CHUNKS):
        turned = turned + (tl.trans(chunks[chunk]),)
    return turned


@triton.jit
def held_expand(
    u_chunks,
    weights,
    TARGET: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """Return W_le u, float32 (BLOCK_T, BLOCK_E), from chunks of u and W_le^T that cover all of H."""
    local = tl.zeros((BLOCK_T, BLOCK_E), dtype=tl.float32)
    for chunk in tl.static_range(CHUNKS):
        local = dot(u_chunks[chunk], weights[chunk], local, TARGET)
    return local
