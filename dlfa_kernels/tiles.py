"""Tile sizes of every kernel: the blocks of tokens, channels and squeeze width that a program works on."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields, replace
from functools import cache

import torch

from .device import DEFAULT_ARCHITECTURE, multiprocessors
from .groups import rows_in_share
from .rounding import cdiv, padded_side

logger = logging.getLogger(__name__)

# The most tokens of a tile.
MAX_BLOCK_T = 128
# The largest H that one program holds whole: two float32 blocks of 64 x 256 fill half of the registers.
MAX_HELD_H = 256
# On warpgroups, the largest part of a split H in the squeeze and reduce stages. Wider than MAX_HELD_H: each part reads
# the states again, and in reduce computes the gate again, which costs more than the few registers that 320 spill.
MAX_PART_H = 320

# Sequences of at most this many tokens on average, real or not, leave half of a tile of 128 tokens empty.
SHORT = 64
# The most tokens of sequences that share tiles: of longer ones with random lengths, the longer of two has about as many
# halves of a tile as both have tiles.
LONGEST_SHARING = 192

# The assumed duration of a squeeze program of two slots relative to one slot: it moves 1.6 times the bytes from L2 and
# takes 2.2 times the cycles of shared memory (`python -m benchmarks.execution`, E = 768, H = 192). Not yet timed.
COST_OF_TWO_SLOTS = 1.8
# The least fraction of the multiprocessors that programs of two slots must fill.
MOSTLY_FILLED = 0.9


@dataclass(frozen=True)
class Tile:
    """Launch parameters of one kernel: block sizes in elements, warps a program, software-pipeline stages.

    `block_t` counts tokens; in the context, weight_grads and token stages it counts sequences, and in the pool stage
    tiles. With `sequences` = 2 half of the tokens are of one sequence, and half of the next, at the same positions. A
    program of the squeeze stage works on `slots` tiles of `block_t` tokens. With `early` = 1, a program of
    `input_grads` loads all operands of a tile before its first product; with `ahead` = 1 too, some of them one tile
    earlier. A program holds `chunks` blocks of `block_h` squeeze channels at once. `registers` limits the registers of
    a thread on NVIDIA: with fewer, more programs share a multiprocessor.
    """

    block_t: int = 64
    block_e: int = 64
    block_h: int = 64
    chunks: int = 1
    num_warps: int = 4
    num_stages: int = 2
    registers: int = 255
    slots: int = 1
    early: int = 0
    ahead: int = 0
    sequences: int = 1

    @property
    def held_h(self) -> int:
        """The number of squeeze channels that one program holds."""
        return self.chunks * self.block_h


@dataclass(frozen=True)
class Tiles:
    """One `Tile` for each stage, and the share of L2 for groups.

    The first five, `sums` and `token` work on the states, the others on per-sequence rows and partial sums. `l2_share`
    is the fraction of L2, 0 to 1, that a group of sequences may fill; 0 means one group. See `groups`.
    """

    squeeze: Tile
    expand: Tile
    reduce: Tile
    input_grads: Tile
    tap_grads: Tile
    pool: Tile
    context: Tile
    weight_grads: Tile
    sums: Tile
    token: Tile
    l2_share: float = 0.0

    @classmethod
    def stages(cls) -> list[str]:
        """The names of the stages."""
        return [field.name for field in fields(cls) if field.name != "l2_share"]


@dataclass(frozen=True)
class Caps:
    """The largest tiles of the four main stages, for one family of architectures and widths of dtypes.

    `choose_tiles` fits them to E and H.
    """

    squeeze: Tile
    expand: Tile
    reduce: Tile
    input_grads: Tile


def _cap(block_t: int, block_e: int, num_warps: int, num_stages: int, registers: int = 255, early: int = 0) -> Tile:
    return Tile(
        block_t=block_t, block_e=block_e, num_warps=num_warps, num_stages=num_stages, registers=registers, early=early
    )


_FLOAT32_CAPS = Caps(squeeze=_cap(32, 16, 4, 2), expand=_cap(32, 16, 4, 2), reduce=_cap(16, 32, 4, 2),
                     input_grads=_cap(32, 64, 8, 1))  # fmt: skip

# (family, bytes of a state, bytes of an operand of products) -> caps. Chosen from the machine code, see
# `python -m benchmarks.codegen`: few instructions an element and no spills, or few where a narrower tile would take
# more instructions than the spills do. Not yet timed on a GPU.
CAPS = {
    # Whole warpgroups issue matrix products, 64 rows each, with operands in shared memory. Programs have two
    # warpgroups, so that 128 tokens share the loads of weights: L2 delivers more bytes of weights than of states.
    ("warpgroup", 2, 2): Caps(squeeze=_cap(128, 64, 8, 3), expand=_cap(128, 64, 8, 2, 128), reduce=_cap(128, 64, 8, 2),
                              input_grads=_cap(128, 64, 8, 1, early=1)),
    ("warpgroup", 4, 2): Caps(squeeze=_cap(128, 64, 8, 2), expand=_cap(128, 32, 8, 2, 128), reduce=_cap(128, 64, 8, 2),
                              input_grads=_cap(128, 64, 8, 1, early=1)),
    ("warpgroup", 4, 4): replace(_FLOAT32_CAPS, squeeze=_cap(64, 16, 4, 2), expand=_cap(32, 64, 8, 2),
                                 reduce=_cap(32, 64, 8, 2)),
    # accumulators are in tensor memory and are read from it block by block
    ("tensor memory", 2, 2): Caps(squeeze=_cap(128, 64, 8, 3), expand=_cap(128, 64, 8, 2), reduce=_cap(128, 32, 8, 2),
                                  input_grads=_cap(128, 64, 8, 1, early=1)),
    ("tensor memory", 4, 2): Caps(squeeze=_cap(64, 64, 8, 2), expand=_cap(64, 64, 8, 2), reduce=_cap(64, 32, 8, 2),
                                  input_grads=_cap(128, 64, 8, 1, early=1)),
    ("tensor memory", 4, 4): replace(_FLOAT32_CAPS, expand=_cap(32, 64, 8, 2), reduce=_cap(32, 64, 8, 2)),
    # operands are in registers
    ("warp", 2, 2): Caps(squeeze=_cap(32, 64, 8, 2), expand=_cap(128, 32, 8, 2), reduce=_cap(32, 64, 8, 2),
                         input_grads=_cap(32, 64, 8, 1)),
    ("warp", 4, 2): Caps(squeeze=_cap(32, 64, 8, 2), expand=_cap(64, 32, 8, 2), reduce=_cap(32, 64, 8, 2),
                         input_grads=_cap(32, 64, 8, 1)),
    ("warp", 4, 4): _FLOAT32_CAPS,
    # waves of 64 threads: for the same number of warps half the registers a thread; 64 KiB of shared memory
    ("wave", 2, 2): Caps(squeeze=_cap(32, 64, 8, 2), expand=_cap(64, 64, 8, 2), reduce=_cap(16, 64, 8, 1),
                         input_grads=_cap(16, 16, 4, 1)),
    ("wave", 4, 2): replace(_FLOAT32_CAPS, reduce=_cap(16, 16, 4, 1), input_grads=_cap(16, 16, 4, 1)),
    ("wave", 4, 4): replace(_FLOAT32_CAPS, reduce=_cap(16, 16, 4, 1), input_grads=_cap(16, 16, 4, 1)),
}  # fmt: skip
FAMILIES = {
    "sm_90": "warpgroup", "sm_100": "tensor memory", "sm_103": "tensor memory",
    "sm_80": "warp", "sm_86": "warp", "sm_89": "warp", "sm_120": "warp", "gfx942": "wave",
}  # fmt: skip


@cache
def _family(architecture: str) -> str:
    if architecture in FAMILIES:
        return FAMILIES[architecture]
    family = "wave" if architecture.startswith("gfx") else "warp"  # the least demanding family of each vendor
    logger.warning("no tile sizes for %s: those of the family %r are used", architecture, family)
    return family


def holding(tile: Tile, squeeze_dim: int, block_h: int) -> Tile:
    """Return the tile with as much of the squeeze width held as a program may hold, in blocks of `block_h`."""
    return replace(tile, block_h=block_h, chunks=min(MAX_HELD_H // block_h, cdiv(squeeze_dim, block_h)))


def one_warpgroup(tile: Tile) -> Tile:
    """Return the tile of one warpgroup, with half the tokens, for a tile of two warpgroups."""
    return replace(tile, block_t=tile.block_t // 2, num_warps=max(4, tile.num_warps // 2))


def _on_warpgroups(stages: Caps, squeeze_dim: int, narrow_e: int, wide_states: bool) -> Caps:
    """Return tiles for warpgroups and 16-bit operands.

    `wide_states`: states are float32. `narrow_e`: channels of a narrow block.
    """
    squeeze, expand, reduce, input_grads = stages.squeeze, stages.expand, stages.reduce, stages.input_grads
    if squeeze_dim <= 128:  # three programs a multiprocessor
        return replace(stages, expand=replace(expand, registers=168), reduce=replace(reduce, registers=168))
    # One program a multiprocessor, except in the expand stage, so loads have to run ahead of products.
    if squeeze_dim > MAX_HELD_H:
        return _in_parts(stages, squeeze_dim, narrow_e, wide_states)
    if squeeze_dim > 192:  # wide products; shared memory holds two programs of the expand stage a multiprocessor
        squeeze, reduce = holding(squeeze, squeeze_dim, 256), holding(reduce, squeeze_dim, 128)
        expand = replace(holding(expand, squeeze_dim, 256), block_e=narrow_e)
    if wide_states:
        squeeze = replace(squeeze, block_e=narrow_e, num_stages=3)
    elif squeeze_dim <= 192:  # narrow blocks leave room for two slots
        squeeze = replace(squeeze, block_e=narrow_e, num_stages=4, slots=2)
    if squeeze_dim <= 192:  # 128 and 64: two products read each operand from shared memory, not three
        input_grads = holding(input_grads, squeeze_dim, 128)
    reduce = replace(reduce, block_e=narrow_e, num_stages=3)
    input_grads = replace(input_grads, ahead=int(squeeze_dim <= 192 or not wide_states))
    return Caps(squeeze=squeeze, expand=expand, reduce=reduce, input_grads=input_grads)


def _in_parts(stages: Caps, squeeze_dim: int, narrow_e: int, wide_states: bool) -> Caps:
    """Return tiles for warpgroups if H is split into equal parts, one a program, and u is read block by block."""

    def part(tile: Tile, most: int) -> Tile:
        blocks = cdiv(squeeze_dim, 64)
        parts = max(2, cdiv(blocks, most // 64))
        return replace(tile, block_h=64, chunks=cdiv(blocks, parts), num_stages=3)

    squeeze, reduce = part(stages.squeeze, MAX_PART_H), part(stages.reduce, MAX_PART_H)
    if wide_states:
        squeeze, reduce = replace(squeeze, block_e=narrow_e), replace(reduce, block_e=narrow_e)
    # each block of channels reads u once: blocks as wide as registers allow, and more stages
    wide_e = (2 if wide_states else 4) * narrow_e
    expand = replace(stages.expand, block_e=wide_e, block_h=64, num_stages=4, registers=255)
    return Caps(squeeze=squeeze, expand=expand, reduce=reduce, input_grads=part(stages.input_grads, MAX_HELD_H))


def _on_warps(stages: Caps, architecture: str, squeeze_dim: int, narrow_e: int) -> Caps:
    """Return tiles for warps and 16-bit operands."""
    deep: tuple[str, ...] = ()  # stages with loads ahead of products; only sm_80 has shared memory for all three
    if squeeze_dim > 128 and architecture == "sm_80":
        deep = ("squeeze", "expand", "reduce")
    elif 128 < squeeze_dim <= 192:
        deep = ("squeeze", "expand")
    stages = replace(stages, **{name: replace(getattr(stages, name), num_stages=3) for name in deep})
    if squeeze_dim > 192:  # half the registers held, and two programs a multiprocessor
        return replace(stages, input_grads=replace(stages.input_grads, block_e=narrow_e, num_warps=4))
    return stages


def _with_float32_products(stages: Caps, family: str, squeeze_dim: int, narrow_e: int) -> Caps:
    """Return tiles for float32 operands."""
    squeeze, input_grads = stages.squeeze, stages.input_grads
    if family == "wave" and squeeze_dim > 192:  # four warps spill here
        squeeze = replace(squeeze, block_e=narrow_e, num_warps=8)
    if family in ("warp", "warpgroup"):
        input_grads = holding(input_grads, squeeze_dim, 16 if family == "warp" and squeeze_dim > 128 else 32)
        if squeeze_dim <= 64:  # little is held: two programs a multiprocessor
            input_grads = replace(input_grads, num_warps=4)
    elif squeeze_dim <= (128 if family == "wave" else 64):
        # a single block of 64 is unrolled and spills
        input_grads = holding(input_grads, squeeze_dim, min(32, input_grads.block_h))
    return replace(stages, squeeze=squeeze, input_grads=input_grads)


@cache
def choose_tiles(
    embed_dim: int,
    squeeze_dim: int,
    dtype: torch.dtype,
    architecture: str = DEFAULT_ARCHITECTURE,
    product_dtype: torch.dtype | None = None,
) -> Tiles:
    """Return tile sizes for E, H, the dtype of the states and an architecture such as "sm_90" or "gfx942".

    `product_dtype` is the dtype of the operands of products; None means that of the states.
    """
    operand_bytes = (product_dtype or dtype).itemsize
    family = _family(architecture)
    caps = CAPS[family, dtype.itemsize, operand_bytes]
    widest_e = padded_side(embed_dim)
    block_h = min(64, padded_side(squeeze_dim))
    chunks = holding(caps.squeeze, squeeze_dim, block_h).chunks

    def fitted(cap: Tile) -> Tile:
        return replace(holding(cap, squeeze_dim, block_h), block_e=min(cap.block_e, widest_e))

    def narrow(cap: Tile) -> Tile:  # small H holds and reads few weights: more and smaller programs
        tile = fitted(cap)
        if chunks > 2:
            return tile
        return one_warpgroup(tile) if tile.block_t == 128 else replace(tile, num_warps=4)

    stages = Caps(
        squeeze=narrow(caps.squeeze),
        expand=narrow(caps.expand),
        reduce=narrow(caps.reduce),
        input_grads=narrow(caps.input_grads) if caps.input_grads.block_t == 128 else fitted(caps.input_grads),
    )
    narrow_e, wide_states = min(32, widest_e), dtype.itemsize > operand_bytes
    if operand_bytes == 4:
        stages = _with_float32_products(stages, family, squeeze_dim, narrow_e)
    elif family == "warpgroup":
        stages = _on_warpgroups(stages, squeeze_dim, narrow_e, wide_states)
    elif family == "warp":
        stages = _on_warps(stages, architecture, squeeze_dim, narrow_e)
    elif family == "wave" and wide_states:
        narrow_h = min(32, block_h)
        input_grads = replace(stages.input_grads, block_h=narrow_h, chunks=min(4, cdiv(squeeze_dim, narrow_h)))
        stages = replace(stages, input_grads=input_grads)
    block_e = min(64, widest_e)
    context_stages = {"warpgroup": 3, "warp": 2}.get(family, 1)
    if family == "warp" and chunks > (3 if operand_bytes == 2 else 2):  # with a pipeline it would spill
        context_stages = 1
    return Tiles(
        **vars(stages),
        tap_grads=Tile(block_t=64, block_e=min(caps.expand.block_e, widest_e), block_h=block_h, num_warps=4),
        pool=Tile(block_t=32, block_e=128),
        context=Tile(
            block_t=16,
            block_e=min(128 if family == "warpgroup" and dtype == torch.bfloat16 else 64, widest_e),
            block_h=block_h,
            chunks=chunks,
            num_warps=4,
            num_stages=context_stages,
        ),
        weight_grads=Tile(block_t=32, block_e=block_e, block_h=block_h),
        sums=Tile(block_t=64, block_e=min(128, widest_e)),
        token=Tile(
            block_t=16,
            block_e=block_e if operand_bytes == 2 else min(32, block_e),
            block_h=block_h,
            chunks=chunks,
            num_stages=4 if family in ("warpgroup", "tensor memory") else 2,
        ),
    )


def context_that_fits(tile: Tile, embed_dim: int, squeeze_dim: int, tiles_per_sequence: int) -> Tile:
    """Return the context's tile for both of its products, reduced if operands would not fit in shared memory.

    Args:
        tile: the context's tile of the bucket.
        embed_dim: E.
        squeeze_dim: H.
        tiles_per_sequence: tiles whose sums a program adds, one block of E of all of them at a time; 1 if pooled.
    """
    if embed_dim <= 64 and squeeze_dim > tile.held_h:  # E is one block: the loop over parts of H is pipelined
        tile = replace(tile, num_stages=min(2, tile.num_stages))
    if tiles_per_sequence > 2 and tile.held_h > 192:
        tile = replace(tile, block_e=min(64, tile.block_e))
    return tile


@cache
def with_one_slot(tiles: Tiles) -> Tiles:
    """Return the tiles with one slot a squeeze program, which leaves room for larger blocks.

    Blocks have up to twice the channels, and 128 of H: one product of 128 columns takes fewer instructions than two.
    """
    tile = tiles.squeeze
    if tile.slots == 1:
        return tiles
    one = replace(tile, block_e=min(64, 2 * tile.block_e), num_stages=max(2, tile.num_stages - 1), slots=1)
    if one.held_h > 128:
        one = holding(one, one.held_h, 128)
    return replace(tiles, squeeze=one)


@cache
def with_fewer_tokens(tiles: Tiles) -> Tiles:
    """Return the tiles with at most 64 tokens a program, for short sequences or few tokens in total.

    `input_grads` is unchanged, because with 64 tokens both warpgroups would compute the same product.
    """

    def short(tile: Tile) -> Tile:
        return one_warpgroup(tile) if tile.block_t > 64 else tile

    tiles = with_one_slot(tiles)
    return replace(tiles, squeeze=short(tiles.squeeze), expand=short(tiles.expand), reduce=short(tiles.reduce))


def tiles_for_form(tiles: Tiles, kernel_size: int, packed: bool) -> Tiles:
    """Return the tiles of a bucket for one input form and kernel size.

    k > 1 and packed input take one slot: with two, a program has too few registers for the masks of taps, and up to
    half of the slots of packed input are empty, which leaves slots without a partner.
    """
    return with_one_slot(tiles) if kernel_size > 1 or packed else tiles


def two_slots_pay(slots: int, multiprocessors: int) -> bool:
    """Return whether programs of two slots fill the device and are no slower, by rounds of programs, than of one."""
    programs = cdiv(slots, 2)
    rounds, rounds_of_one = cdiv(programs, multiprocessors), cdiv(slots, multiprocessors)
    return programs >= MOSTLY_FILLED * multiprocessors and COST_OF_TWO_SLOTS * rounds <= rounds_of_one


@cache
def with_two_sequences(tiles: Tiles) -> Tiles:
    """Return the tiles in which those of 128 tokens of `expand` and `input_grads` hold 64 of each of two sequences.

    The other stages sum over the tokens of a tile, which a product does for all rows at once.
    """

    def shared(tile: Tile) -> Tile:
        return replace(tile, sequences=2) if tile.block_t == MAX_BLOCK_T else tile

    return replace(tiles, expand=shared(tiles.expand), input_grads=shared(tiles.input_grads))


def sharing_saves_tiles(length: int, has_mask: bool) -> bool:
    """Return whether padded sequences of T = `length` that share tiles have fewer tiles with real tokens.

    Without a mask they do if they end in the first half of a tile of 128 tokens. With one they do on average: two
    sequences that share have as many tiles as the longer one has halves of a tile.
    """
    half = MAX_BLOCK_T // 2
    return length <= LONGEST_SHARING and (has_mask or 0 < length % MAX_BLOCK_T <= half)


def tiles_for_batch(
    tiles: Tiles,
    batch: int,
    rows: int,
    state_bytes: int,
    l2_share: float,
    device: torch.device,
    *,
    shared: bool = False,
) -> Tiles:
    """Return the tiles with fewer tokens for short sequences or small launches, and with two slots only if they pay.

    Launches are small if their tokens do not fill the device.

    Args:
        tiles: of the bucket and form.
        batch: B.
        rows: tokens of the batch, real or not.
        state_bytes: bytes of one token's state: E times the bytes of its dtype.
        l2_share: as in `Tiles`; if not 0, launches work on groups of sequences.
        device: the device with these multiprocessors and this L2.
        shared: tiles of `with_two_sequences`; those of `expand` then keep their tokens, if sequences are short.
    """
    together = min(rows, rows_in_share(2 * state_bytes, l2_share, device)) if l2_share else rows
    small, expand = together <= 2 * SHORT * multiprocessors(device), tiles.expand
    if small or rows <= SHORT * batch:
        tiles = with_fewer_tokens(tiles)
    else:
        slots = batch * cdiv(rows, batch * tiles.squeeze.block_t)
        if not two_slots_pay(slots * together // rows, multiprocessors(device)):
            tiles = with_one_slot(tiles)
    if not shared:
        return tiles
    return with_two_sequences(tiles if small else replace(tiles, expand=expand))


@cache
def without_dx(tiles: Tiles, architecture: str, product_dtype: torch.dtype) -> Tiles:
    """Return the tiles for a backward that computes only the parameters' gradients, with operands of `product_dtype`.

    With 16-bit operands in registers, eight warps would then compute each product several times, and spill.
    """
    if _family(architecture) != "warp" or product_dtype.itemsize != 2:
        return tiles
    return replace(
        tiles, input_grads=replace(tiles.input_grads, block_e=min(32, tiles.input_grads.block_e), num_warps=4)
    )
