"""Stages of the padded and the packed form: buffers, grids and launches of one forward and one backward pass.

Stages follow each other group of sequences by group (see `groups`), all groups in one order on one stream. Nothing here
reads a value back from the device.
"""

from __future__ import annotations

import math

import torch

from .call import Call, Settings
from .device import multiprocessors
from .kernels.expand import expand_kernel
from .kernels.inputs import inputs_kernel
from .kernels.reduce import reduce_kernel
from .kernels.squeeze import squeeze_kernel
from .kernels.taps import taps_kernel
from .operands import Inputs, sequence_count
from .results import BackwardResult, ForwardResult
from .rounding import cdiv
from .shared_stages import add_context, add_forward_context, add_pooling, add_weights


def empty_forward(inputs: Inputs, settings: Settings) -> ForwardResult:
    """Buffers of a forward pass; also its shapes, for tracing. z is as last, `squeezed` in the dtype of products."""
    last = inputs.last
    batch, rows = sequence_count(last, inputs.cu_seqlens), math.prod(last.shape[:-1])
    embed_dim, squeeze_dim, device = last.shape[-1], inputs.weights.local_squeeze_weight.shape[0], last.device
    pooled = torch.empty(batch, embed_dim, dtype=torch.float32, device=device)
    return ForwardResult(
        z=torch.empty_like(last, memory_format=torch.contiguous_format),
        squeezed=torch.empty(rows, squeeze_dim, dtype=settings.product_dtype, device=device),
        hidden=torch.empty(batch, squeeze_dim, dtype=torch.float32, device=device),
        pooled=pooled,
        context=torch.empty_like(pooled),
        tokens=torch.empty(batch, dtype=torch.int32, device=device),
    )


def forward_stages(call: Call, result: ForwardResult) -> None:
    """Add what fills `result`: three launches a group.

    One more where sequences are long or packed, and one where E H exceeds 2^18 (`shared_stages.WEIGHTS_OF_ONE_LAUNCH`).
    """
    squeeze, expand = call.tiles.squeeze, call.tiles.expand
    slots = len(call.slots(squeeze.block_t)) + squeeze.slots - 1  # the last program may have some too many
    sums, counts = call.empty(slots, call.embed_dim), call.empty(slots, dtype=torch.int32)
    states = call.states("x", "y")
    for group in call.groups(states=1 if call.operands.y is None else 2, squeezed=1):
        tiles = call.slots(squeeze.block_t, group)
        call.add(
            squeeze_kernel,
            (cdiv(len(tiles), squeeze.slots), cdiv(call.squeeze_dim, squeeze.held_h)),
            squeeze,
            states
            | {
                "weight_ptr": call.operands.squeeze_weight, "bias_ptr": call.operands.squeeze_bias,
                "squeezed_ptr": result.squeezed, "sums_ptr": sums, "counts_ptr": counts, "end_slot": tiles.stop,
                "first_slot": tiles.start,
            },
        )  # fmt: skip
        add_forward_context(call, group, sums, counts, squeeze.block_t, result)
        tiles = call.slots(expand.block_t, group)
        # where tiles are too few to fill the device, their channels are split among programs
        splits = 2 * multiprocessors(call.device) // len(tiles)
        call.add(
            expand_kernel,
            (len(tiles), max(1, min(cdiv(call.embed_dim, expand.block_e), splits))),
            expand,
            states
            | {
                "squeezed_ptr": result.squeezed, "weight_ptr": call.operands.expand_weight,
                "context_ptr": result.context, "z_ptr": result.z, "first_slot": tiles.start,
            },
        )  # fmt: skip


def backward_stages(call: Call, saved: ForwardResult, result: BackwardResult) -> None:
    """Add what fills `result`, all gradients: three launches a group and one at the end.

    One more a group where sequences are long or packed, one more where E H exceeds 2^18 and dx is needed, and one for
    kernel sizes over 1.
    """
    reduce, inputs, taps = call.tiles.reduce, call.tiles.inputs, call.tiles.taps
    slots = len(call.slots(reduce.block_t))
    sums, counts = call.empty(slots, call.embed_dim), call.empty(slots, dtype=torch.int32)
    bias_parts = call.empty(slots, call.squeeze_dim)
    squeezed_gradient = call.empty(call.rows, call.squeeze_dim, dtype=saved.squeezed.dtype)
    u = saved.squeezed if call.settings.activation == "relu" else torch.empty_like(squeezed_gradient)
    hidden_gradient, tokens = torch.empty_like(saved.hidden), torch.empty_like(saved.tokens)
    context_gradient = torch.empty_like(saved.pooled)
    pooled_gradient = torch.empty_like(saved.pooled) if call.settings.needs_dx else None
    states, groups = call.states("dz", "x", "y"), call.groups(states=2 if call.operands.y is None else 3, squeezed=2)

    blocks_e, blocks_h = cdiv(call.embed_dim, inputs.block_e), cdiv(call.squeeze_dim, inputs.held_h)
    most_slots = len(call.slots(inputs.block_t, groups[0]))
    programs = multiprocessors(call.device) * (8 // inputs.num_warps)
    splits = max(1, min(most_slots, programs // (blocks_e * blocks_h)))
    expand_parts = call.empty(splits, call.squeeze_dim, call.embed_dim)
    squeeze_parts = call.empty(splits, call.kernel_size, call.squeeze_dim, call.embed_dim)
    for group in groups:
        tiles = call.slots(reduce.block_t, group)
        call.add(
            reduce_kernel,
            (len(tiles), cdiv(call.squeeze_dim, reduce.held_h)),
            reduce,
            states
            | {
                "squeezed_ptr": saved.squeezed, "weight_ptr": call.operands.expand_weight,
                "context_ptr": saved.context, "u_ptr": u, "squeezed_gradient_ptr": squeezed_gradient,
                "bias_parts_ptr": bias_parts, "sums_ptr": sums, "counts_ptr": counts, "first_slot": tiles.start,
            },
        )  # fmt: skip
        rows, pooled = add_pooling(call, group, sums, counts, reduce.block_t, context_gradient, tokens, mean=False)
        add_context(
            call,
            group,
            rows
            | {
                "tokens_ptr": saved.tokens, "hidden_ptr": saved.hidden, "hidden_gradient_ptr": hidden_gradient,
                "context_ptr": pooled_gradient,
            },
            backward=True,
            pooled=pooled,
        )  # fmt: skip
        if call.kernel_size > 1:
            tiles = call.slots(taps.block_t, group)
            blocks = cdiv(call.embed_dim, taps.block_e) * cdiv(call.squeeze_dim, taps.block_h)
            call.add(
                taps_kernel,
                (blocks, splits, call.kernel_size),
                taps,
                states
                | {
                    "squeezed_gradient_ptr": squeezed_gradient, "squeeze_parts_ptr": squeeze_parts,
                    "first_slot": tiles.start, "end_slot": tiles.stop,
                },
                ADD=group.first > 0,
            )  # fmt: skip
        tiles = call.slots(inputs.block_t, group)
        call.add(
            inputs_kernel,
            (blocks_e, splits, blocks_h),
            inputs,
            states
            | {
                "u_ptr": u, "squeezed_gradient_ptr": squeezed_gradient,
                "squeeze_weight_ptr": call.operands.squeeze_weight, "expand_weight_ptr": call.operands.expand_weight,
                "context_ptr": saved.context,
                "pooled_gradient_ptr": pooled_gradient, "dx_ptr": result.dx, "dy_ptr": result.dy,
                "squeeze_parts_ptr": squeeze_parts, "expand_parts_ptr": expand_parts,
                "first_slot": tiles.start, "end_slot": tiles.stop,
            },
            NEEDS_DX=call.settings.needs_dx,
            EARLY=inputs.block_t > 32,  # tiles of products whose operands are in shared memory
            ADD=group.first > 0,
        )  # fmt: skip
    add_weights(call, saved, expand_parts, squeeze_parts, bias_parts, context_gradient, hidden_gradient, result)
