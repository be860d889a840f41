"""The launches of one forward or backward pass: their arguments, and the sizes, tiles and flags that they share."""

from __future__ import annotations

from functools import cache
from itertools import count
from math import gcd
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .autotune import tiles_for
from .backends import INTERPRETED
from .device import device_architecture
from .groups import Group, sequence_groups
from .launches import Launch
from .operands import Inputs, Operands
from .overrides import overrides
from .rounding import cdiv
from .settings import Settings
from .tiles import (
    MAX_BLOCK_T,
    Tile,
    choose_tiles,
    sharing_saves_tiles,
    tiles_for_batch,
    tiles_for_form,
    without_dx,
)


class Flags(NamedTuple):
    """Compile-time constants that all launches of a pass share, under their names in the kernels."""

    SELECT: bool
    ACTIVATION: str
    HAS_LOWER: bool
    HAS_MASK: bool
    PACKED: bool
    KERNEL_SIZE: int
    ALIGN: int  # divides the batch and row strides of all states
    EMBED_DIM: int
    SQUEEZE_DIM: int
    ROW_PARTS: int  # see `row_dot`
    TARGET: str  # see `kernels`


class KernelVariant(NamedTuple):
    """A kernel with given constants: argument names, constants in the kernel's order, and `Launch.compiled`."""

    arguments: tuple[str, ...]
    constants: dict[str, Any]
    compiled: dict[tuple[Any, ...], Any]


@cache
def _variant(kernel: Any, tile: Tile, flags: Flags, constants: tuple[tuple[str, Any], ...]) -> KernelVariant:
    blocks = {
        "BLOCK_T": tile.block_t, "BLOCK_E": tile.block_e, "BLOCK_H": tile.block_h, "CHUNKS": tile.chunks,
        "SLOTS": tile.slots, "EARLY": tile.early, "AHEAD": tile.ahead, "SEQUENCES": tile.sequences,
    }  # fmt: skip
    known = {**flags._asdict(), **blocks, **dict(constants)}
    arguments = tuple(name for name in kernel.arg_names if not name.isupper())
    return KernelVariant(arguments, {name: known[name] for name in kernel.arg_names if name.isupper()}, {})


class LaunchPlan:
    """The launches of a pass, and what they share: sizes, tiles, flags and strides of the states.

    Args:
        inputs: the tensors of the pass.
        operands: the same tensors as the kernels read them.
        settings: the other arguments of the pass.
    """

    def __init__(self, inputs: Inputs, operands: Operands, settings: Settings) -> None:
        self.operands = operands
        self.settings = settings
        self.packed, self.batch, self.rows = inputs.packed, inputs.batch, inputs.rows
        x, product_dtype = operands.x, settings.product_dtype
        self.length = 0 if self.packed else x.shape[1]
        self.kernel_size, self.squeeze_dim, self.embed_dim = operands.squeeze_weight.shape
        self.device = x.device
        self.dtype = x.dtype
        states = {"dz": operands.dz, "x": x, "y": operands.y}
        self._states = {name: tensor for name, tensor in states.items() if tensor is not None}
        # Without y, kernels get x in its place and do not read it: compiled functions cannot return None.
        self._states.setdefault("y", x)
        self.launches: list[Launch] = []  # added so far
        overridden = overrides()
        architecture = overridden.architecture or device_architecture(self.device)
        if overridden.tiles is not None:
            self.tiles = overridden.tiles
        elif overridden.architecture is not None or settings.token is not None:  # the token form is never tuned
            self.tiles = choose_tiles(self.embed_dim, self.squeeze_dim, self.dtype, architecture, product_dtype)
        else:
            self.tiles = tiles_for(self.embed_dim, self.squeeze_dim, self.dtype, self.device, product_dtype)
        share = self.tiles.l2_share if overridden.l2_share is None else overridden.l2_share
        self.l2_share = 0.0 if self.packed else share
        if overridden.tiles is None:
            state_bytes = self.embed_dim * self.dtype.itemsize
            tiles = tiles_for_form(self.tiles, self.kernel_size, self.packed)
            self.tiles = tiles_for_batch(
                tiles, self.batch, self.rows, state_bytes, self.l2_share, self.device, shared=self._can_share_tiles()
            )
            if not settings.needs_dx:
                self.tiles = without_dx(self.tiles, architecture, product_dtype)
        divisor = gcd(*(stride for tensor in self._states.values() for stride in tensor.stride()[:-1]))
        target = "nvidia" if architecture.startswith("sm_") else "amd"
        if INTERPRETED and self.device.type != "meta":
            target = "interpreter"
        # On other backends Triton specialises on more properties than `specialization_of` distinguishes.
        self.keeps_compiled = target == "nvidia" and torch.version.hip is None
        self.flags = Flags(
            SELECT=settings.fuse == "select",
            ACTIVATION=settings.activation,
            HAS_LOWER=operands.y is not None,
            HAS_MASK=operands.mask is not None,
            PACKED=self.packed,
            KERNEL_SIZE=self.kernel_size,
            ALIGN=next(n for n in (16, 8, 4, 1) if divisor % n == 0),
            EMBED_DIM=self.embed_dim,
            SQUEEZE_DIM=self.squeeze_dim,
            ROW_PARTS={torch.bfloat16: 1, torch.float16: 2, torch.float32: 0}[product_dtype],
            TARGET=target,
        )

    def _can_share_tiles(self) -> bool:
        """Return whether tiles may hold two sequences, and have less padding then.

        Taps and groups need tiles of one sequence, and offsets of rows from the first are 32 bits wide.
        """
        if self.packed or self.kernel_size > 1 or self.l2_share or self.settings.token is not None:
            return False
        reach = max(tensor.stride(0) + MAX_BLOCK_T * tensor.stride(1) for tensor in self._states.values())
        return reach < 1 << 31 and sharing_saves_tiles(self.length, self.operands.mask is not None)

    def slots(self, tile: Tile, group: Group | None = None) -> range:
        """Return the slots of all sequences or of a group; for packed input, an upper bound of them.

        The lengths of packed sequences are known only on the device. With two sequences a tile there is one group.
        """
        if self.packed:
            return range(self.rows // tile.block_t + self.batch)
        first, end = group or (0, self.batch)
        tiles_per_sequence = self._tiles_per_sequence(tile)
        return range(first * tiles_per_sequence, cdiv(end, tile.sequences) * tiles_per_sequence)

    def rotation(self, tile: Tile, splits: int) -> int:
        """Return by how many programs, of `splits` that deal the slots of tiles, each round starts further on.

        From round to round a program is then `splits` plus that many slots further, which has no divisor in common with
        the tiles of a sequence. Packed sequences are of different lengths, and need none.
        """
        if self.packed:
            return 0
        tiles_per_sequence = self._tiles_per_sequence(tile)
        return next(more for more in count() if gcd(splits + more, tiles_per_sequence) == 1)

    def _tiles_per_sequence(self, tile: Tile) -> int:
        return cdiv(self.length, tile.block_t // tile.sequences)

    def groups(self, states: int, squeezed: int) -> list[Group]:
        """Return the groups for stages that share `states` (B, T, E) tensors and `squeezed` (B, T, H) tensors."""
        if self.packed:
            return [Group(0, self.batch)]
        channels = states * self.embed_dim + squeezed * self.squeeze_dim
        return sequence_groups(self.batch, self.length * channels * self.dtype.itemsize, self.l2_share, self.device)

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return an uninitialised tensor on the call's device, for data that one launch passes to another."""
        return torch.empty(shape, dtype=dtype, device=self.device)

    def states(self, *names: str) -> dict[str, Tensor | int | None]:
        """Return the kernel arguments for states: tensors, their strides, mask, sequence starts, B and T.

        Args:
            names: any of "dz", "x" and "y", each (B, T, E), or (N, E) packed; "dz" is (B, E) in the token form.
        """
        arguments: dict[str, Tensor | int | None] = {f"{name}_ptr": self._states[name] for name in names}
        arguments |= {
            "mask_ptr": self.operands.mask,
            "cu_seqlens_ptr": self.operands.cu_seqlens,
            "batch": self.batch,
            "length": self.length,
        }
        for name in names:
            strides = self._states[name].stride()[:-1]
            arguments[f"{name}_batch_stride"] = 0 if self.packed else strides[0]
            arguments[f"{name}_row_stride"] = strides[-1]
        return arguments

    def add(self, kernel: Any, grid: tuple[int, ...], tile: Tile, arguments: dict[str, Any], **constants: Any) -> None:
        """Add a launch of `kernel` with those of the arguments, constants and shared flags that it declares."""
        variant = _variant(kernel, tile, self.flags, tuple(constants.items()))
        # Without a limit, the assembler spills a few registers to fit one more program on a multiprocessor.
        registers = tile.registers if self.flags.TARGET == "nvidia" else None
        self.launches.append(
            Launch(
                kernel, grid, {name: arguments[name] for name in variant.arguments}, variant.constants,
                tile.num_warps, tile.num_stages, registers, variant.compiled if self.keeps_compiled else None,
            )
        )  # fmt: skip
