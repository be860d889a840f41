"""The calls of AIF that the suites measure: sizes, settings and their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch

from dlfa_kernels.branches import default_squeeze_dim
from dlfa_kernels.checks import FUSE_MODES

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
REDUCTIONS = (4, 16)
KERNEL_SIZES = (1, 3)

Shape = tuple[int, int, int]  # (B, T, E)

# The usual size of fine-tuning, bound by launches; all other sizes are bound by memory or arithmetic.
SMALL_SHAPE = (32, 128, 768)
BASE_SHAPE = (256, 128, 768)
SHAPES = (SMALL_SHAPE, BASE_SHAPE, (64, 512, 768), (128, 512, 1024), (16, 4096, 1024), (8, 512, 2560))
# Sizes that a CPU computes in seconds: the same code, with times that say nothing about a GPU.
CPU_SHAPES = ((2, 16, 32), (4, 24, 64))


@dataclass(frozen=True)
class Case:
    """One call: two inputs (B, T, E), relu, and a mask with a share `fill` of real tokens.

    `packed` passes only the real tokens, (N, E) with `cu_seqlens`; `token` requests only that token's state.
    """

    shape: Shape
    squeeze_dim: int
    kernel_size: int = 1
    fuse: str = "gate"
    dtype: str = "bfloat16"
    fill: float = 1.0
    packed: bool = False
    token: int | None = None

    @property
    def lengths(self) -> list[int]:
        """The real tokens of each sequence, evenly spread between 0.5 and 1.5 times fill * T."""
        batch, length, _ = self.shape
        longest = min(1.0, 1.5 * self.fill)
        shortest = 2 * self.fill - longest
        steps = max(1, batch - 1)
        return [round(length * (shortest + (longest - shortest) * index / steps)) for index in range(batch)]

    @property
    def tensor_bytes(self) -> int:
        """The bytes of B*T*E elements."""
        batch, length, embed_dim = self.shape
        return batch * length * embed_dim * DTYPES[self.dtype].itemsize

    def __str__(self) -> str:
        form = " packed" if self.packed else "" if self.token is None else f" token={self.token}"
        size = shape_name(self.shape)
        return f"{size} H={self.squeeze_dim} {self.fuse} k={self.kernel_size} {self.dtype} fill={self.fill:g}{form}"


def shape_name(shape: Sequence[int]) -> str:
    """Return a shape in print, such as 32x128x768."""
    return "x".join(map(str, shape))


def shapes(device: torch.device) -> tuple[Shape, ...]:
    """Return the core sizes of a device."""
    return SHAPES if device.type == "cuda" else CPU_SHAPES


def core_case(shape: Shape) -> Case:
    """Return the case with bfloat16, gate, kernel size 1, H = E/4."""
    return Case(shape, default_squeeze_dim(shape[-1], REDUCTIONS[0]))


def variations(shape: Shape) -> list[Case]:
    """Return `core_case` with one setting changed at a time."""
    core = core_case(shape)
    changed = [
        replace(core, squeeze_dim=default_squeeze_dim(shape[-1], REDUCTIONS[1])),
        replace(core, fuse="select"),
        replace(core, kernel_size=3),
        replace(core, dtype="float16"),
        replace(core, dtype="float32"),
    ]
    return [case for case in changed if case != core]


def full_grid(device: torch.device) -> list[Case]:
    """Return all combinations of size, squeeze width, fuse mode, kernel size and dtype."""
    grid = product(shapes(device), REDUCTIONS, FUSE_MODES, KERNEL_SIZES, DTYPES)
    return [
        Case(shape, default_squeeze_dim(shape[-1], reduction), kernel_size, fuse, dtype)
        for shape, reduction, fuse, kernel_size, dtype in grid
    ]
