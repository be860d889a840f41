"""Cost of one program of every kernel, counted by execution on a machine without a GPU.

    python -m benchmarks.execution --json FILE [--embed-dim 768] [--reduction 4] [--dtype bfloat16] [--call ...]

The launches of a forward and a backward pass of 512 x 128 tokens are compiled, and `benchmarks.ptx_machine` executes
the first program of each, on zeros. A row is one launch:

    programs        of the launch's grid
    issue           cycles to issue its instructions, of PTX: four warps issue one each cycle
    shared          cycles of shared memory, of 128 bytes each, from the banks of each access
    conflicts       how many of these cycles are due to bank conflicts
    l2_bytes        bytes of the 32-byte sectors that its loads and stores access, counted per access
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from torch import Tensor

from dlfa_kernels.branches import default_squeeze_dim
from dlfa_kernels.launches import Launch

from .codegen import CALLS, VARIANTS, Setting, kernel_name, recorded_launches
from .kernel_options import Architecture, Dtype, EmbedDim, Reduction, RowsPath, one_of, refuse_interpreter
from .output import print_table, write_json
from .ptx_machine import launching
from .ptx_machine.formats import Values
from .ptx_machine.machine import WARP, Block
from .ptx_machine.memory import Memory

BANKS, BANK_BYTES, SECTOR_BYTES, ISSUED_A_CYCLE = 32, 4, 32, 4
COLUMNS = ("kernel", "pass", "programs", "threads", "issue", "shared", "conflicts", "l2_bytes")


class CountedMemory(Memory, ABC):
    """Memory that counts its accesses."""

    @abstractmethod
    def _count(self, addresses: Values, size: int) -> None:
        """Count one access of `size` bytes for each thread."""

    def load(self, addresses: Values, size: int, vector: int = 1) -> Values:
        """`Memory.load`, counted."""
        self._count(addresses, size * vector)
        return super().load(addresses, size, vector)

    def store(self, addresses: Values, values: Values) -> None:
        """`Memory.store`, counted."""
        self._count(addresses, values.itemsize * values.shape[-1])
        super().store(addresses, values)


class CountedSharedMemory(CountedMemory):
    """Shared memory that counts cycles, and the cycles that the accesses would take without conflicts."""

    cycles = 0
    least_cycles = 0

    def _count(self, addresses: Values, size: int) -> None:
        if addresses.ndim == 2:  # an operand of wgmma, whose layout has no conflicts
            cycles = addresses.size * size // (BANKS * BANK_BYTES)
            self.cycles += cycles
            self.least_cycles += cycles
            return
        places = addresses.reshape(-1)
        together = min(WARP, BANKS * BANK_BYTES // size)  # threads whose accesses fill all banks once
        for first in range(0, len(places), together):
            words = np.unique(
                places[first : first + together, None] // BANK_BYTES + np.arange(max(1, size // BANK_BYTES))
            )
            self.cycles += int(np.bincount(words % BANKS).max())
            self.least_cycles += 1


class CountedGlobalMemory(CountedMemory):
    """Global memory that counts the sectors of accesses, warp by warp."""

    sectors = 0

    def _count(self, addresses: Values, size: int) -> None:
        for first in range(0, len(addresses), WARP):
            begin = addresses[first : first + WARP, None] // SECTOR_BYTES
            self.sectors += len(np.unique(begin + np.arange(max(1, size // SECTOR_BYTES))))


def made_up(item: Launch) -> Launch:
    """Return a recorded launch on CPU tensors: zeros, except masks, all true, and counts of 128 tokens."""

    def real(name: str, value: Tensor | int | None) -> Tensor | int | None:
        if not isinstance(value, Tensor):
            return value
        if name == "cu_seqlens_ptr":
            return torch.arange(value.numel(), dtype=value.dtype) * 128
        return torch.full(value.shape, 0 if value.is_floating_point() else 128, dtype=value.dtype)

    return item._replace(arguments={name: real(name, value) for name, value in item.arguments.items()})


def execute(item: Launch, architecture: str) -> dict[str, Any]:
    """Execute a launch's first program and return its figures."""
    launch = made_up(item)  # keeps its tensors alive while their addresses are in use
    made = launching.compiled(launch, architecture)
    shared = CountedSharedMemory.shared(made.shared_bytes)
    outside = CountedGlobalMemory.of_process(launching.ranges(launch))
    parameters = made.parameters(launch.arguments)
    block = Block(made.code, (0, 0, 0), item.grid, parameters, {"shared": shared, "global": outside})
    block.run()
    return {
        "kernel": kernel_name(item), "programs": math.prod(item.grid), "threads": made.code.program.threads,
        "issue": block.warp_instructions // ISSUED_A_CYCLE, "shared": shared.cycles,
        "conflicts": round(shared.cycles / max(1, shared.least_cycles), 2),
        "l2_bytes": outside.sectors * SECTOR_BYTES,
    }  # fmt: skip


app = typer.Typer(add_completion=False)


@app.command()
def main(
    json_path: RowsPath,
    arch: Architecture = "sm_90",
    dtype: Dtype = "bfloat16",
    embed_dim: EmbedDim = 768,
    reduction: Reduction = 4,
    call: Annotated[str, typer.Option(help=f"One of {', '.join(VARIANTS)}.")] = CALLS[0],
) -> None:
    """Execute the first program of every launch; tabulate instructions, cycles of shared memory and bytes from L2."""
    one_of("--call", [call], VARIANTS)
    refuse_interpreter()
    setting = Setting(arch, dtype, embed_dim, default_squeeze_dim(embed_dim, reduction))
    launches = recorded_launches(setting, VARIANTS[call])
    rows = [
        {"pass": pass_, **asdict(setting), "call": call, **execute(item, arch)}
        for pass_, item in track(launches, "executing", console=Console(stderr=True))
    ]
    write_json(json_path, rows)
    print_table(
        f"First programs of {call}, {dtype}, E = {embed_dim}, H = {setting.squeeze_dim}, {arch}",
        [column.replace("_", " ") for column in COLUMNS],
        (([row[column] for column in COLUMNS], row["conflicts"] > 2) for row in rows),
    )


if __name__ == "__main__":
    app()
