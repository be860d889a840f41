"""The processes of a run, one or several, and the device of each."""

from __future__ import annotations

import os

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


def check_alone(reason: str) -> None:
    """Raise ValueError under torchrun or accelerate launch, whose processes would do and write everything once each.

    Args:
        reason: why there is nothing for them to share, such as "a sweep starts its own processes".
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"{reason}; run it without torchrun or accelerate launch")
