"""Run AIF's kernels under NVIDIA's compute-sanitizer: out-of-bounds accesses, races and misused barriers.

    python -m benchmarks.sanitize [--out DIR] [--tool memcheck ...] [--seconds S]

Small, uneven shapes of every input form run forward and backward, with torch's caching allocator off, so that each
tensor's end is the end of an allocation. One shape uses the tiles of large batches. Each call is made three times: the
third is a replay (`dlfa_kernels.replays`), whose buffers are one allocation. All calls first run without a tool, in
several processes, in at most half of the time: this compiles in parallel and caches the code on disk, which would take
minutes under a tool. Then all tools run at the same time.

Rows of DIR/sanitizer.json: {"tool", "errors", "calls", "status", "seconds", "report"}, the first without a tool;
`calls` is how many calls started, and `errors` is null if they did not finish. Exit status: 1 if a tool found errors
or the calls did not finish.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, nullcontext
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer

from dlfa.terminal import one_line_errors
from dlfa_kernels.device import device_architecture
from dlfa_kernels.overrides import using_tiles
from dlfa_kernels.tiles import choose_tiles, tiles_for_form

from .cases import DTYPES, Case
from .hardware import ROOT, choose_device, commit, folder_name
from .output import print_table, write_rows
from .problems import make_problem
from .processes import GRACE_SECONDS, cuda_tool, started
from .providers import OURS, build, results

NO_TOOL = "none"
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
DEFAULT_TOOLS = ["memcheck", "racecheck", "synccheck"]
FORMS: tuple[dict[str, Any], ...] = (
    {}, {"fuse": "select"}, {"kernel_size": 3}, {"packed": True}, {"packed": True, "kernel_size": 3}, {"token": 0},
)  # fmt: skip
# (B, T, E), H: multiples of no tile; then multiples of every tile.
SHAPES = (((3, 77, 40), 24), ((2, 128, 64), 16))
# An encoder's widths, for the largest kernels, and a partial second tile of 128 tokens.
WIDE_SHAPE = ((2, 200, 768), 192)
DEFAULT_SECONDS = 360.0
LINES_KEPT = 12
POLL_SECONDS = 0.1
# Calls of one kind; the last one is a replay.
CALLS = 3
# The most processes without a tool: each takes seconds to start.
MOST_PROCESSES = 8


class SmallCall(NamedTuple):
    """Both passes of a case, with the tiles for so few tokens, or with those `of_large_batches`."""

    case: Case
    of_large_batches: bool

    def __str__(self) -> str:
        return f"{self.case}{' tiles of large batches' if self.of_large_batches else ''}"


def small_calls() -> Iterator[SmallCall]:
    """Yield the calls that run under the sanitizer; those that take longest to compile come first."""
    for form in FORMS:
        shape, squeeze_dim = WIDE_SHAPE
        yield SmallCall(Case(shape, squeeze_dim, fill=0.6, **form), of_large_batches=True)
    for (shape, squeeze_dim), dtype, form in product(SHAPES, ("bfloat16", "float32"), FORMS):
        yield SmallCall(Case(shape, squeeze_dim, dtype=dtype, fill=0.6, **form), of_large_batches=False)


def run_call(call: SmallCall, device: torch.device) -> None:
    """Run both passes `CALLS` times, and check that all numbers of the last time are finite.

    Raises:
        ValueError: some are not.
    """
    typer.echo(f"{call}")
    case = call.case
    problem = make_problem(case, device)
    chosen = choose_tiles(case.shape[-1], case.squeeze_dim, DTYPES[case.dtype], device_architecture(device))
    chosen = tiles_for_form(chosen, case.kernel_size, case.packed)
    # `using_tiles` uses tiles without changes; otherwise few tokens use smaller ones.
    with using_tiles(chosen) if call.of_large_batches else nullcontext():
        for _ in range(CALLS):
            last = results(build(OURS, problem), problem)
    for name, result in last.items():  # once: every kernel of torch takes time under a tool too
        if not torch.isfinite(result).all():
            raise ValueError(f"{case}: {name} is not finite")


def run_on_gpu(call: SmallCall) -> None:
    """Do `run_call` on the GPU, in a process of a pool."""
    run_call(call, choose_device("cuda"))


def run_calls(processes: int) -> None:
    """Run all small calls, in order in this process, or in several.

    Raises:
        ValueError: a result is not finite.
    """
    if processes == 1:
        for call in small_calls():
            run_on_gpu(call)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for _ in pool.map(run_on_gpu, small_calls()):
            pass


def error_count(text: str) -> int | None:
    """Return the errors or race hazards in compute-sanitizer's summary; None without a summary."""
    found = re.findall(r"(?:ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard)", text)
    return sum(int(errors or hazards) for errors, hazards in found) if found else None


def command_line(tool: str) -> list[str]:
    """Return the command that runs all small calls under a tool or, for `NO_TOOL`, in several processes.

    Raises:
        ValueError: there is no compute-sanitizer.
    """
    ours = [sys.executable, "-u", "-m", "benchmarks.sanitize", "--call"]
    if tool == NO_TOOL:
        return [*ours, str(min(MOST_PROCESSES, len(os.sched_getaffinity(0))))]
    # Failed driver calls are not errors of the kernels: torch and Triton query features that it may not have.
    options = ["--report-api-errors", "no"] if tool == "memcheck" else []
    return [cuda_tool("compute-sanitizer"), "--tool", tool, "--print-limit", "20", *options, *ours, "1"]


def make_row(tool: str, status: int | None, seconds: float, text: str) -> dict[str, Any]:
    """Return the row of a tool or `NO_TOOL` from its exit status, None if it exceeded its time, and its output."""
    errors = None if status is None else 0 if tool == NO_TOOL else error_count(text)
    if errors == 0 and status != 0:
        errors = None  # the program itself failed
    lines = [line for line in text.splitlines() if line.strip()]
    report = [line for line in lines if line.startswith("=========")][:LINES_KEPT]
    if errors is None:  # the findings so far, and where it stopped
        report += [line for line in lines if line not in report][-LINES_KEPT:]
    calls = len({str(call) for call in small_calls()} & {*lines})
    return {
        "tool": tool, "errors": errors, "calls": calls, "status": status, "seconds": round(seconds, 1),
        "report": report,
    }  # fmt: skip


def run_together(tools: list[str], seconds: float) -> Iterator[dict[str, Any]]:
    """Run tools at the same time for at most `seconds`, and yield the row of each as it ends."""
    begin = time.monotonic()
    with ExitStack() as files:
        logs = {
            tool: files.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace"))
            for tool in tools
        }

        def row(tool: str, status: int | None) -> dict[str, Any]:
            logs[tool].seek(0)
            return make_row(tool, status, time.monotonic() - begin, logs[tool].read())

        with ExitStack() as commands:
            running = {
                tool: commands.enter_context(
                    started(
                        command_line(tool),
                        cwd=ROOT,
                        log=log,
                        environment={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
                        grace=GRACE_SECONDS / len(tools),  # they are stopped one after another
                    )
                )
                for tool, log in logs.items()
            }
            while running and time.monotonic() - begin < seconds:
                for tool, process in list(running.items()):
                    if (status := process.poll()) is not None:
                        del running[tool]
                        yield row(tool, status)
                time.sleep(POLL_SECONDS)
        for tool in running:
            yield row(tool, None)


def run_tools(tools: list[str], seconds: float) -> Iterator[dict[str, Any]]:
    """Yield the rows of `NO_TOOL` and then of the tools, in `seconds` together."""
    end = time.monotonic() + seconds - GRACE_SECONDS  # the grace of the last tools
    yield from run_together([NO_TOOL], max(1.0, (end - time.monotonic()) / 2))
    yield from run_together(tools, max(1.0, end - time.monotonic()))


def command(
    out: Annotated[Path | None, typer.Option(help="Folder of sanitizer.json; default: benchmarks/results/GPU.")] = None,
    tool: Annotated[list[str], typer.Option(help=f"One of {', '.join(TOOLS)}; repeatable.")] = DEFAULT_TOOLS,
    seconds: Annotated[float, typer.Option(min=1, help="Time limit of all tools together.")] = DEFAULT_SECONDS,
    call: Annotated[int, typer.Option("--call", hidden=True)] = 0,
) -> None:
    """Run small shapes below compute-sanitizer."""
    if call:
        try:
            run_calls(call)
        except ValueError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from None
        return
    with one_line_errors():
        device = choose_device("cuda")
        for name in tool:
            if name not in TOOLS:
                raise ValueError(f"--tool must be one of {', '.join(TOOLS)}, got {name!r}")
        cuda_tool("compute-sanitizer")
    path = (out or ROOT / "benchmarks" / "results" / folder_name(device)) / "sanitizer.json"
    header = {"gpu": torch.cuda.get_device_name(), "commit": commit(), "command": "python -m benchmarks.sanitize"}
    rows: list[dict[str, Any]] = []
    for row in run_tools(tool, seconds):
        rows.append(row)
        write_rows(path, header, rows)
    columns = ("tool", "errors", "calls", "status", "seconds")
    print_table("compute-sanitizer", columns, (([row[c] for c in columns], row["errors"] != 0) for row in rows))
    for row in rows:
        if row["errors"] != 0:
            typer.echo("\n".join(row["report"]))
    raise typer.Exit(1 if any(row["errors"] != 0 for row in rows) else 0)


if __name__ == "__main__":
    typer.run(command)
