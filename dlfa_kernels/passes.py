"""The forward and the backward pass over the kernels, for every input form.

`full_passes` (padded and packed) and `token_passes` (`token=i`) define the stages: their grids and buffers.
"""

from __future__ import annotations

from typing import Protocol

from . import full_passes, token_passes
from .launch_plan import LaunchPlan
from .operands import Inputs
from .replays import launch_stages
from .results import BackwardResult, ForwardResult, empty_backward
from .settings import Settings


class _InputForm(Protocol):
    """The interface of the modules `full_passes` and `token_passes`."""

    def empty_forward(self, inputs: Inputs, settings: Settings) -> ForwardResult: ...

    def forward_stages(self, plan: LaunchPlan, result: ForwardResult) -> None: ...

    def backward_stages(self, plan: LaunchPlan, saved: ForwardResult, result: BackwardResult) -> None: ...


def input_form(settings: Settings) -> _InputForm:
    """Return the module that defines the stages for these settings."""
    if settings.token is None:
        return full_passes
    return token_passes


def forward(inputs: Inputs, settings: Settings) -> ForwardResult:
    """Return z and the tensors that the backward needs.

    Args:
        inputs: the checked arguments of `fused_aif`, without dz.
        settings: with a token, `product_dtype` is the dtype of `last`. `needs_dx` is not used.
    """
    form = input_form(settings)
    result = form.empty_forward(inputs, settings)
    launch_stages(form.forward_stages, inputs, settings, result)
    return result


def backward(inputs: Inputs, settings: Settings, saved: ForwardResult) -> BackwardResult:
    """Return all gradients of the parameters, and those of the states if `needs_dx`.

    Args:
        inputs: the inputs of the forward, and dz.
        settings: those of the forward, except `needs_dx`.
        saved: the result of the forward; its z is not read.
    """
    result = empty_backward(inputs, settings)
    launch_stages(input_form(settings).backward_stages, inputs, settings, saved, result)
    return result
