"""Compile a launch of the kernels for an architecture, and run it in the simulator on CPU tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor
from triton.runtime.errors import OutOfResources

from dlfa_kernels.launches import Launch

from ..codegen import CHIPS, code_key, compile_launch
from .machine import Code, run_grid
from .memory import ORIGIN, PROCESS, Memory
from .program import parse


class Compiled(NamedTuple):
    """A launch's code, the names of its run-time arguments, and its bytes of shared memory."""

    code: Code
    names: list[str]
    shared_bytes: int

    def parameters(self, arguments: Mapping[str, Tensor | int | None]) -> list[int]:
        """Return the code's parameters from a launch's arguments by name; a tensor may be given as its pointer."""
        values: list[Any] = [arguments[name] for name in self.names]
        parameters = [value.data_ptr() if isinstance(value, Tensor) else value for value in values]
        # Triton adds pointers to scratch memory, which these kernels do not use.
        return parameters + [0] * (len(self.code.program.parameters) - len(parameters))


_compiled: dict[tuple[str, str], Compiled] = {}  # by architecture and `code_key`


def compiled(launch: Launch, architecture: str) -> Compiled:
    """Compile a launch; each kind is compiled once.

    Raises:
        OutOfResources: it needs more shared memory than there is.
    """
    key = architecture, code_key(launch)
    if key not in _compiled:
        chip = CHIPS[architecture]
        made, names = compile_launch(launch, chip)
        if made.metadata.shared > chip.shared_limit:
            raise OutOfResources(made.metadata.shared, chip.shared_limit, "shared memory")
        _compiled[key] = Compiled(Code(parse(made.asm["ptx"])), names, made.metadata.shared)
    return _compiled[key]


def ranges(launch: Launch) -> list[tuple[int, int]]:
    """Return the address ranges of a launch's tensors."""
    storages = [value.untyped_storage() for value in launch.arguments.values() if isinstance(value, Tensor)]
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    return [(begin, begin + size) for begin, size in sizes.items()]


@dataclass(frozen=True)
class Launched:
    """A launched kernel, to launch again with pointers, whose tensors' bounds are unknown."""

    compiled: Compiled
    arguments: list[str]

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        code, _, shared_bytes = self.compiled

        def launch(*values: Any, stream: object) -> None:
            by_name = dict(zip(self.arguments, values, strict=False))  # compile-time constants follow
            parameters = self.compiled.parameters(by_name)
            run_grid(code, grid, parameters, shared_bytes, Memory.of_process([(ORIGIN, PROCESS.size)]))

        return launch


def run(launch: Launch, architecture: str) -> Launched:
    """Run a launch as a GPU would.

    Raises:
        Fault: the code makes an error, see `benchmarks.ptx_machine`.
    """
    made = compiled(launch, architecture)
    parameters, memory = made.parameters(launch.arguments), Memory.of_process(ranges(launch))
    run_grid(made.code, launch.grid, parameters, made.shared_bytes, memory)
    return Launched(made, list(launch.arguments))
