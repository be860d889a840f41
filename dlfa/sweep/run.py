"""Run a sweep from its configuration and write its record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..files.json_files import read_object
from ..frozen.fingerprints import weights_fingerprint
from ..processes import check_alone
from ..progress import progress_bar
from ..runs.directory_lock import LOCK, exclusive
from ..runs.run_config import differences
from ..runs.run_directory import SWEEP, RunDirectory
from ..tasks.loading import TaskData
from ..training.intermediate import IntermediateRun
from ..training.shared_inputs import (
    SharedInputs,
    check_token_ids,
    compute_states,
    load_data,
    load_encoder,
    load_shared_inputs,
)
from .cells import ProcessEndedError, default_processes, run_cells
from .config import Cell, SweepConfig
from .record import SweepRecord


def run_sweep(
    config: SweepConfig, *, keep_models: bool = False, processes: int | None = None, progress: bool = False
) -> dict[str, Any]:
    """Run the missing cells of a sweep.

    Complete cells are kept, interrupted ones are resumed and failed ones are run again. Each process reads the inputs
    that cells share (data, tokenised data, a frozen encoder and its states) once.

    Args:
        config: the sweep.
        keep_models: save each cell's model.
        processes: number of runs at a time; None uses one per GPU. Without a GPU, None uses one; with a frozen encoder,
            whose runs gain nothing from several threads, up to one per thread if there are many runs.
        progress: show a bar on standard error.

    Returns:
        The content of sweep.json.

    Raises:
        ValueError, TypeError: invalid input, the directory contains another sweep, or an incomplete one with other data
            or another encoder; raised before any training.
        ProcessEndedError: one of several processes was killed; the same call resumes the sweep.
    """
    if processes is not None and processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}")
    check_alone("a sweep starts its own processes, one a GPU")
    config = config.resolved()
    with exclusive(config.output_dir):
        return _run_held(config, keep_models, processes, progress)


def _run_held(config: SweepConfig, keep_models: bool, processes: int | None, progress: bool) -> dict[str, Any]:
    """`run_sweep`, in a directory that no other process works in."""
    _check_directory(config)
    RunDirectory(config.output_dir).remove_leftovers()
    record = SweepRecord(config)
    base = config.base.with_presets()
    data = load_data(base)
    record.check({"data_sha256": data.sha256})
    todo = [cell for cell in config.cells() if record.state_of(cell) != "done"]
    if keep_models:
        _check_models([cell for cell in config.cells() if cell not in todo], config)
    for cell in config.cells():
        if cell not in todo:  # it may have been killed after writing results and before removing checkpoints
            RunDirectory(config.run_config(cell).output_dir).remove_leftovers()
    if todo:
        shared: SharedInputs | None = _checked_inputs(config, data, record, todo, progress)
        count = min(processes or default_processes(config, len(todo)), len(todo))
        if count > 1:  # each process reads its own
            del data
            shared = None
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with progress_bar(*columns, shown=progress) as bar:
            done = bar.add_task("sweep", total=len(config.cells()), completed=len(config.cells()) - len(todo))
            try:
                for cell in run_cells(config, todo, shared, keep_models, count, _describer(bar, done)):
                    record.write()
                    bar.advance(done)
                    if record.state_of(cell) == "failed":
                        bar.console.print(f"{cell.name} failed: {record.reason(cell)}", markup=False, highlight=False)
            except ProcessEndedError:
                record.write()
                raise
    return record.write()


def _checked_inputs(
    config: SweepConfig, data: TaskData, record: SweepRecord, todo: Sequence[Cell], progress: bool
) -> SharedInputs:
    """Read and check all inputs of the runs, claim the directory for this configuration, then compute the states."""
    base, intermediate_run = config.base.with_presets(), IntermediateRun.of(config.base)
    shared = load_shared_inputs(base, data)
    encoder = (shared.encoder or load_encoder(base.model)).encoder
    stages = [] if intermediate_run is None else intermediate_run.check(encoder, progress=progress)
    check_token_ids(shared, encoder, progress=progress)
    sha256 = shared.encoder_sha256 or weights_fingerprint(encoder)
    record.claim({"data_sha256": data.sha256, "encoder_sha256": sha256, "intermediate_data_sha256": stages})
    record.write()
    compute_states(shared, ({**base.model_options, **cell.model_options} for cell in todo), progress=progress)
    return shared


def _check_models(complete: Sequence[Cell], config: SweepConfig) -> None:
    """Raise ValueError if one of the `complete` cells, which are not trained again, has no model."""
    bare = [cell.name for cell in complete if not (config.run_config(cell).output_dir / "config.json").exists()]
    if bare:
        raise ValueError(
            f"--keep-models: {len(bare)} complete runs in {config.output_dir / 'cells'} have no model, such as "
            f"{bare[0]}; remove their folders to train them again, give a new directory, or leave it out"
        )


def _describer(bar: Progress, task: Any) -> Callable[[Cell], None]:
    return lambda cell: bar.update(task, description=cell.name)


def _check_directory(config: SweepConfig) -> None:
    """Raise an error if the directory contains anything else, or a file where a run's folder is to be."""
    path, now = config.output_dir / SWEEP, config.to_json()
    if path.exists():
        before = read_object(path, ("config", "cells"))["config"]
        if changed := differences(before, now):
            shown = "; ".join(f"{name}: {before.get(name)!r} there, {now.get(name)!r} now" for name in changed)
            raise ValueError(f"--output-dir {config.output_dir} holds a sweep of another configuration ({shown})")
        folders = [config.run_config(cell).output_dir for cell in config.cells()]
        RunDirectory(config.output_dir).check_folders(config.output_dir / "cells", *folders)
        return
    partial = RunDirectory(config.output_dir).partial_files()  # left by a sweep that was killed at its start
    if any(found.name != LOCK and found not in partial for found in config.output_dir.iterdir()):
        raise ValueError(f"--output-dir {config.output_dir} holds something else than a sweep; give a new directory")
