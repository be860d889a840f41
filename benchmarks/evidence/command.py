"""The evidence: make, record and repeat the plan's runs, and write one CSV file and RESULTS.md.

    python -m benchmarks.evidence --list
    python -m benchmarks.evidence --run 'pos-frozen/*' --model ENCODER --data ROOT
    python -m benchmarks.evidence --collect --write
    python -m benchmarks.evidence --rerun pos-frozen/aif-select-6/seed1 --model ENCODER --data ROOT

ROOT holds one folder a task (udpos, uner, sick). Several processes may run at once, even during a collection. The plan
is plan.py beside this file; if files differed from the commit when a run was made, its commit ends in "-dirty".
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.markup import escape

from dlfa.runs.run_directory import RunDirectory
from dlfa.terminal import fail, one_line_errors, quiet_libraries

from ..hardware import ROOT
from ..output import print_table
from .directories import state_of
from .groups import Places, PlannedEnsemble, PlannedRun, planned_runs
from .plan import PLAN
from .rows import ENSEMBLE, Row, collect, merged, read_rows, row_of, write_rows
from .runner import make_ensembles, make_runs, repeat

RESULTS_DIR = Path("benchmarks/results/evidence")


def main(
    list_runs: Annotated[bool, typer.Option("--list", help="The runs of the plan with their state.")] = False,
    run: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Make the runs of these names, * and ? allowed.")
    ] = None,
    rerun: Annotated[
        str | None, typer.Option(metavar="NAME", help="Make a run once more and compare it with what is recorded.")
    ] = None,
    collect_runs: Annotated[bool, typer.Option("--collect", help="Put all finished runs into runs.csv.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Make RESULTS.md from runs.csv and the plan.")] = False,
    model: Annotated[str | None, typer.Option(help="Encoder: Hub id or directory.")] = None,
    data: Annotated[Path | None, typer.Option(help="A folder that holds a folder a task.")] = None,
    output_dir: Annotated[Path, typer.Option(help="Of the runs.")] = Path("runs/evidence"),
    states_cache: Annotated[
        Path | None, typer.Option(help="Of frozen encoders' hidden states; default: $DLFA_CACHE, else the user's.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Torch's, on the CPU; default: torch's own choice.")] = None,
    root: Annotated[Path, typer.Option(help="Of the tree whose RESULTS.md and runs.csv are meant.")] = ROOT,
) -> None:
    """List, make, repeat, collect and publish the runs of the plan."""
    quiet_libraries()
    with one_line_errors():
        if not (list_runs or run or rerun or collect_runs or write):
            raise ValueError("nothing to do: give --list, --run PATTERN, --rerun NAME, --collect or --write")
        if threads is not None:
            if threads < 1:
                raise ValueError(f"--threads must be at least 1, got {threads}")
            torch.set_num_threads(threads)
        table = root / RESULTS_DIR / "runs.csv"
        if list_runs:
            _list(*planned_runs(PLAN), output_dir)
        if run:
            _make(*planned_runs(PLAN, run), _places(model, data, output_dir, states_cache))
        if rerun:
            _repeat(rerun, _places(model, data, output_dir, states_cache), read_rows(table))
        if collect_runs:
            rows = collect(output_dir)
            everything = merged(read_rows(table), rows)
            write_rows(table, everything)
            typer.echo(f"{table}: {len(everything)} runs, {len(rows)} of them from {output_dir}")
        if write:
            from .document import write_document

            typer.echo(f"written: {write_document(root, PLAN, read_rows(table))}")


def _places(model: str | None, data: Path | None, output_dir: Path, states_cache: Path | None) -> Places:
    if model is None or data is None:
        raise ValueError("--model and --data must be given to make runs")
    if not data.is_dir():
        raise ValueError(f"--data: {data} is no directory")
    return Places(model, data, output_dir, states_cache)


def _list(runs: list[PlannedRun], ensembles: list[PlannedEnsemble], output_dir: Path) -> None:
    by_group: dict[str, Counter[str]] = {}
    everything: list[PlannedRun | PlannedEnsemble] = [*runs, *ensembles]
    for each in everything:
        state = state_of(each, output_dir)
        by_group.setdefault(each.group.name, Counter())[state] += 1
        typer.echo(f"{state:15} {each.name}")
    for name, states in by_group.items():
        typer.echo(f"{name}: {_counts(states)}")


def _counts(states: Counter[str]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()) if count)


def _say(line: str) -> None:
    typer.echo(f"{time.strftime('%H:%M:%S')} {line}")


def _make(runs: list[PlannedRun], ensembles: list[PlannedEnsemble], places: Places) -> None:
    states = make_runs(runs, places, _say) + make_ensembles(ensembles, places, _say)
    typer.echo(_counts(states))
    if states["failed"]:
        fail(
            f"{states['failed']} of {len(runs) + len(ensembles)} runs failed; error.txt in a run's directory tells why",
            status=1,
        )


def _repeat(name: str, places: Places, rows: list[Row]) -> None:
    """Repeat a run from its record in the CSV file or its directory, and show both results."""
    before = {row["name"]: row for row in rows}.get(name)
    if before is None and RunDirectory(places.output_dir / name).results_file.exists():
        before = row_of(places.output_dir / name)
    if before is None:
        raise ValueError(f"--rerun: no finished run is named {name!r}, neither in runs.csv nor in {places.output_dir}")
    if before["fusion"] == ENSEMBLE:
        raise ValueError(f"--rerun: {name} is an ensemble; it is made again by --run once its directory is removed")
    try:
        path = repeat(before, places)
    except RuntimeError as error:
        fail(str(error), status=1)
    show_difference(before, row_of(path))
    typer.echo(f"repeated in {path}")


def show_difference(before: Row, now: Row) -> None:
    """Print old and new figures of a run side by side: scores in percent, their difference in points."""
    scores = [name for name in now if ":" in name and name in before]
    names = ["dev", "average", "average_zero_shot", *sorted(scores)]
    lines: list[tuple[list[str], bool]] = []
    for name in names:
        if before[name] and now[name]:
            old, new = 100 * float(before[name]), 100 * float(now[name])
            lines.append(([name, f"{old:.3f}", f"{new:.3f}", f"{new - old:+.3f}"], False))
    facts = ("steps", "seconds_per_step", "hardware", "threads", "backend", "dtype", "torch", "transformers", "commit")
    for name in facts:
        lines.append(([name, escape(before[name]), escape(now[name]), "" if before[name] == now[name] else "!"], False))
    print_table(before["name"], ("figure", "recorded", "repeated", "difference"), lines)
