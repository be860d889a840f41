"""The arguments of a pass that are no tensors."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Settings(NamedTuple):
    """The arguments of a call that are no tensors."""

    fuse: str
    activation: str
    product_dtype: torch.dtype  # of the operands of products over tokens
    token: int | None = None  # the chosen one, in the token form
    needs_dx: bool = True  # whether a backward pass makes the gradients of the states, beside the parameters'
