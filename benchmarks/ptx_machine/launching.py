"""A launch of the kernels, compiled for an architecture and run by the machine on CPU tensors."""

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
    """A launch's code, names of its run-time arguments, and bytes of shared memory."""

    code: Code
    names: list[str]
    shared_bytes: int

    def parameters(self, arguments: Mapping[str, Tensor | int | None]) -> list[int]:
        """Values of the code's parameters, of a launch's arguments by name; a tensor may be given as its pointer."""
        values: list[Any] = [arguments[name] for name in self.names]
        parameters = [value.data_ptr() if isinstance(value, Tensor) else value for value in values]
        # Triton adds pointers to memory for its own use, of which these kernels have none.
        return parameters + [0] * (len(self.code.program.parameters) - len(parameters))


_compiled: dict[tuple[str, str], Compiled] = {}  # by architecture and `code_key`


def compiled(launch: Launch, architecture: str) -> Compiled:
    """What a launch is compiled to; each kind once.

    Raises:
        OutOfResources: it takes more shared memory than there is.
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
    """Where a launch's tensors lie."""
    storages = [value.untyped_storage() for value in launch.arguments.values() if isinstance(value, Tensor)]
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    return [(begin, begin + size) for begin, size in sizes.items()]


@dataclass(frozen=True)
class Launched:
    """What was launched, for others like it: called with pointers, whose tensors' bounds are not known."""

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
    """What a GPU would do.

    Raises:
        Fault: the code does what it may not do, see `benchmarks.ptx_machine`.
    """
    made = compiled(launch, architecture)
    parameters, memory = made.parameters(launch.arguments), Memory.of_process(ranges(launch))
    run_grid(made.code, launch.grid, parameters, made.shared_bytes, memory)
    return Launched(made, list(launch.arguments))
