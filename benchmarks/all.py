"""Every suite, one after the other, each in a process of its own; then the table of targets.

    python -m benchmarks.all [--out DIR] [--device cuda|cpu] [--budget-seconds S]

Within 8 minutes on one GPU: a suite that needs less than its share leaves the rest to those after it, one that needs
more skips its last rows, and one that hangs is ended, all of them in time for the table. Each begins with what the
table asks for. `aif`, which can use any time, comes last and has what all others leave. Exit status: 1 where a suite's
was not 0.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from . import targets
from .hardware import ROOT, choose_device, folder_name
from .processes import GRACE_SECONDS, run_limited
from .results import SUITES
from .suite import DEVICE_HELP

# Shares of the time that is there to measure, by estimate: of the rows that targets need, a case of ours takes a second
# or two and each width four to compile, torch.compile ten seconds a case; what it is asked to tune takes minutes.
WEIGHTS = {"memory": 2.5, "step": 2.5, "padding": 2.0, "token": 2.0, "schedule": 2.2, "launch": 12.0, "aif": 20.0}
# What a process needs before its budget begins and after it ends, for imports and plots; and, within its budget, until
# it measures: CUDA starts, and the ceilings are taken.
OVERHEAD_SECONDS, START_SECONDS = 8.0, 6.0
# How far a suite may overrun its budget, as far as there is time for the table at the end; the last suite, which uses
# all of its budget, may overrun by LATE_SECONDS.
EXTRA_SECONDS, LATE_SECONDS = 20.0, 13.0
TABLE_SECONDS = 2.0
LEAST_SECONDS = 5.0
DEFAULT_SECONDS = 470.0


def share(suite: str, remaining: float) -> float:
    """Seconds of budget for a suite when `remaining` are left for it and all after it."""
    after = SUITES[SUITES.index(suite) :]
    weight = WEIGHTS[suite] / sum(WEIGHTS[name] for name in after)
    measuring = remaining - TABLE_SECONDS - LATE_SECONDS - (OVERHEAD_SECONDS + START_SECONDS) * len(after)
    return max(LEAST_SECONDS, START_SECONDS + measuring * weight)


def run_all(folder: Path, device: str, seconds: float) -> dict[str, int | None]:
    """Run every suite, writing `folder`/SUITE.json as it goes.

    Args:
        folder: of the results.
        device: "cuda" or "cpu".
        seconds: for all of them, and the table.

    Returns:
        Exit statuses by suite, None where it ran over its time or found none left.
    """
    end = time.monotonic() + seconds
    statuses: dict[str, int | None] = {}
    for suite in SUITES:
        start = time.monotonic()
        budget = share(suite, end - start)
        command = [sys.executable, "-m", f"benchmarks.{suite}", "--device", device, "--out", str(folder)]
        command += ["--budget-seconds", f"{budget:.0f}"]
        limit = min(budget + OVERHEAD_SECONDS + EXTRA_SECONDS, end - start - GRACE_SECONDS - TABLE_SECONDS)
        if limit <= 0:
            statuses[suite] = None
            typer.echo(f"{suite}: no time left", err=True)
            continue
        statuses[suite] = run_limited(command, limit, cwd=ROOT)
        outcome = "ran over its time" if statuses[suite] is None else f"exit status {statuses[suite]}"
        typer.echo(f"{suite}: {outcome}, {time.monotonic() - start:.0f} s of {budget:.0f} s", err=True)
    return statuses


def command(
    out: Annotated[Path | None, typer.Option(help="Folder of the results; default: benchmarks/results/GPU.")] = None,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "cuda",
    budget_seconds: Annotated[float, typer.Option(min=60, help="For all suites together.")] = DEFAULT_SECONDS,
) -> None:
    """Run every suite and print the table of targets."""
    try:
        chosen = choose_device(device)
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    folder = out or ROOT / "benchmarks" / "results" / folder_name(chosen)
    try:
        statuses = run_all(folder, device, budget_seconds)
    finally:  # though it is interrupted, what there is by then
        if device == "cuda":
            targets.print_targets(folder)
    raise typer.Exit(1 if any(statuses.values()) or None in statuses.values() else 0)


if __name__ == "__main__":
    typer.run(command)
