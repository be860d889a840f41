"""Host side of the padded and the packed form: buffers, grids and launches of one forward and one backward pass.

Nothing here reads a value back from the device.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from .call import Call, cdiv
from .checks import AIFWeights
from .kernels.expand import expand_kernel
from .kernels.inputs import inputs_kernel, taps_kernel
from .kernels.reduce import reduce_kernel
from .kernels.squeeze import squeeze_kernel
from .results import BackwardResult, ForwardResult, empty_backward
from .shared_stages import launch_context, launch_weights, pooled_rows


@cache
def _multiprocessors(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).multi_processor_count)
    return 132 if device.type == "meta" else 2


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
