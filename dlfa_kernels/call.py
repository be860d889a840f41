"""One call of a pass: its arguments as the kernels take them, its buffers, and how its launches are made."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from math import gcd
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import environment
from .autotune import tiles_for
from .checks import AIFWeights
from .groups import Group, rows_in_share, sequence_groups
from .launches import Launch, overrides
from .tiles import Tile, choose_tiles, device_architecture, with_fewer_tokens

# Sequences of that many tokens on average, real or not, leave half of a tile of 128 empty.
SHORT = 64
# Elements from a token to the next: kernels take offsets within a tile in 32 bits.
MAX_ROW_STRIDE = 1 << 23


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


@cache
def multiprocessors(device: torch.device) -> int:
    """How many a GPU has; of the meta device those of an H200, of the CPU few."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).multi_processor_count)
    return 132 if device.type == "meta" else 2


def _rows_in_reach(states: Tensor) -> Tensor:
    """Strides over batch and tokens are free; states with strided channels or tokens very far apart are copied."""
    return states if states.stride(-1) == 1 and states.stride(-2) <= MAX_ROW_STRIDE else states.contiguous()


def _operand(weight: Tensor, products: torch.dtype | None) -> Tensor:
    """A wider weight in the dtype of products: cast once, for every program reads all of it, and holds it too."""
    if products is not None and weight.dtype.itemsize > products.itemsize:
        weight = weight.to(products)
    return weight.contiguous()


class Flags(NamedTuple):
    """Compile-time constants that the launches of a pass share, each by the name that kernels give it."""

    SELECT: bool
    ACTIVATION: str
    HAS_LOWER: bool
    HAS_MASK: bool
    PACKED: bool
    KERNEL_SIZE: int
    ALIGN: int  # divides the strides of all states' rows
    EMBED_DIM: int
    SQUEEZE_DIM: int
    PRECISION: str  # of products of float32 operands
    ROW_PARTS: int  # see `row_dot`
    INTERPRETED: bool
    PTX: bool  # instructions of NVIDIA may be used


class Variant(NamedTuple):
    """A kernel with given constants: names of its arguments, constants in its order, and `Launch.compiled`."""

    arguments: tuple[str, ...]
    constants: dict[str, Any]
    compiled: dict[tuple[Any, ...], Any]


@cache
def _variant(kernel: Any, tile: Tile, flags: Flags, constants: tuple[tuple[str, Any], ...]) -> Variant:
    blocks = {"BLOCK_T": tile.block_t, "BLOCK_E": tile.block_e, "BLOCK_H": tile.block_h, "CHUNKS": tile.chunks}
    known = {**flags._asdict(), **blocks, **dict(constants)}
    arguments = tuple(name for name in kernel.arg_names if not name.isupper())
    return Variant(arguments, {name: known[name] for name in kernel.arg_names if name.isupper()}, {})


class Call:
    """What all launches of a pass share: sizes, flags, the rows' strides, and how to launch."""

    def __init__(
        self,
        last: Tensor,
        lower: Tensor | None,
        dz: Tensor | None,
        weights: AIFWeights,
        mask: Tensor | None,
        cu_seqlens: Tensor | None,
        fuse: str,
        activation: str,
        products: torch.dtype | None = None,
    ) -> None:
        self.packed = cu_seqlens is not None
        self.cu_seqlens = None if cu_seqlens is None else cu_seqlens.contiguous()
        self.batch = last.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
        self.length = 0 if self.packed else last.shape[1]
        self.rows = last.shape[0] if cu_seqlens is not None else last.shape[0] * last.shape[1]
        self.embed_dim = last.shape[-1]
        self.squeeze_dim, _, self.kernel_size = weights.local_squeeze_weight.shape
        self.device = last.device
        self.dtype = last.dtype
        self.mask = None if mask is None else mask.contiguous()
        if self.mask is not None and self.mask.dtype == torch.bool:
            self.mask = self.mask.view(torch.uint8)
        inputs = {"dz": dz, "x": last, "y": lower}
        self._states = {name: _rows_in_reach(tensor) for name, tensor in inputs.items() if tensor is not None}
        # Without y, kernels have x in its place and read nothing there: compiled functions cannot return None.
        self._states.setdefault("y", self._states["x"])
        # (k, H, E): the taps' matrices one after the other, as the kernels read them
        self.squeeze_weight = _operand(weights.local_squeeze_weight.permute(2, 0, 1), products)
        self.weights = AIFWeights._make(weight.contiguous() for weight in weights)
        self.expand_weight = _operand(self.weights.local_expand_weight, products)
        overridden = overrides()
        architecture = overridden.architecture or device_architecture(last.device)
        if overridden.tiles is not None:
            self.tiles = overridden.tiles
        elif overridden.architecture is not None:
            self.tiles = choose_tiles(self.embed_dim, self.squeeze_dim, self.dtype, architecture, products)
        else:
            self.tiles = tiles_for(self.embed_dim, self.squeeze_dim, self.dtype, self.device, products)
        share = self.tiles.l2_share if overridden.l2_share is None else overridden.l2_share
        self.l2_share = 0.0 if self.packed else share
        together = self.rows  # tokens that a launch works on
        if self.l2_share:
            state_bytes = self.embed_dim * self.dtype.itemsize
            together = min(together, rows_in_share(2 * state_bytes, self.l2_share, self.device))
        few = max(SHORT * self.batch, 2 * SHORT * multiprocessors(self.device))
        if overridden.tiles is None and together <= few:
            self.tiles = with_fewer_tokens(self.tiles)
        divisor = gcd(*(stride for tensor in self._states.values() for stride in tensor.stride()[:-1]))
        interpreted = last.device.type == "cpu" and environment.triton_interpreted()
        nvidia = architecture.startswith("sm_") and not interpreted
        # Under other backends Triton compiles for more than `Launch` tells apart.
        self.keeps_compiled = nvidia and torch.version.hip is None
        self.flags = Flags(
            SELECT=fuse == "select",
            ACTIVATION=activation,
            HAS_LOWER=lower is not None,
            HAS_MASK=mask is not None,
            PACKED=self.packed,
            KERNEL_SIZE=self.kernel_size,
            ALIGN=next(n for n in (16, 8, 4, 1) if divisor % n == 0),
            EMBED_DIM=self.embed_dim,
            SQUEEZE_DIM=self.squeeze_dim,
            PRECISION="tf32x3" if nvidia else "ieee",
            ROW_PARTS={torch.bfloat16: 1, torch.float16: 2, torch.float32: 0}[products or self.dtype],
            INTERPRETED=interpreted,
            PTX=nvidia,
        )

    def slots(self, block_t: int, group: Group | None = None) -> range:
        """Tiles of all sequences, or of a group; where lengths are only known on the device, as many as could be."""
        if self.packed:
            return range(self.rows // block_t + self.batch)
        first, end = group or (0, self.batch)
        tiles = cdiv(self.length, block_t)
        return range(first * tiles, end * tiles)

    def groups(self, states: int, squeezed: int) -> list[Group]:
        """Groups of sequences for stages that share this many (B, T, E) and (B, T, H) tensors."""
        if self.packed:
            return [Group(0, self.batch)]
        channels = states * self.embed_dim + squeezed * self.squeeze_dim
        return sequence_groups(self.batch, self.length * channels * self.dtype.itemsize, self.l2_share, self.device)

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    def states(self, *names: str) -> dict[str, Tensor | int | None]:
        """Pointers and strides of the named big inputs, then mask and sequence starts, as the kernels take them."""
        arguments: dict[str, Tensor | int | None] = {f"{name}_ptr": self._states[name] for name in names}
        arguments |= {
            "mask_ptr": self.mask,
            "cu_seqlens_ptr": self.cu_seqlens,
            "batch": self.batch,
            "length": self.length,
        }
        for name in names:
            strides = self._states[name].stride()[:-1]
            arguments[f"{name}_batch_stride"] = 0 if self.packed else strides[0]
            arguments[f"{name}_row_stride"] = strides[-1]
        return arguments

    def launch(
        self, kernel: Any, grid: tuple[int, ...], tile: Tile, arguments: dict[str, Any], **constants: Any
    ) -> None:
        """Launch `kernel`, picking of the arguments and the shared flags those it declares."""
        variant = _variant(kernel, tile, self.flags, tuple(constants.items()))
        # Left alone, the assembler spills a few registers to fit one more program on a multiprocessor.
        registers = tile.registers if self.flags.PTX else None
        launch = Launch(
            kernel, grid, {name: arguments[name] for name in variant.arguments}, variant.constants,
            tile.num_warps, tile.num_stages, registers, variant.compiled if self.keeps_compiled else None,
        )  # fmt: skip
        if (recorded := overrides().recorded) is not None:
            recorded.append(launch)
        if self.device.type != "meta":
            launch.run(self.device)

    def on_device(self) -> AbstractContextManager[object]:
        """Make the tensors' device the current one, which is where Triton launches."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()
