"""Treat CPU tensors as GPU tensors, to execute or launch compiled kernels without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from dlfa_kernels import backends, device


@contextmanager
def cpu_as_gpu(architecture: str) -> Iterator[None]:
    """Let the kernels accept CPU tensors inside, with the tiles of `architecture`, such as "sm_90"."""
    with (
        patch.object(backends, "TAKES_CPU_TENSORS", True),
        patch.object(device, "DEFAULT_ARCHITECTURE", architecture),
    ):
        device.device_architecture.cache_clear()
        try:
            yield
        finally:
            device.device_architecture.cache_clear()
