"""Compile every kernel on a machine without a GPU, and tabulate properties of its machine code.

    python -m benchmarks.codegen --json FILE [--arch sm_90] [--dtype bfloat16] [--kernel expand] ...   (see --help)

A forward and a backward pass on the meta device record the launches that a GPU would get. Each distinct one is compiled
with the specialisation that Triton's runtime would choose, and its machine code is read.

A row is one compiled kernel: registers a thread; `spill_bytes`, its local memory a thread; `shared_bytes` a program and
the chip's limit; and the number of instructions by kind: `tensor_core_ops` (matrix instructions), `wide_*` (16 bytes a
thread or more) and `narrow_*` (all other) accesses to global memory. `accesses` lists them by argument (NVIDIA only):
narrow ones are right for small tensors such as masks, sequence starts, counts and biases. `loop_instructions` are those
of the longest loop, of which `loop_spills` access spilled registers. `per_element` is how many a thread executes for
each element of the blocks of tokens and channels of an iteration, one block for each of the program's `slots`. Of the
loop's `loop_loads`, wide loads from global memory, `loads_behind` arrive during matrix products (NVIDIA only); a
program that has a multiprocessor to itself waits for all others.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import track

from dlfa.processes import end_with_parent
from dlfa_kernels.branches import default_squeeze_dim
from dlfa_kernels.launches import Launch, specialization_of
from dlfa_kernels.operands import Inputs
from dlfa_kernels.overrides import record_launches
from dlfa_kernels.parameters import AIFWeights

from .calls import CallVariant, meta_weights, run_backward, run_forward
from .cases import DTYPES
from .kernel_options import RowsPath, one_of, refuse_interpreter
from .machine_code import ACCESSES, read_amd, read_nvidia
from .output import print_table, write_json

KIB = 1024


@dataclass(frozen=True)
class Chip:
    """A compile target; `shared_limit` is the most shared memory of a program, in bytes."""

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

ARCHS = ["sm_80", "sm_90", "sm_100", "gfx942"]
STATE_DTYPES = ["bfloat16", "float32"]
EMBED_DIMS = [768, 1024]
REDUCTIONS = [4, 16]

# The calls whose launches are compiled, each distinct one once: all kernels, with the settings that change code most.
VARIANTS = {
    str(variant): variant
    for variant in (
        CallVariant(),
        CallVariant(fuse="select"),
        CallVariant(lower=False),
        CallVariant(kernel_size=3),
        CallVariant(packed=True),
        CallVariant(token=0),
        CallVariant(autocast=torch.bfloat16),
        CallVariant(groups=True),
        CallVariant(kernel_size=3, groups=True),
        CallVariant(few=True),
        CallVariant(length=512),
        CallVariant(frozen=True),
    )
}
CALLS = list(VARIANTS)

COLUMNS = (
    "kernel", "pass", "arch", "dtype", "embed_dim", "squeeze_dim", "call", "registers", "spill_bytes", "shared_bytes",
    "tensor_core_ops", "wide_loads", "narrow_loads", "wide_stores", "narrow_stores", "loop_instructions",
    "loop_spills", "per_element", "loop_loads", "loads_behind",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One size on one chip."""

    arch: str
    dtype: str
    embed_dim: int
    squeeze_dim: int


@dataclass(frozen=True)
class Job:
    """One launch to compile: the `index`-th of a call."""

    setting: Setting
    call: str
    index: int


def recorded_launches(setting: Setting, variant: CallVariant) -> list[tuple[str, Launch]]:
    """Return ("forward" or "backward", launch) of a call of 512 sequences (`few`: 32), with a mask, or packed.

    Under autocast to the setting's dtype, states and parameters are float32.
    """
    dtype, embed_dim = DTYPES[setting.dtype], setting.embed_dim
    batch, length = 32 if variant.few else 512, variant.length
    if variant.autocast is not None:
        variant, dtype = replace(variant, autocast=dtype), torch.float32

    def meta(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    shape = (batch * length, embed_dim) if variant.packed else (batch, length, embed_dim)
    weights = meta_weights(embed_dim, setting.squeeze_dim, variant.kernel_size)
    inputs = Inputs(
        last=meta(*shape),
        lower=meta(*shape) if variant.lower else None,
        dz=meta(*shape) if variant.token is None else meta(batch, embed_dim),
        weights=AIFWeights._make(weight.to(dtype) for weight in weights),
        mask=None if variant.packed else meta(batch, length, dtype=torch.int64),
        cu_seqlens=meta(batch + 1, dtype=torch.int32) if variant.packed else None,
    )
    with record_launches(setting.arch) as forward:
        saved = run_forward(variant, inputs)
    with record_launches(setting.arch) as backward:
        run_backward(variant, inputs, saved)
    return [("forward", item) for item in forward] + [("backward", item) for item in backward]


def kernel_name(item: Launch) -> str:
    """Return the kernel's name as in the table."""
    return str(item.kernel.__name__).removesuffix("_kernel")


def code_key(item: Launch) -> str:
    """Return a key that determines a launch's code on one chip: launches with equal keys compile to the same code."""
    arguments = [specialization_of(value) for value in item.arguments.values()]
    return str((kernel_name(item), arguments, item.constants, item.options))


def distinct_jobs(setting: Setting, kernels: list[str], calls: list[str]) -> list[Job]:
    """Return the launches of `calls` at one size with different code; only of the named kernels, if any."""
    jobs: dict[str, Job] = {}
    for call in calls:
        for index, (_, item) in enumerate(recorded_launches(setting, VARIANTS[call])):
            if not kernels or kernel_name(item) in kernels:
                jobs.setdefault(code_key(item), Job(setting, call, index))
    return list(jobs.values())


def compile_launch(item: Launch, chip: Chip) -> tuple[Any, list[str]]:
    """Compile a recorded launch for `chip`, specialised as at run time; also return its run-time arguments' names."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile, make_backend
    from triton.runtime.jit import create_function_from_signature

    kernel = item.kernel
    keywords: dict[str, Any] = item.arguments | item.constants
    keywords |= item.options
    target = GPUTarget(chip.backend, chip.arch, chip.warp_size)
    backend = make_backend(target)
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, options = bind(**keywords)
    options, signature, constants, attributes = kernel._pack_args(backend, keywords, bound, specialization, options)
    source = ASTSource(kernel, signature, constants, attributes)
    compiled = compile(source, target=target, options=dict(options.__dict__))
    return compiled, [name for name, kind in signature.items() if kind != "constexpr"]


def compile_job(job: Job) -> dict[str, Any]:
    """Return the row of one job."""
    setting, variant = job.setting, VARIANTS[job.call]
    chip = CHIPS[setting.arch]
    pass_, item = recorded_launches(setting, variant)[job.index]
    compiled, arguments = compile_launch(item, chip)
    if chip.backend == "cuda":
        code = read_nvidia(compiled.asm["cubin"], compiled.asm["ptx"], compiled.asm["ttir"], arguments)
    else:
        code = read_amd(compiled.asm["amdgcn"])
    return {
        "kernel": kernel_name(item), "pass": pass_, **asdict(setting), "call": job.call, "fuse": variant.fuse,
        "kernel_size": variant.kernel_size, "registers": code.registers, "spill_bytes": code.spill_bytes,
        "shared_bytes": compiled.metadata.shared, "shared_limit": chip.shared_limit,
        **{kind: code.instructions[kind] for kind in ("tensor_core_ops", *ACCESSES)}, "accesses": code.accesses,
        "loop_instructions": code.loop, "loop_spills": code.loop_spills, "per_element": _per_element(item, code.loop),
        "loop_loads": code.loop_loads, "loads_behind": code.loads_behind,
        "num_warps": item.num_warps, "num_stages": item.num_stages, "slots": item.constants.get("SLOTS", 1),
        "ahead": item.constants.get("AHEAD", 0),
    }  # fmt: skip


def _per_element(item: Launch, instructions: int) -> float | None:
    """Return a loop's instructions for each element of a block of states; None for kernels without such blocks."""
    if kernel_name(item) not in ("squeeze", "expand", "reduce", "input_grads", "tap_grads"):
        return None
    elements = item.constants["BLOCK_T"] * item.constants["BLOCK_E"] * item.constants.get("SLOTS", 1)
    return round(instructions * 32 * item.num_warps / elements, 1)


app = typer.Typer(add_completion=False)


@app.command()
def main(
    json_path: RowsPath,
    arch: Annotated[list[str], typer.Option(help=f"One of {', '.join(CHIPS)}; repeatable.")] = ARCHS,
    dtype: Annotated[list[str], typer.Option(help=f"One of {', '.join(DTYPES)}; repeatable.")] = STATE_DTYPES,
    embed_dim: Annotated[list[int], typer.Option(min=8, help="E; repeatable.")] = EMBED_DIMS,
    reduction: Annotated[list[int], typer.Option(min=1, help="E / H; repeatable.")] = REDUCTIONS,
    call: Annotated[list[str], typer.Option(help=f"One of {', '.join(VARIANTS)}; repeatable.")] = CALLS,
    kernel: Annotated[list[str] | None, typer.Option(help="Only this kernel; repeatable.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that compile.")] = 2,
) -> None:
    """Compile every kernel; tabulate registers, spills, shared memory, matrix and memory instructions."""
    one_of("--arch", arch, CHIPS)
    one_of("--dtype", dtype, DTYPES)
    one_of("--call", call, VARIANTS)
    refuse_interpreter()
    settings = [
        Setting(a, d, e, default_squeeze_dim(e, r)) for a, d, e, r in product(arch, dtype, embed_dim, reduction)
    ]
    one_of(
        "--kernel",
        kernel or [],
        sorted({kernel_name(i) for c in call for _, i in recorded_launches(settings[0], VARIANTS[c])}),
    )
    jobs = [job for setting in settings for job in distinct_jobs(setting, kernel or [], call)]
    with tempfile.TemporaryDirectory() as cache:
        os.environ.setdefault("TRITON_CACHE_DIR", cache)
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), end_with_parent) as pool:
            done = track(pool.map(compile_job, jobs), "compiling", total=len(jobs), console=Console(stderr=True))
            rows = list(done)
    write_json(json_path, rows)
    print_table(
        "Compiled kernels",
        [column.replace("_", " ") for column in COLUMNS],
        (
            ([row[column] for column in COLUMNS], row["spill_bytes"] or row["shared_bytes"] > row["shared_limit"])
            for row in rows
        ),
    )


if __name__ == "__main__":
    app()
