"""The processes of a run, one or several, the device of each, and the end of those that others started."""

from __future__ import annotations

import multiprocessing
import os
import threading

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


def end_with_parent() -> None:
    """Let a worker of `multiprocessing` end as soon as the process that started it is gone, even where that is killed.

    Else it would go on computing, and the same command again would meet it in the files that both write. A process that
    `multiprocessing` did not start goes on as before.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
