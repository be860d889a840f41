"""Autocast, asked about and turned off where torch lets one."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def _has_autocast(device_type: str) -> bool:
    if device_type == "meta":
        return False
    # torch 2.11 does not trace the question, and marking it as constant would load the compiler with this package.
    return torch.compiler.is_compiling() or torch.amp.is_autocast_available(device_type)


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """The dtype in which torch's own layers multiply on such devices; None without autocast."""
    if not _has_autocast(device_type) or not torch.is_autocast_enabled(device_type):
        return None
    return torch.get_autocast_dtype(device_type)


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """A block that autocast leaves alone: it would turn float32 accumulation into a shorter one."""
    return torch.autocast(device_type, enabled=False) if _has_autocast(device_type) else nullcontext()
