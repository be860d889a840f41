"""Stages of the `token=i` form: one forward and one backward pass over one row a sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from .call import Call, Settings
from .groups import Group
from .kernels.token import (
    sums_kernel,
    token_branch_kernel,
    token_expand_kernel,
    token_inputs_kernel,
    token_parts_kernel,
    token_reduce_kernel,
)
from .operands import Inputs, sequence_count
from .results import BackwardResult, ForwardResult
from .rounding import cdiv
from .shared_stages import add_context, add_forward_context, add_weights


def empty_forward(inputs: Inputs, settings: Settings) -> ForwardResult:
    """Buffers of a forward pass; also its shapes, for tracing. z is (B, E), `squeezed` float32 with any settings."""
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


def forward_stages(call: Call, result: ForwardResult) -> None:
    """Add what fills `result`, of one token a sequence: three launches.

    One more where sequences are long or packed, and one where E H exceeds 2^18 (`shared_stages.WEIGHTS_OF_ONE_LAUNCH`).
    """
    tile = call.tiles.sums
    slots = len(call.slots(tile.block_t))
    sums, counts = call.empty(slots, call.embed_dim), call.empty(slots, dtype=torch.int32)
    call.add(
        sums_kernel,
        (slots, cdiv(call.embed_dim, tile.block_e)),
        tile,
        call.states("x", "y") | {"sums_ptr": sums, "counts_ptr": counts},
    )
    add_forward_context(call, Group(0, call.batch), sums, counts, tile.block_t, result)
    tile = call.tiles.token
    call.add(
        token_expand_kernel,
        (cdiv(call.batch, tile.block_t), cdiv(call.embed_dim, tile.block_e)),
        tile,
        call.states("x", "y")
        | {
            "squeeze_weight_ptr": call.operands.squeeze_weight, "squeeze_bias_ptr": call.operands.squeeze_bias,
            "expand_weight_ptr": call.operands.expand_weight, "context_ptr": result.context,
            "squeezed_ptr": result.squeezed, "z_ptr": result.z, "token": call.settings.token,
        },
        BLOCK_B=tile.block_t,
    )  # fmt: skip


def backward_stages(call: Call, saved: ForwardResult, result: BackwardResult) -> None:
    """Add what fills `result`, all gradients: six launches; x and y are read at the chosen rows alone, dx written once.

    Four launches where dx and dy are not needed; one more where E H exceeds 2^18 and they are needed
    (`shared_stages.WEIGHTS_OF_ONE_LAUNCH`).
    """
    dz = call.states("dz")
    rows = {"dz_ptr": dz["dz_ptr"], "dz_batch_stride": dz["dz_row_stride"], "token": call.settings.token}
    tile = call.tiles.token
    gate, context_gradient = torch.empty_like(saved.context), torch.empty_like(saved.context)
    squeezed_gradient, hidden_gradient = torch.empty_like(saved.squeezed), torch.empty_like(saved.hidden)
    pooled_gradient = torch.empty_like(saved.pooled) if call.settings.needs_dx else None
    call.add(
        token_reduce_kernel,
        (cdiv(call.batch, tile.block_t), cdiv(call.squeeze_dim, tile.block_h)),
        tile,
        call.states("x", "y")
        | rows
        | {
            "squeezed_ptr": saved.squeezed, "expand_weight_ptr": call.operands.expand_weight,
            "context_ptr": saved.context, "gate_ptr": gate,
            "context_gradient_ptr": context_gradient, "squeezed_gradient_ptr": squeezed_gradient,
        },
        BLOCK_B=tile.block_t,
    )  # fmt: skip
    add_context(
        call,
        Group(0, call.batch),
        {
            "pooled_ptr": context_gradient, "sums_ptr": None, "counts_ptr": None, "tiles": 0,
            "tokens_ptr": saved.tokens, "hidden_ptr": saved.hidden, "hidden_gradient_ptr": hidden_gradient,
            "context_ptr": pooled_gradient,
        },
        backward=True,
        pooled=True,
    )  # fmt: skip
    if call.settings.needs_dx:
        branch = call.empty(call.batch, call.kernel_size, call.embed_dim)
        call.add(
            token_branch_kernel,
            (cdiv(call.batch, tile.block_t), cdiv(call.embed_dim, tile.block_e), call.kernel_size),
            tile,
            {
                "squeezed_gradient_ptr": squeezed_gradient, "squeeze_weight_ptr": call.operands.squeeze_weight,
                "branch_ptr": branch, "batch": call.batch,
            },
            BLOCK_B=tile.block_t,
        )  # fmt: skip
        fill = call.tiles.sums
        call.add(
            token_inputs_kernel,
            (len(call.slots(fill.block_t)), cdiv(call.embed_dim, fill.block_e)),
            fill,
            call.states()
            | rows
            | {
                "gate_ptr": gate, "branch_ptr": branch, "pooled_gradient_ptr": pooled_gradient,
                "dx_ptr": result.dx, "dy_ptr": result.dy,
            },
        )  # fmt: skip
    expand_parts = call.empty(1, call.squeeze_dim, call.embed_dim)
    squeeze_parts = call.empty(1, call.kernel_size, call.squeeze_dim, call.embed_dim)
    bias_parts = call.empty(1, call.squeeze_dim)
    call.add(
        token_parts_kernel,
        (cdiv(call.embed_dim, tile.block_e), cdiv(call.squeeze_dim, tile.block_h), call.kernel_size),
        tile,
        call.states("x", "y")
        | {
            "squeezed_ptr": saved.squeezed, "context_gradient_ptr": context_gradient,
            "squeezed_gradient_ptr": squeezed_gradient, "squeeze_parts_ptr": squeeze_parts,
            "bias_parts_ptr": bias_parts, "expand_parts_ptr": expand_parts, "token": call.settings.token,
        },
        BLOCK_B=tile.block_t,
    )  # fmt: skip
    add_weights(call, saved, expand_parts, squeeze_parts, bias_parts, context_gradient, hidden_gradient, result)
