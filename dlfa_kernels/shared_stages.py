"""Stages that all input forms share: pooling, context and weight gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from .groups import Group
from .kernels.context import context_kernel
from .kernels.pool import pool_kernel
from .kernels.weight_grads import weight_grads_kernel
from .launch_plan import LaunchPlan
from .results import BackwardResult, ForwardResult
from .rounding import cdiv
from .tiles import Tile, context_that_fits

# Sequences of more tiles than this are pooled by a separate launch before the context.
TILES_POOLED_BY_CONTEXT = 4
# If E H exceeds this, the context computes its two products in separate launches: in one launch, every program would
# read the whole first weight, which takes longer than a launch.
WEIGHTS_OF_ONE_LAUNCH = 1 << 18


def add_pooling(
    plan: LaunchPlan,
    group: Group,
    sums: Tensor,
    counts: Tensor,
    block_t: int,
    pooled: Tensor,
    tokens: Tensor | None,
) -> tuple[dict[str, Any], bool]:
    """Add the pooling of a group if its sequences are long or packed; otherwise the context kernel pools.

    Args:
        plan: receives the launch.
        group: the sequences.
        sums: (slots, E) float32, the sums of each tile.
        counts: (slots,) int32, real tokens of each tile.
        block_t: tokens of a tile.
        pooled: (B, E) float32, to be filled: with `tokens` the mean over a sequence's tokens, else their sum.
        tokens: (B,) int32, to be filled: real tokens of each sequence; or None.

    Returns:
        The context kernel's arguments for the pooled rows, and whether a launch added here fills these rows.
    """
    tiles_per_sequence = 0 if plan.packed else cdiv(plan.length, block_t)
    early = plan.packed or tiles_per_sequence > TILES_POOLED_BY_CONTEXT
    if early:
        tiles_per_sequence = 0  # not read; a constant, because Triton specialises on its divisors
        tile = plan.tiles.pool
        plan.add(
            pool_kernel,
            (group.end - group.first, cdiv(plan.embed_dim, tile.block_e)),
            tile,
            {
                "sums_ptr": sums, "counts_ptr": counts, "cu_seqlens_ptr": plan.operands.cu_seqlens,
                "pooled_ptr": pooled, "tokens_ptr": tokens, "length": plan.length, "first": group.first,
            },
            MEAN=tokens is not None,
            BLOCK_T=block_t,
            BLOCK_TILES=tile.block_t,
        )  # fmt: skip
    rows = {"sums_ptr": sums, "counts_ptr": counts, "pooled_ptr": pooled, "tiles_per_sequence": tiles_per_sequence}
    return rows, early


def add_context(plan: LaunchPlan, group: Group, arguments: dict[str, Any], *, backward: bool, pooled: bool) -> None:
    """Add the global branch of a group, or its gradient, for pooled rows (`pooled`) or sums of tiles.

    If `context_ptr` is None, the second product is omitted, because the gradient of p is not needed.
    """
    both = plan.tiles.context
    one = replace(both, chunks=1)  # for one product: one program per block of H, or weights loaded block by block
    if arguments["context_ptr"] is None:
        _add_products(plan, group, arguments, one, backward, pooled, squeeze=True)
    elif plan.embed_dim * plan.squeeze_dim <= WEIGHTS_OF_ONE_LAUNCH:
        added_up = 1 if pooled else arguments["tiles_per_sequence"]
        both = context_that_fits(both, plan.embed_dim, plan.squeeze_dim, added_up)
        _add_products(plan, group, arguments, both, backward, pooled, squeeze=True, expand=True)
    else:
        _add_products(plan, group, arguments, one, backward, pooled, squeeze=True)
        _add_products(plan, group, arguments | {"tiles_per_sequence": 0}, one, backward, True, expand=True)


def _add_products(
    plan: LaunchPlan,
    group: Group,
    arguments: dict[str, Any],
    tile: Tile,
    backward: bool,
    pooled: bool,
    *,
    squeeze: bool = False,
    expand: bool = False,
) -> None:
    """Add a launch of the context kernel for one or both of its products."""
    operands = plan.operands
    widths = (plan.embed_dim, tile.block_e) if expand else (plan.squeeze_dim, tile.held_h)
    plan.add(
        context_kernel,
        (cdiv(group.end - group.first, tile.block_t), cdiv(*widths)),
        tile,
        arguments
        | {
            "squeeze_weight_ptr": operands.global_squeeze_weight,
            "squeeze_bias_ptr": operands.global_squeeze_bias,
            "expand_weight_ptr": operands.global_expand_weight,
            "expand_bias_ptr": operands.global_expand_bias,
            "local_bias_ptr": operands.expand_bias,
            "first": group.first,
            "end": group.end,
        },
        BACKWARD=backward,
        SQUEEZE=squeeze,
        EXPAND=expand,
        POOLED=pooled,
        MAX_TILES_PER_SEQUENCE=1 if pooled else 1 << (arguments["tiles_per_sequence"] - 1).bit_length(),
        BLOCK_B=tile.block_t,
    )


def add_forward_context(
    plan: LaunchPlan, group: Group, sums: Tensor, counts: Tensor, block_t: int, result: ForwardResult
) -> None:
    """Add the launches that fill a group's rows of `result`: pooled, tokens, hidden and context.

    Args:
        plan: receives the launches.
        group: the sequences.
        sums: (slots, E) float32, sums of w over each tile.
        counts: (slots,) int32, real tokens of each tile.
        block_t: tokens of a tile.
        result: of the forward pass.
    """
    rows, pooled = add_pooling(plan, group, sums, counts, block_t, result.pooled, result.tokens)
    add_context(
        plan,
        group,
        rows
        | {
            "tokens_ptr": result.tokens, "hidden_ptr": result.hidden, "hidden_gradient_ptr": None,
            "context_ptr": result.context,
        },
        backward=False,
        pooled=pooled,
    )  # fmt: skip


def add_weight_grads(
    plan: LaunchPlan,
    saved: ForwardResult,
    expand_parts: Tensor,
    squeeze_parts: Tensor,
    bias_parts: Tensor,
    context_gradient: Tensor,
    hidden_gradient: Tensor,
    result: BackwardResult,
) -> None:
    """Add the launch that computes the eight parameter gradients of `result` from partial sums and per-sequence rows.

    Args:
        plan: receives the launch.
        saved: of the forward pass.
        expand_parts: (splits, H, E) float32, parts of dW_le.
        squeeze_parts: (splits, k, H, E) float32, parts of dW_ls.
        bias_parts: (rows of parts, H) float32, parts of db_ls.
        context_gradient: (B, E) float32, dg.
        hidden_gradient: (B, H) float32, gradient of the global squeeze before its activation.
        result: of the backward pass.
    """
    tile = plan.tiles.weight_grads
    plan.add(
        weight_grads_kernel,
        (cdiv(plan.embed_dim, tile.block_e), cdiv(plan.squeeze_dim, tile.block_h), 5),
        tile,
        {
            "expand_parts_ptr": expand_parts, "squeeze_parts_ptr": squeeze_parts,
            "bias_parts_ptr": bias_parts, "pooled_ptr": saved.pooled, "hidden_ptr": saved.hidden,
            "context_gradient_ptr": context_gradient, "hidden_gradient_ptr": hidden_gradient,
            "batch": plan.batch, "splits": expand_parts.shape[0], "bias_rows": bias_parts.shape[0],
            **{f"{name}_ptr": gradient for name, gradient in result.weights._asdict().items()},
        },
        BLOCK_B=tile.block_t,
    )  # fmt: skip
