"""The processes of a run, one or several, and the device of each."""

from __future__ import annotations

import torch
from accelerate import PartialState


def process_state() -> PartialState:
    """Which process this is among those of torchrun or accelerate launch; alone without them.

    Without an accelerator the processes talk through gloo, which accelerate takes only when told that it is the CPU.
    """
    return PartialState(cpu=not torch.accelerator.is_available())


def default_device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
