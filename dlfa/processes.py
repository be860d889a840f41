"""The processes of a run, the device of each, and the termination of worker processes."""

from __future__ import annotations

import multiprocessing
import os
import threading

import torch
from accelerate import PartialState


def process_state() -> PartialState:
    """Return this process's state among those of torchrun or accelerate launch, or as a single process.

    Without an accelerator, the processes communicate through gloo, which accelerate only uses if set to the CPU.
    """
    return PartialState(cpu=not torch.accelerator.is_available())


def default_device() -> torch.device:
    """Return the accelerator if there is one, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def check_alone(reason: str) -> None:
    """Raise ValueError under torchrun or accelerate launch, where every process would do and write everything.

    Args:
        reason: why the processes cannot share the work, such as "a sweep starts its own processes".
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"{reason}; run it without torchrun or accelerate launch")


def end_with_parent() -> None:
    """Make a worker of `multiprocessing` end as soon as its parent process has ended, even if that was killed.

    Otherwise it would continue, and a repeated command would write the same files as it does. In a process that
    `multiprocessing` did not start, this does nothing.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
