"""Stages of the `token=i` form: buffers, grids and launches of the forward and the backward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from .groups import Group
from .kernels.token import (
    sums_kernel,
    token_branch_kernel,
    token_expand_kernel,
    token_inputs_kernel,
    token_parts_kernel,
    token_reduce_kernel,
)
from .launch_plan import LaunchPlan
from .operands import Inputs, sequence_count
from .results import BackwardResult, ForwardResult
from .rounding import cdiv
from .settings import Settings
from .shared_stages import PooledRows, add_context, add_forward_context, add_weight_grads


def empty_forward(inputs: Inputs, settings: Settings) -> ForwardResult:
    """Return uninitialised results of a forward pass; tracing uses their shapes.

    z is (B, E). `squeezed` is always float32.
    """
    last, batch = inputs.last, sequence_count(inputs.last, inputs.cu_seqlens)
    embed_dim, squeeze_dim = last.shape[-1], inputs.weights.local_squeeze_weight.shape[0]

    def rows(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty((batch, *shape), dtype=dtype, device=last.device)

    return ForwardResult(
        z=rows(embed_dim, dtype=last.dtype),
        squeezed=rows(squeeze_dim),
        hidden=rows(squeeze_dim),
        pooled=rows(embed_dim),
        context=rows(embed_dim),
        tokens=rows(dtype=torch.int32),
    )


def forward_stages(plan: LaunchPlan, result: ForwardResult) -> None:
    """Add the launches that fill `result`, for one token a sequence: three.

    Long or packed sequences take one more, E H over 2^18 (`shared_stages.WEIGHTS_OF_ONE_LAUNCH`) another.
    """
    tile = plan.tiles.sums
    slot_count = len(plan.slots(tile))
    sums, counts = plan.empty(slot_count, plan.embed_dim), plan.empty(slot_count, dtype=torch.int32)
    plan.add(
        sums_kernel,
        (slot_count, cdiv(plan.embed_dim, tile.block_e)),
        tile,
        plan.states("x", "y") | {"sums_ptr": sums, "counts_ptr": counts},
    )
    add_forward_context(plan, Group(0, plan.batch), sums, counts, tile.block_t, result)
    tile = plan.tiles.token
    plan.add(
        token_expand_kernel,
        (cdiv(plan.batch, tile.block_t), cdiv(plan.embed_dim, tile.block_e)),
        tile,
        plan.states("x", "y")
        | {
            "squeeze_weight_ptr": plan.operands.squeeze_weight, "squeeze_bias_ptr": plan.operands.squeeze_bias,
            "expand_weight_ptr": plan.operands.expand_weight, "context_ptr": result.context,
            "squeezed_ptr": result.squeezed, "z_ptr": result.z, "token": plan.settings.token,
        },
        BLOCK_B=tile.block_t,
    )  # fmt: skip


def backward_stages(plan: LaunchPlan, saved: ForwardResult, result: BackwardResult) -> None:
    """Add the launches that fill `result`, all gradients: six, or four if dx and dy are not needed.

    If they are needed, E H over 2^18 (`shared_stages.WEIGHTS_OF_ONE_LAUNCH`) takes one more. x and y are read only at
    the chosen rows and the rows that their taps see; dx is written once.
    """
    dz = plan.states("dz")
    rows = {"dz_ptr": dz["dz_ptr"], "dz_batch_stride": dz["dz_row_stride"], "token": plan.settings.token}
    tile = plan.tiles.token
    gate, context_gradient = torch.empty_like(saved.context), torch.empty_like(saved.context)
    squeezed_gradient, hidden_gradient = torch.empty_like(saved.squeezed), torch.empty_like(saved.hidden)
    pooled_gradient = torch.empty_like(saved.pooled) if plan.settings.needs_dx else None
    plan.add(
        token_reduce_kernel,
        (cdiv(plan.batch, tile.block_t), cdiv(plan.squeeze_dim, tile.block_h)),
        tile,
        plan.states("x", "y")
        | rows
        | {
            "squeezed_ptr": saved.squeezed, "expand_weight_ptr": plan.operands.expand_weight,
            "context_ptr": saved.context, "gate_ptr": gate,
            "context_gradient_ptr": context_gradient, "squeezed_gradient_ptr": squeezed_gradient,
        },
        BLOCK_B=tile.block_t,
    )  # fmt: skip
    group, dg = Group(0, plan.batch), PooledRows(context_gradient)
    add_context(plan, group, dg, saved.tokens, saved.hidden, output=pooled_gradient, hidden_gradient=hidden_gradient)
    if plan.settings.needs_dx:
        branch = plan.empty(plan.batch, plan.kernel_size, plan.embed_dim)
        plan.add(
            token_branch_kernel,
            (cdiv(plan.batch, tile.block_t), cdiv(plan.embed_dim, tile.block_e), plan.kernel_size),
            tile,
            {
                "squeezed_gradient_ptr": squeezed_gradient, "squeeze_weight_ptr": plan.operands.squeeze_weight,
                "branch_ptr": branch, "batch": plan.batch,
            },
            BLOCK_B=tile.block_t,
        )  # fmt: skip
        fill = plan.tiles.sums
        plan.add(
            token_inputs_kernel,
            (len(plan.slots(fill)), cdiv(plan.embed_dim, fill.block_e)),
            fill,
            plan.states()
            | rows
            | {
                "gate_ptr": gate, "branch_ptr": branch, "pooled_gradient_ptr": pooled_gradient,
                "dx_ptr": result.dx, "dy_ptr": result.dy,
            },
        )  # fmt: skip
    expand_parts = plan.empty(1, plan.squeeze_dim, plan.embed_dim)
    squeeze_parts = plan.empty(1, plan.kernel_size, plan.squeeze_dim, plan.embed_dim)
    bias_parts = plan.empty(1, plan.squeeze_dim)
    plan.add(
        token_parts_kernel,
        (cdiv(plan.embed_dim, tile.block_e), cdiv(plan.squeeze_dim, tile.block_h), plan.kernel_size),
        tile,
        plan.states("x", "y")
        | {
            "squeezed_ptr": saved.squeezed, "context_gradient_ptr": context_gradient,
            "squeezed_gradient_ptr": squeezed_gradient, "squeeze_parts_ptr": squeeze_parts,
            "bias_parts_ptr": bias_parts, "expand_parts_ptr": expand_parts, "token": plan.settings.token,
        },
        BLOCK_B=tile.block_t,
    )  # fmt: skip
    add_weight_grads(plan, saved, expand_parts, squeeze_parts, bias_parts, context_gradient, hidden_gradient, result)
