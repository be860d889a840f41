"""What the compiler makes of every kernel, on a machine without a GPU.

    python -m benchmarks.codegen --json FILE [--arch sm_90 ...] [--dtype bfloat16 ...]

One forward and one backward pass on the meta device record the launches as a GPU would get them; each distinct one is
compiled with the specialisation Triton's runtime would choose, and the machine code is read.

A row says of one compiled kernel: registers a thread, bytes of local memory a thread (`spill_bytes`: stack and spills),
bytes of shared memory a program and the chip's limit, and how many instructions of a kind its code holds:
`tensor_core_ops` (matrix instructions), `wide_*` (16 bytes a thread or more) and `narrow_*` (all other) accesses to
global memory. These are places in the code, not executions. Narrow accesses are in part meant to be: masks, sequence
starts, token counts and biases have too few neighbouring elements for wide ones.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

KIB = 1024
EMBED_DIMS = (768, 1024)
REDUCTIONS = (4, 16)
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True)
class Chip:
    """A compile target; `shared_limit` is the most shared memory a program may use, in bytes."""

    backend: str
    arch: int | str
    warp_size: int
    shared_limit: int


CHIPS = {
    "sm_80": Chip("cuda", 80, 32, 163 * KIB),
    "sm_90": Chip("cuda", 90, 32, 227 * KIB),
    "sm_100": Chip("cuda", 100, 32, 227 * KIB),
    "sm_120": Chip("cuda", 120, 32, 99 * KIB),
    "gfx942": Chip("hip", "gfx942", 64, 64 * KIB),
}


@dataclass(frozen=True)
class Variant:
    """A way to call AIF that changes what is compiled."""

    fuse: str = "gate"
    kernel_size: int = 1
    packed: bool = False
    lower: bool = True


VARIANTS = (
    Variant(),
    Variant(fuse="select"),
    Variant(kernel_size=3),
    Variant(packed=True),
)


@dataclass(frozen=True)
class Row:
    """One compiled kernel, as written to the JSON file; `pass_` is written as `pass`."""

    kernel: str
    pass_: str
    arch: str
    dtype: str
    embed_dim: int
    squeeze_dim: int
    fuse: str
    kernel_size: int
    packed: bool
    registers: int
    spill_bytes: int
    shared_bytes: int
    shared_limit: int
    tensor_core_ops: int
    wide_loads: int
    narrow_loads: int
    wide_stores: int
    narrow_stores: int
    num_warps: int
    num_stages: int

    def json(self) -> dict[str, Any]:
        """The row with its JSON keys."""
        return {name.rstrip("_"): value for name, value in asdict(self).items()}


def recorded_launches(
    embed_dim: int, squeeze_dim: int, dtype: torch.dtype, variant: Variant, *, batch: int = 32, length: int = 128
) -> list[tuple[str, Any]]:
    """("forward" or "backward", `dlfa_kernels.launch.Launch`) of one call with a mask (padded) or sequence starts."""
    from dlfa_kernels import launch
    from dlfa_kernels.checks import AIFWeights

    def meta(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    e, h, k = embed_dim, squeeze_dim, variant.kernel_size
    weights = AIFWeights(meta(h, e, k), meta(h), meta(e, h, 1), meta(e), meta(h, e), meta(h), meta(e, h), meta(e))
    shape = (batch * length, e) if variant.packed else (batch, length, e)
    last, dz = meta(*shape), meta(*shape)
    lower = meta(*shape) if variant.lower else None
    mask = None if variant.packed else meta(batch, length, dtype=torch.int64)
    starts = meta(batch + 1, dtype=torch.int32) if variant.packed else None
    with launch.record_launches() as forward:
        saved = launch.forward(last, lower, weights, mask, starts, variant.fuse, "relu")
    with launch.record_launches() as backward:
        launch.backward(dz, last, lower, weights, mask, starts, saved, variant.fuse, "relu")
    return [("forward", item) for item in forward] + [("backward", item) for item in backward]


def compile_launch(launch: Any, chip: Chip) -> Any:
    """Triton's compiled kernel of a recorded launch, specialised on its arguments as at run time."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile, make_backend
    from triton.runtime.jit import create_function_from_signature

    kernel, constants = launch.kernel, dict(launch.constants)
    if chip.backend == "hip" and "PRECISION" in constants:
        constants["PRECISION"] = "ieee"
    target = GPUTarget(chip.backend, chip.arch, chip.warp_size)
    backend = make_backend(target)
    keywords = launch.arguments | constants | {"num_warps": launch.num_warps, "num_stages": launch.num_stages}
    bound, specialization, options = create_function_from_signature(kernel.signature, kernel.params, backend)(
        **keywords
    )
    options, signature, constexprs, attributes = kernel._pack_args(backend, keywords, bound, specialization, options)
    return compile(ASTSource(kernel, signature, constexprs, attributes), target=target, options=dict(options.__dict__))


def _nvidia_facts(cubin: bytes) -> dict[str, int]:
    """Registers, local memory and instruction counts of a cubin, read with the disassembler in Triton's package."""
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        usage, code = (
            subprocess.run([*command, str(path)], check=True, capture_output=True, text=True).stdout
            for command in (
                [knobs.nvidia.cuobjdump.path, "-res-usage"],
                [knobs.nvidia.nvdisasm.path, "-c"],
            )
        )
    resources = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage)}
    return {
        "registers": resources["REG"],
        "spill_bytes": resources["STACK"] + resources["LOCAL"],
        **_count(re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(?:@\S+\s+)?([A-Z][\w.]*)", code, re.MULTILINE), _nvidia_kind),
    }


def _nvidia_kind(instruction: str) -> str | None:
    name, *modifiers = instruction.split(".")
    if name.endswith("MMA"):
        return "tensor_core_ops"
    if name in ("UBLKCP", "UTMALDG", "UTMASTG"):
        return "wide_stores" if name == "UTMASTG" else "wide_loads"
    if name in ("LDG", "LDGSTS", "LD", "STG", "ST"):
        width = "wide" if {"128", "256"} & {modifier.removeprefix("ENL2") for modifier in modifiers} else "narrow"
        return f"{width}_{'stores' if name in ('STG', 'ST') else 'loads'}"
    return None


def _amd_facts(assembly: str) -> dict[str, int]:
    """Registers, scratch memory and instruction counts of AMD assembly text."""
    numbers = {name: int(value) for name, value in re.findall(r"\.(\w+):\s+(\d+)\s*$", assembly, re.MULTILINE)}
    return {
        "registers": numbers["vgpr_count"],
        "spill_bytes": numbers["private_segment_fixed_size"],
        **_count(re.findall(r"^\s+([a-z]\w+)", assembly, re.MULTILINE), _amd_kind),
    }


def _amd_kind(instruction: str) -> str | None:
    if instruction.startswith(("v_mfma", "v_wmma")):
        return "tensor_core_ops"
    access = re.match(r"(?:global|buffer|flat)_(load|store)_(.*)", instruction)
    if access is None:
        return None
    return f"{'wide' if re.match('dwordx4|b128', access[2]) else 'narrow'}_{access[1]}s"


def _count(instructions: list[str], kind: Any) -> dict[str, int]:
    kinds = [kind(instruction) for instruction in instructions]
    names = ("tensor_core_ops", "wide_loads", "narrow_loads", "wide_stores", "narrow_stores")
    return {name: kinds.count(name) for name in names}


def compile_setting(arch: str, dtype: str, embed_dim: int, squeeze_dim: int) -> list[Row]:
    """Rows of every distinct kernel that any variant launches at one size."""
    chip, rows = CHIPS[arch], {}
    for variant in VARIANTS:
        for pass_, launch in recorded_launches(embed_dim, squeeze_dim, DTYPES[dtype], variant):
            compiled = compile_launch(launch, chip)
            if compiled.hash in rows:
                continue
            asm = compiled.asm
            facts = _nvidia_facts(asm["cubin"]) if chip.backend == "cuda" else _amd_facts(asm["amdgcn"])
            rows[compiled.hash] = Row(
                kernel=launch.kernel.__name__.removesuffix("_kernel"), pass_=pass_, arch=arch, dtype=dtype,
                embed_dim=embed_dim, squeeze_dim=squeeze_dim, fuse=variant.fuse, kernel_size=variant.kernel_size,
                packed=variant.packed, shared_bytes=compiled.metadata.shared, shared_limit=chip.shared_limit,
                num_warps=launch.num_warps, num_stages=launch.num_stages, **facts,
            )  # fmt: skip
    return list(rows.values())


def _table(rows: list[Row]) -> Table:
    table = Table(title="Compiled kernels")
    for name in Row.__dataclass_fields__:
        table.add_column(name.rstrip("_").replace("_", " "))
    for row in rows:
        style = "red" if row.spill_bytes or row.shared_bytes > row.shared_limit else None
        table.add_row(*map(str, asdict(row).values()), style=style)
    return table


def write_json(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows to a temporary name beside `path`, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def main(
    json_path: Annotated[Path, typer.Option("--json", help="File to write the rows to.")],
    arch: Annotated[list[str], typer.Option(help=f"One of {', '.join(CHIPS)}; repeatable.")] = list(CHIPS),
    dtype: Annotated[list[str], typer.Option(help=f"One of {', '.join(DTYPES)}; repeatable.")] = [
        "bfloat16",
        "float32",
    ],
    embed_dim: Annotated[list[int], typer.Option(help="E; repeatable.")] = list(EMBED_DIMS),
    reduction: Annotated[list[int], typer.Option(help="E / H; repeatable.")] = list(REDUCTIONS),
    workers: Annotated[int, typer.Option(min=1, help="Processes that compile.")] = 2,
) -> None:
    """Compile every kernel and tabulate registers, spills, shared memory, tensor-core and memory instructions."""
    for option, values, choices in (("--arch", arch, CHIPS), ("--dtype", dtype, DTYPES)):
        for value in values:
            if value not in choices:
                raise typer.BadParameter(f"must be one of {', '.join(choices)}, got {value!r}", param_hint=option)
    if os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y"):
        raise typer.BadParameter(
            "must not be set: the interpreter replaces the compiler", param_hint="TRITON_INTERPRET"
        )
    settings = [(a, d, e, e // r) for a, d, e, r in product(arch, dtype, embed_dim, reduction)]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault("TRITON_CACHE_DIR", cache)
        pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
        with pool, Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("compiling", total=len(settings))
            for future in [pool.submit(compile_setting, *setting) for setting in settings]:
                rows += future.result()
                progress.advance(task)
    write_json(json_path, [row.json() for row in rows])
    Console().print(_table(rows))


if __name__ == "__main__":
    typer.run(main)
