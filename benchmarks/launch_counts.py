"""How many kernels a call launches."""

from __future__ import annotations

from collections.abc import Callable

import torch

from dlfa_kernels.launches import record_launches

from .providers import OURS, SCHEDULES
from .timing import synchronise

# What the profiler lists beside kernels.
NOT_KERNELS = ("Memcpy", "Memset", "Activity Buffer", "Lazy Function Loading")


def count_launches(provider: str, call: Callable[[], object], device: torch.device) -> int | None:
    """Kernels of one call: ours by the record of launches, others' by the profiler; None where there is none."""
    if provider in (OURS, *SCHEDULES):
        with record_launches() as recorded:
            call()
        return len(recorded)
    if device.type != "cuda":
        return None
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            call()
            synchronise(device)
        events = profile.events()
    except RuntimeError:  # machines on which the profiler may not look at the GPU; the call itself has run before
        return None
    kernels = [
        event
        for event in events
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.name.startswith(NOT_KERNELS)
    ]
    return len(kernels) or None
