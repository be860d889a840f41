"""A launch of the kernels, compiled for an architecture and run by the machine on CPU tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dlfa_kernels.launches import Launch, specialised

from ..codegen import CHIPS, compile_launch
from .machine import Code, run_grid
from .memory import ORIGIN, PROCESS, Memory
from .program import parse

_codes: dict[str, tuple[Code, list[str], int]] = {}


def compiled(launch: Launch, architecture: str) -> tuple[Code, list[str], int]:
    """A launch's code, the names of its run-time arguments, and bytes of shared memory; each kind compiled once."""
    kinds = [specialised(value) for value in launch.arguments.values()]
    key = str((architecture, launch.kernel.__name__, kinds, launch.constants, launch.options))
    if key not in _codes:
        made, names = compile_launch(launch, CHIPS[architecture])
        _codes[key] = Code(parse(made.asm["ptx"])), names, made.metadata.shared
    return _codes[key]


def arguments(launch: Launch, architecture: str) -> tuple[Code, list[int], int, list[tuple[int, int]]]:
    """A launch's code, values of its parameters, bytes of shared memory, and where its tensors lie."""
    code, names, shared_bytes = compiled(launch, architecture)
    tensors = [value for value in launch.arguments.values() if isinstance(value, Tensor)]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    values: list[Any] = [launch.arguments[name] for name in names]
    parameters = [value.data_ptr() if isinstance(value, Tensor) else value for value in values]
    # Triton adds pointers to memory for its own use, of which these kernels have none.
    parameters += [0] * (len(code.program.parameters) - len(parameters))
    return code, parameters, shared_bytes, [(begin, begin + size) for begin, size in storages.items()]


@dataclass(frozen=True)
class Launched:
    """What was launched, for others like it: called with pointers, whose tensors' bounds are not known."""

    code: Code
    arguments: list[str]
    names: list[str]
    shared_bytes: int

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*values: Any, stream: object) -> None:
            by_name = dict(zip(self.arguments, values, strict=False))  # compile-time constants follow
            parameters = [by_name[name] for name in self.names]
            parameters += [0] * (len(self.code.program.parameters) - len(parameters))
            run_grid(self.code, grid, parameters, self.shared_bytes, Memory.of_process([(ORIGIN, PROCESS.size)]))

        return launch


def run(launch: Launch, architecture: str) -> Launched:
    """What a GPU would do.

    Raises:
        Fault: the code does what it may not do, see `benchmarks.ptx_machine`.
    """
    code, parameters, shared_bytes, ranges = arguments(launch, architecture)
    run_grid(code, launch.grid, parameters, shared_bytes, Memory.of_process(ranges))
    return Launched(code, list(launch.arguments), compiled(launch, architecture)[1], shared_bytes)
