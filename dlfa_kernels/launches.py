"""Kernel launches: their specialisation, compilation and execution in order.

On the meta device launches are not executed but can be recorded, to inspect them on a machine without a GPU.
"""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton import AsyncCompileMode, FutureKernel
from triton.runtime.errors import OutOfResources

from .overrides import overrides

logger = logging.getLogger(__name__)

# Held while kernels are compiled and first launched. Another thread would find futures in Triton's cache in place of
# compiled kernels, and kernels that are not yet loaded.
_first_launches = threading.Lock()


def specialization_of(value: Tensor | int | None) -> tuple[Any, ...] | None:
    """Return what Triton specialises on for one argument: a tensor's dtype and alignment, or properties of an integer.

    The classes of integers are finer than Triton's own, but do not distinguish individual values other than 1.
    """
    if value is None:
        return None
    if isinstance(value, int):
        return value == 1, value % 16 == 0, value < 1 << 31
    return value.dtype, value.data_ptr() % 16 == 0


class Launch(NamedTuple):
    """One kernel launch: arguments and compile-time constants, both in the kernel's order.

    `compiled` caches the compiled code. All launches of one kernel with the same constants and options share it.
    Triton's own lookup of compiled code takes longer than all other host work of a launch.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Tensor | int | None]
    constants: dict[str, Any]
    num_warps: int
    num_stages: int
    maxnreg: int | None = None  # most registers per thread, on NVIDIA
    compiled: dict[tuple[Any, ...], Any] | None = None

    @property
    def options(self) -> dict[str, int]:
        """The compiler's options, as keywords of the launch; multiply and add are fused."""
        options = {"num_warps": self.num_warps, "num_stages": self.num_stages, "enable_fp_fusion": True}
        return options if self.maxnreg is None else {**options, "maxnreg": self.maxnreg}

    def specialization_key(self, device: torch.device) -> tuple[Any, ...] | None:
        """Return the key in `compiled` for these arguments on `device`; None if compiled code is not cached."""
        return None if self.compiled is None else (device, *map(specialization_of, self.arguments.values()))

    def run(self, key: tuple[Any, ...] | None = None) -> Any:
        """Launch on the current device and stream.

        Args:
            key: the `specialization_key` for that device; None bypasses `compiled`.

        Returns:
            The compiled kernel, which can be launched again with arguments of the same key; None if it is not cached.
        """
        if self.compiled is None or key is None:
            self.kernel[self.grid](**self.arguments, **self.constants, **self.options)
            return None
        compiled = self.compiled.get(key)
        if compiled is None:
            compiled = self.compiled[key] = self._compile_and_run()
        else:
            compiled[(*self.grid, 1, 1)](*self.arguments.values(), *self.constants.values())
        return compiled

    def _compile_and_run(self) -> Any:
        """Launch through Triton, with fewer pipeline stages if the device lacks shared memory for all of them."""
        try:
            made = self.kernel[self.grid](**self.arguments, **self.constants, **self.options)
        except OutOfResources as error:
            # tiles under tuning or test must fail instead
            if self.num_stages == 1 or overrides().tiles is not None:
                raise
            fewer = self.num_stages - 1
            logger.warning("%s: %s; launched with %d pipeline stages", self.kernel.__name__, error, fewer)
            return self._replace(num_stages=fewer)._compile_and_run()
        # Triton still holds a future if the parallel compilation was interrupted, and later launches need the kernel.
        return made.result() if isinstance(made, FutureKernel) else made


def _compile(launches: list[Launch]) -> None:
    """Compile the launches for the current device, each in its own thread."""
    threads = ThreadPoolExecutor(min(len(launches), os.cpu_count() or 1))
    # The error of a failed compilation is raised by the launch, which Triton gives the future.
    with threads, AsyncCompileMode(threads, ignore_errors=True):
        for launch in launches:
            launch.kernel.warmup(grid=launch.grid, **launch.arguments, **launch.constants, **launch.options)


def run_in_order(launches: list[Launch], device: torch.device) -> list[Any]:
    """Run the launches on `device`, the current one; several that are not yet compiled are compiled in parallel.

    Return the results of `Launch.run`; an empty list on the meta device, where launches are only recorded.
    """
    recorded = overrides().recorded
    if device.type == "meta":
        if recorded is not None:
            recorded += launches
        return []
    keys = [launch.specialization_key(device) for launch in launches]

    def fresh() -> list[Launch]:
        return [
            launch
            for launch, key in zip(launches, keys, strict=True)
            if launch.compiled is not None and key not in launch.compiled
        ]

    def run() -> list[Any]:
        made = []
        for launch, key in zip(launches, keys, strict=True):
            if recorded is not None:
                recorded.append(launch)  # one by one: the last is the one that runs
            made.append(launch.run(key))
        return made

    if not fresh():
        return run()
    with _first_launches:
        waiting = fresh()  # without what another thread compiled meanwhile
        if len(waiting) > 1:
            # Triton leaves its mode in the context, even after errors; this one ends here
            Context().run(_compile, waiting)
        return run()
