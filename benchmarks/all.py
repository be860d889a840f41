"""Run the suites that targets need, one after another, each in its own process; then print the table of targets.

    python -m benchmarks.all [--out DIR] [--device cuda|cpu] [--budget-seconds S]

The time limit is 8 minutes on one GPU. A suite that needs less than its share leaves the rest to later suites, one that
needs more skips its last rows, and one that hangs is killed in time for the table. Each starts with the rows that the
table needs. Of all suites `schedule` alone, which it does not need, is not run. `aif`, which can use any amount of
time, comes last and gets the time that is left. Exit status: 1 if that of a suite was not 0.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from dlfa.terminal import one_line_errors

from . import targets
from .hardware import ROOT, choose_device, folder_name
from .processes import GRACE_SECONDS, run_limited
from .suite import DEVICE_HELP

# The suites in their order, with estimated shares of the time for measurements: of the rows that targets need, a case
# of ours takes a second or two and each width four to compile; torch.compile takes ten seconds a case, and minutes with
# tuning, which `launch` and `aif` need once each.
WEIGHTS = {"memory": 2.4, "step": 2.0, "padding": 2.2, "token": 1.8, "launch": 24.0, "aif": 24.0}
# Seconds of a process outside its budget, for imports and plots; and inside its budget before measurements, to start
# CUDA and measure the ceilings.
OVERHEAD_SECONDS, START_SECONDS = 8.0, 6.0
# How far a suite may overrun its budget, if time for the table remains; the last suite, which uses all of its budget,
# may overrun by LATE_SECONDS.
EXTRA_SECONDS, LATE_SECONDS = 20.0, 13.0
TABLE_SECONDS = 2.0
LEAST_SECONDS = 5.0
DEFAULT_SECONDS = 470.0


def share(suite: str, remaining: float) -> float:
    """Return a suite's budget in seconds when `remaining` are left for it and all later suites."""
    names = list(WEIGHTS)
    after = names[names.index(suite) :]
    weight = WEIGHTS[suite] / sum(WEIGHTS[name] for name in after)
    measuring = remaining - TABLE_SECONDS - LATE_SECONDS - (OVERHEAD_SECONDS + START_SECONDS) * len(after)
    return max(LEAST_SECONDS, START_SECONDS + measuring * weight)


def run_all(folder: Path, device: str, seconds: float) -> dict[str, int | None]:
    """Run the suites of `WEIGHTS`, writing `folder`/SUITE.json as it goes.

    Args:
        folder: of the results.
        device: "cuda" or "cpu".
        seconds: the time limit of all suites and the table.

    Returns:
        Exit statuses by suite; None if it exceeded its time or no time was left.
    """
    end = time.monotonic() + seconds
    statuses: dict[str, int | None] = {}
    for suite in WEIGHTS:
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
    """Run the suites and print the table of targets."""
    with one_line_errors():
        chosen = choose_device(device)
    folder = out or ROOT / "benchmarks" / "results" / folder_name(chosen)
    try:
        statuses = run_all(folder, device, budget_seconds)
    finally:  # even if interrupted, print the results so far
        if device == "cuda":
            targets.print_targets(folder)
    raise typer.Exit(1 if any(statuses.values()) or None in statuses.values() else 0)


if __name__ == "__main__":
    typer.run(command)
