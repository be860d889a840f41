"""Properties of a GPU, and assumed ones for launches that are inspected or interpreted without one."""

from __future__ import annotations

from functools import cache

import torch

DEFAULT_ARCHITECTURE = "sm_90"
# The lower of two figures for Hopper; see `groups`.
DEFAULT_L2_BYTES = 50 << 20


@cache
def device_architecture(device: torch.device) -> str:
    """Return the architecture of a GPU, such as "sm_90" or "gfx942"; DEFAULT_ARCHITECTURE for other devices."""
    if device.type != "cuda":
        return DEFAULT_ARCHITECTURE
    if torch.version.hip:
        return str(torch.cuda.get_device_properties(device).gcnArchName).split(":")[0]
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))


@cache
def runs_kernels(device: torch.device) -> bool:
    """Return whether the kernels can run on a device: NVIDIA GPUs before "sm_80" lack shared memory for the tiles.

    Without any GPU, as for tensors without data, the answer is True.
    """
    if not torch.cuda.is_available():
        return True
    architecture = device_architecture(device)
    return not (architecture.startswith("sm_") and int(architecture.removeprefix("sm_")) < 80)


@cache
def multiprocessors(device: torch.device) -> int:
    """Return the number of multiprocessors of a GPU; 132, as on an H200, for the meta device, and 2 for the CPU."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).multi_processor_count)
    return 132 if device.type == "meta" else 2


@cache
def l2_bytes(device: torch.device) -> int:
    """Return the size of a GPU's L2 cache in bytes; DEFAULT_L2_BYTES for other devices."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    return DEFAULT_L2_BYTES
