"""One of many runs: what goes wrong in it is written down in its directory, and the others go on."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

from ..files import atomic
from ..runs.run_config import RunConfig
from .shared_inputs import SharedInputs
from .train import fit, prepare


def error_file(run: Path) -> Path:
    """Where a run that failed, in the directory `run`, has its traceback."""
    return run / "error.txt"


def failure_reason(run: Path) -> str:
    """The last line of a failed run's traceback."""
    return error_file(run).read_text(encoding="utf-8").strip().split("\n")[-1]


def write_error(run: Path, error: BaseException) -> None:
    """Write down why the run in the directory `run` failed."""
    atomic.write_text(error_file(run), "".join(traceback.format_exception(error)))


def run_recorded(run: RunConfig, shared: Callable[[], SharedInputs], *, keep_model: bool) -> bool:
    """Run, or go on with, one of many runs; whatever goes wrong in it is written down in its directory.

    One that failed before starts anew.

    Args:
        run: the run.
        shared: gives what it shares with others.
        keep_model: write the trained model.

    Returns:
        Whether the run is complete.
    """
    failed_before = error_file(run.output_dir)
    again = failed_before.exists()
    failed_before.unlink(missing_ok=True)
    try:
        prepared = prepare(run, overwrite=again, resume=not again, shared=shared())
        if prepared is not None:
            fit(prepared, keep_model=keep_model)
    except Exception as error:
        write_error(run.output_dir, error)
        return False
    return True
