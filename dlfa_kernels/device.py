"""What is asked of a GPU, and what is assumed where there is none: when launches are inspected or interpreted."""

from __future__ import annotations

from functools import cache

import torch

DEFAULT_ARCHITECTURE = "sm_90"
# The lower figure of Hopper's.
DEFAULT_L2_BYTES = 50 << 20


@cache
def device_architecture(device: torch.device) -> str:
    """The architecture of a GPU, "sm_90" or "gfx942" style; DEFAULT_ARCHITECTURE for other devices."""
    if device.type != "cuda":
        return DEFAULT_ARCHITECTURE
    if torch.version.hip:
        return str(torch.cuda.get_device_properties(device).gcnArchName).split(":")[0]
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))


@cache
def runs_kernels(device: torch.device) -> bool:
    """Whether the kernels can run on a GPU: not on NVIDIA's before "sm_80", short of the shared memory that tiles take.

    Where there is no GPU to be asked, as for tensors without data, nothing speaks against it.
    """
    if not torch.cuda.is_available():
        return True
    architecture = device_architecture(device)
    return not (architecture.startswith("sm_") and int(architecture.removeprefix("sm_")) < 80)


@cache
def multiprocessors(device: torch.device) -> int:
    """Multiprocessors of a GPU; for the meta device those of an H200, for the CPU few."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).multi_processor_count)
    return 132 if device.type == "meta" else 2


@cache
def l2_bytes(device: torch.device) -> int:
    """Size of a device's L2 cache; DEFAULT_L2_BYTES for other devices than GPUs."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    return DEFAULT_L2_BYTES
