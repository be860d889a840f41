"""The non-tensor arguments of a pass."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Settings(NamedTuple):
    """The non-tensor arguments of a pass."""

    fuse: str
    activation: str
    product_dtype: torch.dtype  # of the operands of products over tokens
    token: int | None = None  # the chosen token, in the token form
    needs_dx: bool = True  # whether a backward pass computes gradients of the states too
