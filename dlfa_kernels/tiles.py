"""Tile sizes of every kernel: which block of tokens, channels and squeeze width a program works on."""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Squeeze channels a program holds at most: two float32 blocks of 64 x 256 fill half of the registers.
MAX_HELD_H = 256


@dataclass(frozen=True)
class Tile:
    """Launch parameters of one kernel: block sizes in elements, warps a program, software-pipeline stages.

    A program holds `chunks` blocks of `block_h` of the squeeze width at once.
    """

    block_t: int = 64
    block_e: int = 64
    block_h: int = 64
    chunks: int = 1
    num_warps: int = 4
    num_stages: int = 2

    @property
    def held_h(self) -> int:
        """Squeeze channels that one program holds."""
        return self.chunks * self.block_h


@dataclass(frozen=True)
class Tiles:
    """One `Tile` for each stage; all but the first five work on per-sequence rows and partial sums."""

    squeeze: Tile
    expand: Tile
    reduce: Tile
    inputs: Tile
    taps: Tile
    pool: Tile
    context: Tile
    weights: Tile
    sums: Tile
    token: Tile


def power_of_two(value: int) -> int:
    """The smallest power of two that is at least `value`, and at least 16, the smallest side of a matrix product."""
    return max(16, 1 << (value - 1).bit_length())


def choose_tiles(embed_dim: int, squeeze_dim: int, dtype: torch.dtype) -> Tiles:
    """Tile sizes for (E, H, dtype of the states)."""
    block_h = min(64, power_of_two(squeeze_dim))
    chunks = min(MAX_HELD_H, -(-squeeze_dim // block_h) * block_h) // block_h
    warps = 4 if chunks <= 2 else 8
    block_e = min(64 if dtype != torch.float32 else 32, power_of_two(embed_dim))
    return Tiles(
        squeeze=Tile(64, block_e, block_h, chunks, warps, 3),
        expand=Tile(64, block_e, block_h, chunks, warps, 2),
        reduce=Tile(64, block_e, block_h, chunks, warps, 2),
        inputs=Tile(32, block_e, block_h, chunks, 8, 2),
        taps=Tile(64, block_e, block_h, 1, 4, 2),
        pool=Tile(block_t=32, block_e=128),
        context=Tile(block_t=16, block_e=block_e, block_h=block_h),
        weights=Tile(block_t=16, block_e=block_e, block_h=min(32, block_h)),
        sums=Tile(block_t=64, block_e=min(128, power_of_two(embed_dim))),
        token=Tile(block_t=16, block_e=block_e, block_h=block_h),
    )
