"""Compile the kernels of what `benchmarks.all` measures of ours, in several processes: suites would do it one by one.

    python -m benchmarks.precompile

Every case runs once in each pass; later processes find the code in Triton's cache on disk. Nothing is compiled for
torch.compile: it would choose kernels by times that the other processes disturb. Exit status: 2 without a GPU.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from multiprocessing import get_context

import torch
import typer

from dlfa.terminal import one_line_errors

from .cases import BASE_SHAPE, SHAPES, SMALL_SHAPE, Case, core_case, variations
from .hardware import choose_device
from .problems import make_problem
from .providers import OURS, build, inference, results

# Each process takes seconds to start, and gigabytes of the GPU's memory.
MOST_PROCESSES = 8

# float32 states under autocast, as in a training step
AUTOCAST_CASE = replace(core_case(SMALL_SHAPE), dtype="float32")


def cases() -> list[Case]:
    """Return the cases, those that take longest to compile first: several of one size share kernels."""
    core = [core_case(shape) for shape in SHAPES]
    packed = [replace(core_case(shape), packed=True) for shape in (BASE_SHAPE, (128, 512, 1024))]
    token = [replace(core_case(shape), token=0) for shape in (BASE_SHAPE, (128, 512, 1024))]
    return [*reversed(core), *variations(BASE_SHAPE), *packed, *token, AUTOCAST_CASE]


def compile_case(case: Case) -> None:
    """Run a case's inference and training step on the GPU, `AUTOCAST_CASE` under autocast."""
    problem = make_problem(case, choose_device("cuda"))
    with torch.autocast("cuda", torch.bfloat16) if case == AUTOCAST_CASE else nullcontext():
        call = build(OURS, problem)
        inference(call)
        results(call, problem)


def command() -> None:
    """Compile the kernels that the suites run."""
    with one_line_errors():
        choose_device("cuda")
    processes = min(MOST_PROCESSES, len(os.sched_getaffinity(0)))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for _ in pool.map(compile_case, cases()):
            pass


if __name__ == "__main__":
    typer.run(command)
