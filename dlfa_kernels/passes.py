"""One forward and one backward pass over the kernels, of either input form.

The stages, which choose grids and buffers, are in `full_passes` (padded and packed) and `token_passes` (`token=i`).
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
    """What `full_passes` and `token_passes` have each."""

    def empty_forward(self, inputs: Inputs, settings: Settings) -> ForwardResult: ...

    def forward_stages(self, plan: LaunchPlan, result: ForwardResult) -> None: ...

    def backward_stages(self, plan: LaunchPlan, saved: ForwardResult, result: BackwardResult) -> None: ...


def input_form(settings: Settings) -> _InputForm:
    """The module of the stages for these settings."""
    if settings.token is None:
        return full_passes
    return token_passes


def forward(inputs: Inputs, settings: Settings) -> ForwardResult:
    """z, and what the backward needs.

    Args:
        inputs: as `fused_aif` takes them, checked; without dz.
        settings: the dtype of products is that of `last` with a token. `needs_dx` is of the backward alone.
    """
    form = input_form(settings)
    result = form.empty_forward(inputs, settings)
    launch_stages(form.forward_stages, inputs, settings, result)
    return result


def backward(inputs: Inputs, settings: Settings, saved: ForwardResult) -> BackwardResult:
    """All gradients: those of the states where they are needed, the parameters' always.

    Args:
        inputs: those of the forward, and dz.
        settings: as of the forward, but for `needs_dx`.
        saved: what the forward returned; its z is not read.
    """
    result = empty_backward(inputs, settings)
    launch_stages(input_form(settings).backward_stages, inputs, settings, saved, result)
    return result
