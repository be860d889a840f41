"""Kernel launches: what they are compiled for, and making them in order.

On the meta device launches are never made, but can be recorded: so they are inspected on a machine without a GPU.
"""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton.runtime.errors import OutOfResources

from .overrides import overrides

logger = logging.getLogger(__name__)


def specialization_of(value: Tensor | int | None) -> tuple[Any, ...] | None:
    """What Triton compiles for, of one argument: a tensor's dtype and alignment, properties of an integer.

    Finer than Triton's own classes of integers, but never by value.
    """
    if value is None:
        return None
    if isinstance(value, int):
        return value == 1, value % 16 == 0, value < 1 << 31
    return value.dtype, value.data_ptr() % 16 == 0


class Launch(NamedTuple):
    """One kernel launch: arguments in the kernel's order, then its compile-time constants in that order.

    `compiled` is shared by all launches of one kernel with the same constants and options, and keeps what the compiler
    made of them: Triton itself takes longer to find that again than all else that a launch costs the host.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Tensor | int | None]
    constants: dict[str, Any]
    num_warps: int
    num_stages: int
    maxnreg: int | None = None  # registers a thread may take, on NVIDIA
    compiled: dict[tuple[Any, ...], Any] | None = None

    @property
    def options(self) -> dict[str, int]:
        """The compiler's options, as keywords of the launch; a product and a sum are one instruction."""
        options = {"num_warps": self.num_warps, "num_stages": self.num_stages, "enable_fp_fusion": True}
        return options if self.maxnreg is None else {**options, "maxnreg": self.maxnreg}

    def specialization_key(self, device: torch.device) -> tuple[Any, ...] | None:
        """The key in `compiled` of the code for these arguments on `device`; None where compiled code is not kept."""
        return None if self.compiled is None else (device, *map(specialization_of, self.arguments.values()))

    def run(self, key: tuple[Any, ...] | None = None) -> Any:
        """Launch on the current device and stream.

        Args:
            key: as `specialization_key` gives it for that device; None leaves `compiled` alone.

        Returns:
            What was launched, if that may be launched again on arguments of the same key; else None.
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
        """Launch as Triton does, with fewer pipeline stages than asked for where a device has no room for all."""
        try:
            return self.kernel[self.grid](**self.arguments, **self.constants, **self.options)
        except OutOfResources as error:
            # tiles that are being tried or tested are to fail
            if self.num_stages == 1 or overrides().tiles is not None:
                raise
            fewer = self.num_stages - 1
            logger.warning("%s: %s; launched with %d pipeline stages", self.kernel.__name__, error, fewer)
            return self._replace(num_stages=fewer)._compile_and_run()


def _compile(launches: list[Launch]) -> None:
    """Have Triton compile for the current device what launches need, each in a thread of its own."""
    from triton import AsyncCompileMode

    threads = ThreadPoolExecutor(min(len(launches), os.cpu_count() or 1))
    # What fails is compiled again when it is launched, which says why.
    with threads, AsyncCompileMode(threads, ignore_errors=True):
        for launch in launches:
            launch.kernel.warmup(grid=launch.grid, **launch.arguments, **launch.constants, **launch.options)


def run_in_order(launches: list[Launch], device: torch.device) -> list[Any]:
    """Launch on `device`, the current one; what several launches need to be compiled is compiled at the same time.

    Returns what `Launch.run` returned; nothing on the meta device, where launches are only recorded.
    """
    recorded = overrides().recorded
    if device.type == "meta":
        if recorded is not None:
            recorded += launches
        return []
    keys = [launch.specialization_key(device) for launch in launches]
    fresh = [
        launch
        for launch, key in zip(launches, keys, strict=True)
        if launch.compiled is not None and key not in launch.compiled
    ]
    if len(fresh) > 1:
        Context().run(_compile, fresh)  # Triton keeps its mode in the context, after errors too: in one that ends here
    made = []
    for launch, key in zip(launches, keys, strict=True):
        if recorded is not None:
            recorded.append(launch)
        made.append(launch.run(key))
    return made
