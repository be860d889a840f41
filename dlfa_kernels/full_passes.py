"""Stages of the padded and packed forms: buffers, grids and launches of the forward and the backward pass.

The stages run for one group of sequences after another (see `groups`), in a fixed order on one stream. Nothing here
reads a value back from the device.
"""

from __future__ import annotations

import math

import torch

from .device import multiprocessors
from .kernels.expand import expand_kernel
from .kernels.input_grads import input_grads_kernel
from .kernels.reduce import reduce_kernel
from .kernels.squeeze import squeeze_kernel
from .kernels.tap_grads import tap_grads_kernel
from .launch_plan import LaunchPlan
from .operands import Inputs, sequence_count
from .results import BackwardResult, ForwardResult
from .rounding import cdiv
from .settings import Settings
from .shared_stages import add_context, add_forward_context, add_pooling, add_weight_grads


def empty_forward(inputs: Inputs, settings: Settings) -> ForwardResult:
    """Return uninitialised results of a forward pass; tracing uses their shapes."""
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


def forward_stages(plan: LaunchPlan, result: ForwardResult) -> None:
    """Add the launches that fill `result`: three a group.

    Long or packed sequences take one more, E H over 2^18 (`shared_stages.WEIGHTS_OF_ONE_LAUNCH`) another.
    """
    squeeze, expand = plan.tiles.squeeze, plan.tiles.expand
    slot_count = len(plan.slots(squeeze)) + squeeze.slots - 1  # the last program may have slots past the end
    sums, counts = plan.empty(slot_count, plan.embed_dim), plan.empty(slot_count, dtype=torch.int32)
    states = plan.states("x", "y")
    for group in plan.groups(states=1 if plan.operands.y is None else 2, squeezed=1):
        slots = plan.slots(squeeze, group)
        plan.add(
            squeeze_kernel,
            (cdiv(len(slots), squeeze.slots), cdiv(plan.squeeze_dim, squeeze.held_h)),
            squeeze,
            states
            | {
                "weight_ptr": plan.operands.squeeze_weight, "bias_ptr": plan.operands.squeeze_bias,
                "squeezed_ptr": result.squeezed, "sums_ptr": sums, "counts_ptr": counts, "end_slot": slots.stop,
                "first_slot": slots.start,
            },
        )  # fmt: skip
        add_forward_context(plan, group, sums, counts, squeeze.block_t, result)
        slots = plan.slots(expand, group)
        # if slots are too few to fill the device, several programs share the channels of each
        splits = 2 * multiprocessors(plan.device) // len(slots)
        plan.add(
            expand_kernel,
            (len(slots), max(1, min(cdiv(plan.embed_dim, expand.block_e), splits))),
            expand,
            states
            | {
                "squeezed_ptr": result.squeezed, "weight_ptr": plan.operands.expand_weight,
                "context_ptr": result.context, "z_ptr": result.z, "first_slot": slots.start,
            },
        )  # fmt: skip


def backward_stages(plan: LaunchPlan, saved: ForwardResult, result: BackwardResult) -> None:
    """Add the launches that fill `result`, all gradients: three a group and one at the end.

    Each of these adds one launch a group: long or packed sequences; E H over 2^18 if dx is needed; k over 1.
    """
    reduce, input_grads, tap_grads = plan.tiles.reduce, plan.tiles.input_grads, plan.tiles.tap_grads
    slot_count = len(plan.slots(reduce))
    sums, counts = plan.empty(slot_count, plan.embed_dim), plan.empty(slot_count, dtype=torch.int32)
    bias_parts = plan.empty(slot_count, plan.squeeze_dim)
    squeezed_gradient = plan.empty(plan.rows, plan.squeeze_dim, dtype=saved.squeezed.dtype)
    u = saved.squeezed if plan.settings.activation == "relu" else torch.empty_like(squeezed_gradient)
    hidden_gradient = torch.empty_like(saved.hidden)
    context_gradient = torch.empty_like(saved.pooled)
    pooled_gradient = torch.empty_like(saved.pooled) if plan.settings.needs_dx else None
    states, groups = plan.states("dz", "x", "y"), plan.groups(states=2 if plan.operands.y is None else 3, squeezed=2)

    blocks_e, blocks_h = cdiv(plan.embed_dim, input_grads.block_e), cdiv(plan.squeeze_dim, input_grads.held_h)
    most_slots = len(plan.slots(input_grads, groups[0]))
    programs = multiprocessors(plan.device) * (8 // input_grads.num_warps)
    splits = max(1, min(most_slots, programs // (blocks_e * blocks_h)))
    expand_parts = plan.empty(splits, plan.squeeze_dim, plan.embed_dim)
    squeeze_parts = plan.empty(splits, plan.kernel_size, plan.squeeze_dim, plan.embed_dim)
    for group in groups:
        slots = plan.slots(reduce, group)
        plan.add(
            reduce_kernel,
            (len(slots), cdiv(plan.squeeze_dim, reduce.held_h)),
            reduce,
            states
            | {
                "squeezed_ptr": saved.squeezed, "weight_ptr": plan.operands.expand_weight,
                "context_ptr": saved.context, "u_ptr": u, "squeezed_gradient_ptr": squeezed_gradient,
                "bias_parts_ptr": bias_parts, "sums_ptr": sums, "counts_ptr": counts, "first_slot": slots.start,
            },
        )  # fmt: skip
        rows = add_pooling(plan, group, sums, counts, reduce.block_t, output=context_gradient, tokens=None)
        add_context(
            plan, group, rows, saved.tokens, saved.hidden, output=pooled_gradient, hidden_gradient=hidden_gradient
        )
        if plan.kernel_size > 1:
            slots = plan.slots(tap_grads, group)
            blocks = cdiv(plan.embed_dim, tap_grads.block_e) * cdiv(plan.squeeze_dim, tap_grads.block_h)
            plan.add(
                tap_grads_kernel,
                (blocks, splits, plan.kernel_size),
                tap_grads,
                states
                | {
                    "squeezed_gradient_ptr": squeezed_gradient, "squeeze_parts_ptr": squeeze_parts,
                    "first_slot": slots.start, "end_slot": slots.stop,
                    "rotation": plan.rotation(tap_grads, splits),
                },
                ADD=group.first > 0,
            )  # fmt: skip
        slots = plan.slots(input_grads, group)
        plan.add(
            input_grads_kernel,
            (blocks_e, splits, blocks_h),
            input_grads,
            states
            | {
                "u_ptr": u, "squeezed_gradient_ptr": squeezed_gradient,
                "squeeze_weight_ptr": plan.operands.squeeze_weight, "expand_weight_ptr": plan.operands.expand_weight,
                "context_ptr": saved.context,
                "pooled_gradient_ptr": pooled_gradient, "dx_ptr": result.dx, "dy_ptr": result.dy,
                "squeeze_parts_ptr": squeeze_parts, "expand_parts_ptr": expand_parts,
                "first_slot": slots.start, "end_slot": slots.stop, "rotation": plan.rotation(input_grads, splits),
            },
            NEEDS_DX=plan.settings.needs_dx,
            ADD=group.first > 0,
        )  # fmt: skip
    add_weight_grads(plan, saved, expand_parts, squeeze_parts, bias_parts, context_gradient, hidden_gradient, result)
