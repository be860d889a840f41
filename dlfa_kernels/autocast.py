"""Query and disable autocast, on devices that support it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def _has_autocast(device_type: str) -> bool:
    if device_type == "meta":
        return False
    # torch 2.11 does not trace this query, and marking it as constant would import the compiler with this package.
    return torch.compiler.is_compiling() or torch.amp.is_autocast_available(device_type)


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """Return the dtype of matrix products under autocast on such devices; None without autocast."""
    if not _has_autocast(device_type) or not torch.is_autocast_enabled(device_type):
        return None
    return torch.get_autocast_dtype(device_type)


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Return a context without autocast, which would accumulate in fewer bits than float32."""
    return torch.autocast(device_type, enabled=False) if _has_autocast(device_type) else nullcontext()
