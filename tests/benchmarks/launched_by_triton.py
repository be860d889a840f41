"""Run by test_host.py: calls of FusedAIF whose launches go through Triton's launcher, and run on the PTX machine."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import triton
from torch import Tensor
from triton.backends.nvidia.compiler import CUDABackend

from benchmarks.cpu_as_gpu import cpu_as_gpu
from benchmarks.host_driver.activate import DriverLaunch, activate
from benchmarks.ptx_machine.machine import Code, run_grid
from benchmarks.ptx_machine.memory import ORIGIN, PROCESS, Memory
from benchmarks.ptx_machine.program import parse
from dlfa_kernels import FusedAIF, replays
from dlfa_kernels.kernels import context, expand, input_grads, reduce, squeeze, weight_grads

KERNELS = (
    squeeze.squeeze_kernel, context.context_kernel, expand.expand_kernel, reduce.reduce_kernel,
    input_grads.input_grads_kernel, weight_grads.weight_grads_kernel,
)  # fmt: skip
EMBED_DIM, SQUEEZE_DIM = 64, 24
launched: list[str] = []
faults: list[BaseException] = []


def compiled_of(function: int) -> Any:
    """What Triton compiled, by the handle that it launches."""
    for kernel in KERNELS:
        for compiled in kernel.device_caches[0][0].values():
            if compiled.function == function:
                return compiled
    raise LookupError(f"function {function} is of no known kernel")


def execute(launch: DriverLaunch) -> None:
    """Run a launch; an exception would be lost in the driver, so it is kept."""
    try:
        compiled = compiled_of(launch.function)
        text = compiled.asm["ptx"]
        code = Code(parse(text))
        assert launch.threads == code.program.threads
        assert launch.shared_bytes == compiled.metadata.shared
        bits = re.findall(r"\.param \.[a-z](\d+)", text[: text.index(")")])
        assert len(bits) == len(code.program.parameters)
        parameters = launch.parameters([int(each) // 8 for each in bits])
        run_grid(code, launch.grid, parameters, launch.shared_bytes, Memory.of_process([(ORIGIN, PROCESS.size)]))
        launched.append(compiled.name)
    except BaseException as fault:
        faults.append(fault)


def gradients(module: FusedAIF, last: Tensor, lower: Tensor, mask: Tensor, gradient: Tensor) -> list[Tensor]:
    """z and all gradients."""
    leaves = [last.requires_grad_(), lower.requires_grad_(), *module.parameters()]
    z = module(last, lower, mask)
    return [z.detach(), *torch.autograd.grad(z, leaves, gradient)]


def refuse_to_assemble(*arguments: object) -> None:
    """In place of the last stage of a compilation."""
    raise RuntimeError("not assembled")


def check_that_errors_of_the_compiler_are_raised_and_pass() -> None:
    module = FusedAIF(EMBED_DIM, squeeze_dim=2 * SQUEEZE_DIM, backend="triton")  # kernels that nothing else uses
    states = torch.randn(1, 5, EMBED_DIM)
    with patch.object(CUDABackend, "make_cubin", refuse_to_assemble):
        for _ in range(2):
            with pytest.raises(RuntimeError, match="not assembled"):
                module(states)
    if triton.__version__.startswith(("3.7.", "3.8.")):  # what failed to compile in a thread has failed for good there
        return
    module(states)
    assert launched == ["squeeze_kernel", "context_kernel", "expand_kernel"], launched


def main(architecture: str) -> None:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, cpu_as_gpu(architecture):
        os.environ["TRITON_CACHE_DIR"] = str(Path(folder) / "compiled")
        driver = activate(Path(folder), architecture, execute)
        modules = []
        for length in (41, 57, 41, 57, 41):
            module = FusedAIF(EMBED_DIM, squeeze_dim=SQUEEZE_DIM, backend="triton", activation="silu").bfloat16()
            exact = FusedAIF(EMBED_DIM, squeeze_dim=SQUEEZE_DIM, backend="eager", activation="silu").double()
            exact.load_state_dict(module.state_dict())
            states = [torch.randn(2, length, EMBED_DIM, dtype=torch.bfloat16) for _ in range(3)]
            mask = torch.rand(2, length) > 0.3
            found = gradients(module, *states[:2], mask, states[2])
            wide = [tensor.detach().double() for tensor in states]
            expected = gradients(exact, *wide[:2], mask, wide[2])
            assert not faults, faults
            for actual, value in zip(found, expected, strict=True):
                assert (actual - value).norm() < 0.02 * value.norm()
            modules.append(driver.modules)
        assert len(launched) == driver.launches == 5 * 7, launched
        assert modules == [7] * 5, modules
        assert sum(replay is not None for replay in replays._replays.values()) == 4
        launched.clear()
        check_that_errors_of_the_compiler_are_raised_and_pass()


if __name__ == "__main__":
    main(sys.argv[1])
