"""Runs whose errors are written to their directories, so that other runs of a series continue."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

from ..files import atomic
from ..runs.run_config import RunConfig
from .shared_inputs import SharedInputs
from .train import fit, prepare


def error_file(run: Path) -> Path:
    """Return the path of the traceback of a failed run with the directory `run`."""
    return run / "error.txt"


def failure_reason(run: Path) -> str:
    """Return the last line of a failed run's traceback."""
    return error_file(run).read_text(encoding="utf-8").strip().split("\n")[-1]


def write_error(run: Path, error: BaseException) -> None:
    """Write the traceback of a failed run to its directory `run`."""
    atomic.write_text(error_file(run), "".join(traceback.format_exception(error)))


def run_recorded(run: RunConfig, shared: Callable[[], SharedInputs], *, keep_model: bool) -> bool:
    """Start or resume a run; an error is written to its directory instead of being raised.

    A run that failed before is started again.

    Args:
        run: the run.
        shared: returns the inputs that it shares with other runs.
        keep_model: save the trained model.

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
