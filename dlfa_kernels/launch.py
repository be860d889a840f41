"""Host side of the kernels: buffers, grids and launches of one forward and one backward pass.

Nothing here reads a value back from the device. On the meta device, and while `record_launches` is active, launches are
noted instead of run, which is how they are inspected on a machine without a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import environment
from .autotune import tiles_for
from .checks import AIFWeights
from .kernels.context import context_kernel
from .kernels.expand import expand_kernel
from .kernels.inputs import inputs_kernel, taps_kernel
from .kernels.pool import pool_kernel
from .kernels.reduce import reduce_kernel
from .kernels.squeeze import squeeze_kernel
from .kernels.weights import weights_kernel
from .tiles import Tile, Tiles, choose_tiles, device_architecture

# Sequences of more tiles than this are pooled by a launch of their own before the context.
TILES_POOLED_BY_CONTEXT = 4

MAX_REGISTERS = 255


class ForwardResult(NamedTuple):
    """z and what the backward needs besides the inputs; float32 rows but for `squeezed`, in z's dtype."""

    z: Tensor  # as last
    squeezed: Tensor  # (rows, H), the local squeeze before its activation
    hidden: Tensor  # (B, H), the global squeeze before its activation
    pooled: Tensor  # (B, E), p
    context: Tensor  # (B, E), g
    tokens: Tensor  # (B,) int32, |V_b|


class BackwardResult(NamedTuple):
    """Gradients; `dy` is empty where dx serves both inputs or there is no second one."""

    dx: Tensor
    dy: Tensor
    weights: AIFWeights


@dataclass(frozen=True)
class Launch:
    """One kernel launch: arguments in the kernel's order, then its compile-time constants."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Tensor | int | None]
    constants: dict[str, Any]
    num_warps: int
    num_stages: int
    maxnreg: int | None = None  # registers a thread may take, on NVIDIA

    @property
    def options(self) -> dict[str, int]:
        """The compiler's options, as keywords of the launch."""
        options = {"num_warps": self.num_warps, "num_stages": self.num_stages}
        return options if self.maxnreg is None else {**options, "maxnreg": self.maxnreg}

    def run(self) -> None:
        """Launch on the current device and stream."""
        self.kernel[self.grid](**self.arguments, **self.constants, **self.options)


_recorder: list[Launch] | None = None


_architecture: str | None = None


@contextmanager
def record_launches(architecture: str | None = None) -> Iterator[list[Launch]]:
    """Collect the launches made inside; on the meta device they are only collected.

    Args:
        architecture: choose tiles for it, such as "sm_80", whatever device the tensors are on.
    """
    global _recorder, _architecture
    outer, _recorder, _architecture = (_recorder, _architecture), [], architecture
    try:
        yield _recorder
    finally:
        _recorder, _architecture = outer


_tiles: Tiles | None = None


@contextmanager
def using_tiles(tiles: Tiles) -> Iterator[None]:
    """Launch with these tiles inside, whatever the sizes: for tuning and for tests."""
    global _tiles
    outer, _tiles = _tiles, tiles
    try:
        yield
    finally:
        _tiles = outer


@cache
def _multiprocessors(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).multi_processor_count)
    return 132 if device.type == "meta" else 2


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


def _channels_contiguous(states: Tensor) -> Tensor:
    """Any strides over batch and tokens are fine; states whose channels are strided are copied, once."""
    return states if states.stride(-1) == 1 else states.contiguous()


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
        self.last = _channels_contiguous(last)
        self.lower = None if lower is None else _channels_contiguous(lower)
        self.dz = None if dz is None else _channels_contiguous(dz)
        # (k, H, E): the taps' matrices one after the other, as the kernels read them
        self.squeeze_weight = weights.local_squeeze_weight.permute(2, 0, 1).contiguous()
        self.weights = AIFWeights._make(weight.contiguous() for weight in weights)
        architecture = _architecture or device_architecture(last.device)
        if _tiles is not None:
            self.tiles = _tiles
        elif _architecture is not None:
            self.tiles = choose_tiles(self.embed_dim, self.squeeze_dim, self.dtype, _architecture)
        else:
            self.tiles = tiles_for(self.embed_dim, self.squeeze_dim, self.dtype, self.device)
        strides = [s for t in (self.last, self.lower, self.dz) if t is not None for s in t.stride()[:-1]]
        self.align = next(n for n in (16, 8, 4, 1) if all(stride % n == 0 for stride in strides))
        self.interpreted = environment.triton_interpreted() and last.device.type == "cpu"
        nvidia = architecture.startswith("sm_") and not self.interpreted
        # Left alone, the assembler spills a few registers to fit one more program on a multiprocessor.
        self.maxnreg = MAX_REGISTERS if nvidia else None
        self.flags = {
            "SELECT": fuse == "select",
            "ACTIVATION": activation,
            "HAS_LOWER": lower is not None,
            "HAS_MASK": mask is not None,
            "PACKED": self.packed,
            "KERNEL_SIZE": self.kernel_size,
            "ALIGN": self.align,
            "EMBED_DIM": self.embed_dim,
            "SQUEEZE_DIM": self.squeeze_dim,
            "PRECISION": "tf32x3" if nvidia else "ieee",
            "INTERPRETED": self.interpreted,
        }

    def slots(self, block_t: int) -> int:
        """Tiles of all sequences; where lengths are only known on the device, as many as there could be."""
        if self.packed:
            return self.rows // block_t + self.batch
        return self.batch * cdiv(self.length, block_t)

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    def states(self, *names: str) -> dict[str, Tensor | int | None]:
        """Pointers and strides of the named big inputs, then mask and sequence starts, as the kernels take them."""
        tensors = {"dz": self.dz, "x": self.last, "y": self.lower}
        arguments: dict[str, Tensor | int | None] = {f"{name}_ptr": tensors[name] for name in names}
        arguments |= {
            "mask_ptr": self.mask,
            "cu_seqlens_ptr": self.cu_seqlens,
            "batch": self.batch,
            "length": self.length,
        }
        for name in names:
            tensor = tensors[name]
            strides = (0, 0) if tensor is None else tensor.stride()[:-1]
            arguments[f"{name}_batch_stride"] = 0 if self.packed else strides[0]
            arguments[f"{name}_row_stride"] = strides[-1]
        return arguments

    def launch(
        self, kernel: Any, grid: tuple[int, ...], tile: Tile, arguments: dict[str, Any], **constants: Any
    ) -> None:
        """Launch `kernel`, picking of the shared flags those it declares."""
        blocks = {"BLOCK_T": tile.block_t, "BLOCK_E": tile.block_e, "BLOCK_H": tile.block_h, "CHUNKS": tile.chunks}
        known = {**self.flags, **blocks, **constants}
        constants = {name: known[name] for name in kernel.arg_names if name in known}
        arguments = {name: arguments[name] for name in kernel.arg_names if name in arguments}
        launch = Launch(kernel, grid, arguments, constants, tile.num_warps, tile.num_stages, self.maxnreg)
        if _recorder is not None:
            _recorder.append(launch)
        if self.device.type != "meta":
            launch.run()

    def on_device(self) -> AbstractContextManager[object]:
        """Make the tensors' device the current one, which is where Triton launches."""
        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()


def pooled_rows(
    call: Call, sums: Tensor, counts: Tensor, tile: int, tokens: Tensor, mean: bool
) -> tuple[Tensor, dict[str, Any], bool]:
    """The pooled rows' buffer, the context kernel's arguments for it, and whether it is filled already."""
    pooled = call.empty(call.batch, call.embed_dim)
    tiles = 0 if call.packed else cdiv(call.length, tile)
    early = call.packed or tiles > TILES_POOLED_BY_CONTEXT
    if early:
        choice = call.tiles.pool
        call.launch(
            pool_kernel,
            (call.batch, cdiv(call.embed_dim, choice.block_e)),
            choice,
            {
                "sums_ptr": sums, "counts_ptr": counts, "cu_seqlens_ptr": call.cu_seqlens, "pooled_ptr": pooled,
                "tokens_ptr": tokens, "batch": call.batch, "length": call.length,
            },
            MEAN=mean,
            TILE=tile,
            BLOCK_TILES=choice.block_t,
        )  # fmt: skip
    return pooled, {"sums_ptr": sums, "counts_ptr": counts, "pooled_ptr": pooled, "tiles": tiles}, early


def launch_context(call: Call, arguments: dict[str, Any], *, backward: bool, pooled: bool) -> None:
    """The global branch, or its gradient, on rows that are pooled already or are still sums of tiles."""
    choice, weights = call.tiles.context, call.weights
    call.launch(
        context_kernel,
        (cdiv(call.batch, choice.block_t), cdiv(call.embed_dim, choice.block_e)),
        choice,
        arguments
        | {
            "squeeze_weight_ptr": weights.global_squeeze_weight,
            "squeeze_bias_ptr": weights.global_squeeze_bias,
            "expand_weight_ptr": weights.global_expand_weight,
            "expand_bias_ptr": weights.global_expand_bias,
            "batch": call.batch,
        },
        BACKWARD=backward,
        POOLED=pooled,
        BLOCK_B=choice.block_t,
    )


def launch_weights(
    call: Call,
    saved: ForwardResult,
    expand_parts: Tensor,
    squeeze_parts: Tensor,
    bias_parts: Tensor,
    context_gradient: Tensor,
    hidden_gradient: Tensor,
    result: BackwardResult,
) -> None:
    """Fill the eight parameter gradients of `result` from partial sums and per-sequence rows."""
    tile = call.tiles.weights
    call.launch(
        weights_kernel,
        (cdiv(call.embed_dim, tile.block_e), cdiv(call.squeeze_dim, tile.block_h)),
        tile,
        {
            "expand_parts_ptr": expand_parts, "squeeze_parts_ptr": squeeze_parts,
            "bias_parts_ptr": bias_parts, "pooled_ptr": saved.pooled, "hidden_ptr": saved.hidden,
            "context_gradient_ptr": context_gradient, "hidden_gradient_ptr": hidden_gradient,
            "batch": call.batch, "splits": expand_parts.shape[0], "bias_rows": bias_parts.shape[0],
            **{f"{name}_ptr": gradient for name, gradient in result.weights._asdict().items()},
        },
        BLOCK_B=tile.block_t,
        BLOCK_ROWS=128,
    )  # fmt: skip


def forward(
    last: Tensor,
    lower: Tensor | None,
    weights: AIFWeights,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    fuse: str,
    activation: str,
) -> ForwardResult:
    """z of the padded or packed form in three launches, four where sequences are long or packed."""
    call = Call(last, lower, None, weights, mask, cu_seqlens, fuse, activation)
    result = empty_forward(last, weights, cu_seqlens)
    if call.rows == 0 or call.batch == 0:
        return result._replace(hidden=result.hidden.zero_(), pooled=result.pooled.zero_(),
                               context=result.context.zero_(), tokens=result.tokens.zero_())  # fmt: skip
    with call.on_device():
        tile = call.tiles.squeeze
        slots = call.slots(tile.block_t)
        sums, counts = call.empty(slots, call.embed_dim), call.empty(slots, dtype=torch.int32)
        call.launch(
            squeeze_kernel,
            (slots, cdiv(call.squeeze_dim, tile.held_h)),
            tile,
            call.states("x", "y")
            | {
                "weight_ptr": call.squeeze_weight, "bias_ptr": call.weights.local_squeeze_bias,
                "squeezed_ptr": result.squeezed, "sums_ptr": sums, "counts_ptr": counts,
            },
        )  # fmt: skip
        pooled, arguments, early = pooled_rows(call, sums, counts, tile.block_t, result.tokens, mean=True)
        launch_context(
            call,
            arguments
            | {
                "tokens_ptr": result.tokens, "hidden_ptr": result.hidden, "hidden_gradient_ptr": None,
                "context_ptr": result.context,
            },
            backward=False,
            pooled=early,
        )  # fmt: skip
        tile = call.tiles.expand
        call.launch(
            expand_kernel,
            (call.slots(tile.block_t), 1),
            tile,
            call.states("x", "y")
            | {
                "squeezed_ptr": result.squeezed, "weight_ptr": call.weights.local_expand_weight,
                "bias_ptr": call.weights.local_expand_bias, "context_ptr": result.context, "z_ptr": result.z,
            },
        )  # fmt: skip
    return result._replace(pooled=pooled)


def empty_forward(last: Tensor, weights: AIFWeights, cu_seqlens: Tensor | None) -> ForwardResult:
    """Buffers of a forward pass; also its shapes, for tracing."""
    batch = last.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    rows = last.shape[0] if cu_seqlens is not None else last.shape[0] * last.shape[1]
    embed_dim, squeeze_dim = last.shape[-1], weights.local_squeeze_weight.shape[0]
    float32 = {"dtype": torch.float32, "device": last.device}
    return ForwardResult(
        z=torch.empty(last.shape, dtype=last.dtype, device=last.device),
        squeezed=torch.empty((rows, squeeze_dim), dtype=last.dtype, device=last.device),
        hidden=torch.empty((batch, squeeze_dim), **float32),  # type: ignore[call-overload]
        pooled=torch.empty((batch, embed_dim), **float32),  # type: ignore[call-overload]
        context=torch.empty((batch, embed_dim), **float32),  # type: ignore[call-overload]
        tokens=torch.empty((batch,), dtype=torch.int32, device=last.device),
    )


def empty_backward(last: Tensor, weights: AIFWeights, fuse: str) -> BackwardResult:
    """Buffers of a backward pass; also its shapes, for tracing."""
    like = {"dtype": last.dtype, "device": last.device}
    return BackwardResult(
        dx=torch.empty(last.shape, **like),  # type: ignore[call-overload]
        dy=torch.empty(last.shape if fuse == "select" else (0,), **like),  # type: ignore[call-overload]
        weights=AIFWeights._make(torch.empty(w.shape, dtype=w.dtype, device=w.device) for w in weights),
    )


def backward(
    dz: Tensor,
    last: Tensor,
    lower: Tensor | None,
    weights: AIFWeights,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    saved: ForwardResult,
    fuse: str,
    activation: str,
) -> BackwardResult:
    """All gradients in four launches; one more where sequences are long or packed, one more for kernel sizes over 1."""
    call = Call(last, lower, dz, weights, mask, cu_seqlens, fuse, activation)
    result = empty_backward(last, weights, fuse)
    if call.rows == 0 or call.batch == 0:
        for gradient in result.weights:
            gradient.zero_()
        return result
    with call.on_device():
        tile = call.tiles.reduce
        slots = call.slots(tile.block_t)
        sums, counts = call.empty(slots, call.embed_dim), call.empty(slots, dtype=torch.int32)
        squeezed_gradient = torch.empty_like(saved.squeezed)
        bias_parts = call.empty(slots, call.squeeze_dim)
        expand_weight, expand_bias = call.weights.local_expand_weight, call.weights.local_expand_bias
        call.launch(
            reduce_kernel,
            (slots, cdiv(call.squeeze_dim, tile.held_h)),
            tile,
            call.states("dz", "x", "y")
            | {
                "squeezed_ptr": saved.squeezed, "weight_ptr": expand_weight, "bias_ptr": expand_bias,
                "context_ptr": saved.context, "squeezed_gradient_ptr": squeezed_gradient,
                "bias_parts_ptr": bias_parts, "sums_ptr": sums, "counts_ptr": counts,
            },
        )  # fmt: skip

        tokens = call.empty(call.batch, dtype=torch.int32)
        context_gradient, arguments, early = pooled_rows(call, sums, counts, tile.block_t, tokens, mean=False)
        hidden_gradient = torch.empty_like(saved.hidden)
        pooled_gradient = call.empty(call.batch, call.embed_dim)
        launch_context(
            call,
            arguments
            | {
                "tokens_ptr": saved.tokens, "hidden_ptr": saved.hidden, "hidden_gradient_ptr": hidden_gradient,
                "context_ptr": pooled_gradient,
            },
            backward=True,
            pooled=early,
        )  # fmt: skip

        tile = call.tiles.inputs
        slots = call.slots(tile.block_t)
        blocks_e, blocks_h = cdiv(call.embed_dim, tile.block_e), cdiv(call.squeeze_dim, tile.held_h)
        splits = max(1, min(slots, _multiprocessors(call.device) // (blocks_e * blocks_h)))
        expand_parts = call.empty(splits, call.embed_dim, call.squeeze_dim)
        squeeze_parts = call.empty(splits, call.kernel_size, call.embed_dim, call.squeeze_dim)
        call.launch(
            inputs_kernel,
            (blocks_e, splits, blocks_h),
            tile,
            call.states("dz", "x", "y")
            | {
                "squeezed_ptr": saved.squeezed, "squeezed_gradient_ptr": squeezed_gradient,
                "squeeze_weight_ptr": call.squeeze_weight, "expand_weight_ptr": expand_weight,
                "expand_bias_ptr": expand_bias, "context_ptr": saved.context,
                "pooled_gradient_ptr": pooled_gradient, "dx_ptr": result.dx, "dy_ptr": result.dy,
                "squeeze_parts_ptr": squeeze_parts,
                "expand_parts_ptr": expand_parts, "slots": slots,
            },
        )  # fmt: skip
        if call.kernel_size > 1:
            tile = call.tiles.taps
            blocks = cdiv(call.embed_dim, tile.block_e) * cdiv(call.squeeze_dim, tile.block_h)
            call.launch(
                taps_kernel,
                (blocks, splits, call.kernel_size),
                tile,
                call.states("x", "y")
                | {
                    "squeezed_gradient_ptr": squeezed_gradient, "squeeze_parts_ptr": squeeze_parts,
                    "slots": call.slots(tile.block_t),
                },
            )  # fmt: skip

        launch_weights(call, saved, expand_parts, squeeze_parts, bias_parts, context_gradient, hidden_gradient, result)
    return result
