"""Stages that all input forms share: pooling, context and weight gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

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


class PooledRows(NamedTuple):
    """The input of the context kernel, one row a sequence: in `pooled`, or in `sums`, which it then adds up."""

    pooled: Tensor  # (B, E) float32; the context kernel fills it if it adds up sums
    sums: Tensor | None = None  # (slots, E) float32, sums of each tile
    counts: Tensor | None = None  # (slots,) int32, real tokens of each tile
    tiles_per_sequence: int = 0  # 0: `pooled` is filled before

    @property
    def filled(self) -> bool:
        """Whether `pooled` is filled before, so that `sums` and `counts` are not read."""
        return self.tiles_per_sequence == 0


def add_pooling(
    plan: LaunchPlan,
    group: Group,
    sums: Tensor,
    counts: Tensor,
    block_t: int,
    output: Tensor,
    tokens: Tensor | None,
) -> PooledRows:
    """Add the pooling of a group if its sequences are long or packed; otherwise the context kernel pools.

    Args:
        plan: receives the launch.
        group: the sequences.
        sums: (slots, E) float32, the sums of each tile.
        counts: (slots,) int32, real tokens of each tile.
        block_t: tokens of a tile.
        output: (B, E) float32, to be filled: with `tokens` the mean over a sequence's tokens, p; else their sum, dg.
        tokens: (B,) int32, to be filled: real tokens of each sequence; or None.
    """
    tiles_per_sequence = 0 if plan.packed else cdiv(plan.length, block_t)
    if 0 < tiles_per_sequence <= TILES_POOLED_BY_CONTEXT:
        return PooledRows(output, sums, counts, tiles_per_sequence)
    tile = plan.tiles.pool
    plan.add(
        pool_kernel,
        (group.end - group.first, cdiv(plan.embed_dim, tile.block_e)),
        tile,
        {
            "sums_ptr": sums, "counts_ptr": counts, "cu_seqlens_ptr": plan.operands.cu_seqlens,
            "pooled_ptr": output, "tokens_ptr": tokens, "length": plan.length, "first": group.first,
        },
        MEAN=tokens is not None,
        BLOCK_T=block_t,
        BLOCK_TILES=tile.block_t,
    )  # fmt: skip
    return PooledRows(output, sums, counts)


def add_context(
    plan: LaunchPlan,
    group: Group,
    rows: PooledRows,
    tokens: Tensor,
    hidden: Tensor,
    output: Tensor | None,
    hidden_gradient: Tensor | None = None,
) -> None:
    """Add the launches of the global branch of a group or, with `hidden_gradient`, of its gradient.

    Args:
        plan: receives the launches.
        group: the sequences.
        rows: p of each sequence, or dg.
        tokens: (B,) int32, real tokens of each sequence; the forward fills it unless `rows` are filled.
        hidden: (B, H) float32, the global squeeze before its activation; the forward fills it.
        output: (B, E) float32, to be filled: g + b_le, or dp / |V_b|; None if dp is not needed, which saves the second
            product.
        hidden_gradient: (B, H) float32, the gradient of `hidden`, to be filled; None in the forward.
    """
    both = plan.tiles.context
    one = replace(both, chunks=1)  # for one product: one program per block of H, or weights loaded block by block
    outputs = {
        "tokens_ptr": tokens, "hidden_ptr": hidden, "hidden_gradient_ptr": hidden_gradient, "context_ptr": output
    }  # fmt: skip
    if output is None:
        _add_products(plan, group, rows, outputs, one, squeeze=True)
    elif plan.embed_dim * plan.squeeze_dim <= WEIGHTS_OF_ONE_LAUNCH:
        both = context_that_fits(both, plan.embed_dim, plan.squeeze_dim, max(1, rows.tiles_per_sequence))
        _add_products(plan, group, rows, outputs, both, squeeze=True, expand=True)
    else:
        _add_products(plan, group, rows, outputs, one, squeeze=True)
        _add_products(plan, group, rows._replace(tiles_per_sequence=0), outputs, one, expand=True)


def _add_products(
    plan: LaunchPlan,
    group: Group,
    rows: PooledRows,
    outputs: dict[str, Tensor | None],
    tile: Tile,
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
        outputs
        | {
            "pooled_ptr": rows.pooled,
            "sums_ptr": rows.sums,
            "counts_ptr": rows.counts,
            # not read if the rows are filled; then 0 for all lengths, because Triton specialises on its divisors
            "tiles_per_sequence": rows.tiles_per_sequence,
            "squeeze_weight_ptr": operands.global_squeeze_weight,
            "squeeze_bias_ptr": operands.global_squeeze_bias,
            "expand_weight_ptr": operands.global_expand_weight,
            "expand_bias_ptr": operands.global_expand_bias,
            "local_bias_ptr": operands.expand_bias,
            "first": group.first,
            "end": group.end,
        },
        BACKWARD=outputs["hidden_gradient_ptr"] is not None,
        SQUEEZE=squeeze,
        EXPAND=expand,
        POOLED=rows.filled,
        MAX_TILES_PER_SEQUENCE=1 if rows.filled else 1 << (rows.tiles_per_sequence - 1).bit_length(),
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
    rows = add_pooling(plan, group, sums, counts, block_t, result.pooled, result.tokens)
    add_context(plan, group, rows, result.tokens, result.hidden, result.context)


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
