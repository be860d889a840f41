"""Shared parts of commands on a saved run: its task option, loading it, and the table of its results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..terminal import is_first_process, print_table, quiet_libraries

if TYPE_CHECKING:
    from ..evaluation.saved_runs import SavedRun

TaskName = Annotated[str | None, typer.Option("--task", help="A task that `dlfa tasks` lists; default: the run's own.")]


def load_saved_run(model_dir: Path, task: str | None, max_length: int | None) -> SavedRun:
    """Load the run saved in `model_dir` by `evaluation.saved_runs.load_run`, without the libraries' messages."""
    quiet_libraries()
    from ..evaluation.saved_runs import load_run

    return load_run(model_dir, task, max_length)


def show_results(results: dict[str, Any]) -> None:
    """Print the table, on the first process only."""
    if not is_first_process():
        return
    from ..evaluation.tables import language_table

    print_table(language_table(results))
