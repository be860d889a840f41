"""Names, order and shapes of AIF's eight parameters, as the functions take them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class AIFWeights(NamedTuple):
    """AIF's eight parameters in the order of every signature; H is the squeeze width, k the kernel size."""

    local_squeeze_weight: Tensor  # (H, E, k)
    local_squeeze_bias: Tensor  # (H,)
    local_expand_weight: Tensor  # (E, H, 1)
    local_expand_bias: Tensor  # (E,)
    global_squeeze_weight: Tensor  # (H, E)
    global_squeeze_bias: Tensor  # (H,)
    global_expand_weight: Tensor  # (E, H)
    global_expand_bias: Tensor  # (E,)


def weight_shapes(embed_dim: int, squeeze_dim: int, kernel_size: int) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of `AIFWeights` in its order, for given E, H and k."""
    e, h = embed_dim, squeeze_dim
    return (h, e, kernel_size), (h,), (e, h, 1), (e,), (h, e), (h,), (e, h), (e,)
