"""Operation counts of the operators' matrix products, for `torch.utils.flop_counter.FlopCounterMode`.

As in torch's own counts, padding and the backward's recomputed products are included, and a multiplication and an
addition are two operations. B sequences, N = B T tokens or rows, or with `token` N = B.

    forward   2 N E H (k + 1) local, 4 B E H global
    backward  2 N E H (R + 2 + k + k') local, 2 B E H (3 + 1') global; the gate is recomputed R = 2 times, once with
              `token`; k' = k and 1' = 1 with a gradient of the states, else 0
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torch.utils.flop_counter import register_flop_formula


def _named(operator: Any, arguments: Sequence[Any]) -> dict[str, Any]:
    """Return the arguments of an operator by their names in its schema, with shapes for tensors."""
    names = [argument.name for argument in operator.default._schema.arguments]
    return dict(zip(names, arguments, strict=True))


def _sizes(inputs: dict[str, Any], token: bool) -> tuple[int, int, int, int]:
    """Return N, B, E H and k from an operator's arguments."""
    last, cu_seqlens = inputs["last"], inputs["cu_seqlens"]
    squeeze_dim, embed_dim, kernel_size = inputs["local_squeeze_weight"]
    batch = last[0] if cu_seqlens is None else cu_seqlens[0] - 1
    return batch if token else prod(last[:-1]), batch, embed_dim * squeeze_dim, kernel_size


def register_flop_counts(forward: Any, backward: Any, token: bool) -> None:
    """Register FLOP counts of the operators `forward` and `backward` of an input form, with `token` or without."""

    def forward_flops(*arguments: Any, **_: Any) -> int:
        tokens, batch, weight, kernel_size = _sizes(_named(forward, arguments), token)
        return 2 * tokens * weight * (kernel_size + 1) + 4 * batch * weight

    def backward_flops(*arguments: Any, **_: Any) -> int:
        inputs = _named(backward, arguments)
        tokens, batch, weight, kernel_size = _sizes(inputs, token)
        needs_dx = int(inputs["needs_dx"])
        local = (1 if token else 2) + 2 + kernel_size * (1 + needs_dx)
        return 2 * tokens * weight * local + 2 * batch * weight * (3 + needs_dx)

    register_flop_formula(forward)(forward_flops)
    register_flop_formula(backward)(backward_flops)
