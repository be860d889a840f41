"""Call AIF's kernels below the operators, to record their launches one by one."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dlfa_kernels import passes
from dlfa_kernels.operands import Inputs
from dlfa_kernels.overrides import using_l2_share
from dlfa_kernels.parameters import AIFWeights, weight_shapes
from dlfa_kernels.results import BackwardResult, ForwardResult
from dlfa_kernels.settings import Settings


@dataclass(frozen=True)
class CallVariant:
    """A way to call AIF that changes which kernels run, or their compiled code.

    `autocast` is its dtype; states and parameters are then float32. `groups` launches by groups of sequences that fill
    half of L2, for batches that exceed L2 (`dlfa_kernels.groups`). `few` tokens use smaller tiles. `frozen` states, as
    of a frozen encoder, need no gradient. `length` is that of compiled calls, in tokens.
    """

    fuse: str = "gate"
    kernel_size: int = 1
    packed: bool = False
    lower: bool = True
    token: int | None = None
    autocast: torch.dtype | None = None
    groups: bool = False
    few: bool = False
    frozen: bool = False
    length: int = 128

    @property
    def l2_share(self) -> float | None:
        """The share of L2 that a group fills; None means that of the tiles."""
        return 0.5 if self.groups else None

    def __str__(self) -> str:
        form = ("packed" if self.packed else "padded") + ("" if self.token is None else f" token={self.token}")
        details = ("" if self.lower else " one input") + ("" if self.autocast is None else " autocast")
        details += (" frozen" if self.frozen else "") + (
            "" if self.length == CallVariant.length else f" T={self.length}"
        )
        schedule = (" groups" if self.groups else "") + (" few" if self.few else "")
        return f"{self.fuse} k={self.kernel_size} {form}{details}{schedule}"


def meta_weights(embed_dim: int, squeeze_dim: int, kernel_size: int) -> AIFWeights:
    """Return the eight parameters on the meta device, float32."""
    shapes = weight_shapes(embed_dim, squeeze_dim, kernel_size)
    return AIFWeights._make(torch.empty(shape, device="meta") for shape in shapes)


def run_forward(variant: CallVariant, inputs: Inputs) -> ForwardResult:
    """Run the forward launches of a call, with relu."""
    with using_l2_share(variant.l2_share):
        return passes.forward(inputs._replace(dz=None), _settings(variant, inputs))


def run_backward(variant: CallVariant, inputs: Inputs, saved: ForwardResult) -> BackwardResult:
    """Run the backward launches that follow `run_forward`; needs `inputs.dz`."""
    with using_l2_share(variant.l2_share):
        return passes.backward(inputs, _settings(variant, inputs)._replace(needs_dx=not variant.frozen), saved)


def _settings(variant: CallVariant, inputs: Inputs) -> Settings:
    return Settings(variant.fuse, "relu", variant.autocast or inputs.last.dtype, variant.token)
