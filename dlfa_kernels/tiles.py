"""Tile sizes of every kernel: which block of tokens, channels and squeeze width a program works on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

# Squeeze channels a program holds at most: two float32 blocks of 64 x 256 fill half of the registers.
MAX_HELD_H = 256

# Matrix products issued by whole warpgroups, with operands in shared memory; elsewhere operands take registers.
WARPGROUP_ARCHITECTURES = ("sm_90", "sm_100", "sm_103")

# What tensors without a GPU are compiled for, when launches are inspected or interpreted.
DEFAULT_ARCHITECTURE = "sm_90"


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


def choose_tiles(
    embed_dim: int, squeeze_dim: int, dtype: torch.dtype, architecture: str = DEFAULT_ARCHITECTURE
) -> Tiles:
    """Tile sizes for (E, H, dtype of the states, architecture such as "sm_90" or "gfx942")."""
    block_h = min(64, power_of_two(squeeze_dim))
    chunks = min(MAX_HELD_H, -(-squeeze_dim // block_h) * block_h) // block_h
    warps = 4 if chunks <= 2 else 8
    widest_e = power_of_two(embed_dim)
    half = dtype != torch.float32
    warpgroups = architecture in WARPGROUP_ARCHITECTURES
    stages = 3 if warpgroups else 2
    block_e = min(64 if half else 32, widest_e)
    small_e = min(64 if half and warpgroups else 16, widest_e)
    small_t = 64 if half and not warpgroups else 32
    return Tiles(
        squeeze=Tile(64, block_e, block_h, chunks, warps, stages),
        expand=Tile(64, block_e, block_h, chunks, warps, 2),
        reduce=Tile(64, min(32, block_e), block_h, chunks, warps, 2),
        inputs=Tile(small_t, small_e, block_h, chunks, 8, 2),
        taps=Tile(64, block_e, block_h, 1, 4, 2),
        pool=Tile(block_t=32, block_e=128),
        context=Tile(block_t=16, block_e=block_e, block_h=block_h),
        weights=Tile(block_t=16, block_e=block_e, block_h=min(32, block_h)),
        sums=Tile(block_t=64, block_e=min(128, widest_e)),
        token=Tile(block_t=16, block_e=block_e, block_h=block_h),
    )


@cache
def device_architecture(device: torch.device) -> str:
    """The architecture of a GPU, "sm_90" or "gfx942" style; DEFAULT_ARCHITECTURE for other devices."""
    if device.type != "cuda":
        return DEFAULT_ARCHITECTURE
    if torch.version.hip:
        return str(torch.cuda.get_device_properties(device).gcnArchName).split(":")[0]
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))
