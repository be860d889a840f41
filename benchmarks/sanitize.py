"""AIF's kernels below NVIDIA's compute-sanitizer: accesses out of bounds, races and misused barriers.

    python -m benchmarks.sanitize [--out DIR] [--tool memcheck ...] [--seconds S]

Small, uneven shapes of every input form, forward and backward, with torch's caching allocator off, so that each
tensor's end is the end of an allocation. Rows of DIR/sanitizer.json: {"tool", "errors", "status", "seconds", "report"};
`errors` is null where the tool came to no end. Exit status: 1 where a tool found errors or came to no end.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from .hardware import ROOT, choose_device, commit, folder_name
from .output import print_table
from .processes import run_limited
from .results import write_text

TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
DEFAULT_TOOLS = ["memcheck", "racecheck", "synccheck"]
# (B, T, E), H: around tiles, nothing even; a multiple of every tile.
SHAPES = (((3, 77, 40), 24), ((2, 128, 64), 16))
DEFAULT_SECONDS = 120.0
LINES_KEPT = 12


def error_count(text: str) -> int | None:
    """Errors that compute-sanitizer sums up at its end, or its race hazards; None where there is no summary."""
    found = re.findall(r"(?:ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard)", text)
    return sum(int(errors or hazards) for errors, hazards in found) if found else None


def call_small_shapes() -> None:
    """What runs below the sanitizer: both passes of every input form, and a check that all numbers are finite."""
    from .cases import DTYPES, Case
    from .problems import make_problem
    from .providers import OURS, build, results

    device = choose_device("cuda")
    forms: tuple[dict[str, Any], ...] = (
        {}, {"fuse": "select"}, {"kernel_size": 3}, {"packed": True}, {"packed": True, "kernel_size": 3}, {"token": 0},
    )  # fmt: skip
    for (shape, squeeze_dim), dtype, form in product(SHAPES, ("bfloat16", "float32"), forms):
        assert dtype in DTYPES
        problem = make_problem(Case(shape, squeeze_dim, dtype=dtype, fill=0.6, **form), device)
        for name, result in results(build(OURS, problem), problem).items():
            if not torch.isfinite(result).all():
                raise SystemExit(f"{problem.case}: {name} is not finite")


def run_tool(tool: str, seconds: float) -> dict[str, Any]:
    """The row of one tool."""
    command = ["compute-sanitizer", "--tool", tool, "--print-limit", "20",
               sys.executable, "-m", "benchmarks.sanitize", "--call"]  # fmt: skip
    start = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        environment = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        status = run_limited(command, seconds, cwd=ROOT, log=output, environment=environment)
        output.seek(0)
        text = output.read()
    errors = None if status is None else error_count(text)
    if errors == 0 and status != 0:
        errors = None  # the program itself failed
    report = [line for line in text.splitlines() if line.strip()]
    kept = (
        report[-LINES_KEPT:]
        if errors is None
        else [line for line in report if line.startswith("=========")][:LINES_KEPT]
    )
    return {
        "tool": tool, "errors": errors, "status": status, "seconds": round(time.monotonic() - start, 1), "report": kept,
    }  # fmt: skip


def command(
    out: Annotated[Path | None, typer.Option(help="Folder of sanitizer.json; default: benchmarks/results/GPU.")] = None,
    tool: Annotated[list[str], typer.Option(help=f"One of {', '.join(TOOLS)}; repeatable.")] = DEFAULT_TOOLS,
    seconds: Annotated[float, typer.Option(min=1, help="Time limit of each tool.")] = DEFAULT_SECONDS,
    call: Annotated[bool, typer.Option("--call", hidden=True)] = False,
) -> None:
    """Run small shapes below compute-sanitizer."""
    if call:
        call_small_shapes()
        return
    try:
        device = choose_device("cuda")
        for name in tool:
            if name not in TOOLS:
                raise ValueError(f"--tool must be one of {', '.join(TOOLS)}, got {name!r}")
        if shutil.which("compute-sanitizer") is None:
            raise ValueError("compute-sanitizer, of the CUDA toolkit, must be on the PATH")
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    path = (out or ROOT / "benchmarks" / "results" / folder_name(device)) / "sanitizer.json"
    header = {"gpu": torch.cuda.get_device_name(), "commit": commit(), "command": "python -m benchmarks.sanitize"}
    rows: list[dict[str, Any]] = []
    for name in tool:
        rows.append(run_tool(name, seconds))
        lines = ",".join(f"\n{json.dumps(row)}" for row in rows)
        write_text(path, f'{{"header": {json.dumps(header)},\n"rows": [{lines}]}}\n')
    columns = ("tool", "errors", "status", "seconds")
    print_table("compute-sanitizer", columns, (([row[c] for c in columns], row["errors"] != 0) for row in rows))
    for row in rows:
        if row["errors"] != 0:
            typer.echo("\n".join(row["report"]))
    raise typer.Exit(1 if any(row["errors"] != 0 for row in rows) else 0)


if __name__ == "__main__":
    typer.run(command)
