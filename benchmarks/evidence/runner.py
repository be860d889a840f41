"""Make the runs of a plan, one after another in one process, with the workbench's own training code."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlfa.evaluation.ensemble import EnsembleConfig, run_ensemble
from dlfa.files import atomic
from dlfa.files.json_files import read_object
from dlfa.runs.run_config import RunConfig
from dlfa.runs.run_directory import RunDirectory
from dlfa.training.recorded_runs import error_file, failure_reason, run_recorded
from dlfa.training.shared_inputs import SharedInputs

from ..hardware import source_commit
from .directories import DONE, OTHER, RERUNS, begin_attempt, changes, claim, end_attempt, state_of
from .groups import Places, PlannedEnsemble, PlannedRun
from .rows import Row, config_of
from .shared_inputs import SharedInputsCache


def make_runs(runs: Sequence[PlannedRun], places: Places, say: Callable[[str], None]) -> Counter[str]:
    """Make the missing ones of `runs`.

    A finished run is kept, an interrupted one resumes, one that failed before this call restarts, and one that another
    process is making is skipped.

    Args:
        runs: the runs, in the order in which they are made.
        places: locations of encoder, data and runs.
        say: called with one line for each run that was made or failed.

    Returns:
        The number of runs in each state at the end.
    """
    begun, commit = time.time(), source_commit()
    states = [state_of(run, places.output_dir) for run in runs]
    todo = [run for run, state in zip(runs, states, strict=True) if state not in (DONE, OTHER)]
    shared = SharedInputsCache([run.config(places) for run in todo])
    for number, (run, state) in enumerate(zip(runs, states, strict=True), 1):
        outcome = None
        if state == OTHER:
            found = changes(run, places.output_dir)
            outcome = f"another protocol lies there ({found}); remove it, or name the group anew"
        elif state != DONE:
            outcome = _make(run, places, shared, commit, begun)
        if outcome is not None:
            say(f"[{number}/{len(runs)}] {run.name}: {outcome}")
    return Counter(state_of(run, places.output_dir) for run in runs)


def _make(run: PlannedRun, places: Places, shared: SharedInputsCache, commit: str, begun: float) -> str | None:
    """Make one run and describe the outcome; None if another process made it meanwhile."""
    config = run.config(places)
    path = config.output_dir
    with claim(path) as mine:
        if not mine:
            return "another process is making it"
        failure = error_file(path)
        if RunDirectory(path).results_file.exists() or (failure.exists() and failure.stat().st_mtime >= begun):
            return None
        if changes(run, places.output_dir):
            RunDirectory(path).clear()
        seconds = _attempt(config, run.identity, shared, commit, keep_model=run.group.keep_models)
        if seconds is None:
            return f"failed: {failure_reason(path)}"
        return _described(read_object(RunDirectory(path).results_file, ("languages",)), seconds)


def _attempt(
    config: RunConfig, identity: Mapping[str, Any], shared: SharedInputsCache, commit: str, *, keep_model: bool
) -> float | None:
    """Run `config`, whose directory is locked, and update its record; return the seconds, or None if it failed."""
    path = config.output_dir
    begin_attempt(path, identity, commit)
    begun = 0.0

    def loaded_inputs() -> SharedInputs:
        nonlocal begun
        loaded = shared.of(config)
        begun = time.monotonic()
        return loaded

    made = run_recorded(config, loaded_inputs, keep_model=keep_model)
    gc.collect()
    if not made:
        return None
    seconds = round(time.monotonic() - begun, 1)
    end_attempt(path, seconds=seconds, train_examples=len(shared.of(config).data.train))
    return seconds


def make_ensembles(ensembles: Sequence[PlannedEnsemble], places: Places, say: Callable[[str], None]) -> Counter[str]:
    """Make the missing ones of `ensembles`; one with missing runs is not made yet.

    Returns:
        The number of ensembles in each state at the end.
    """
    commit = source_commit()
    for ensemble in ensembles:
        path = places.output_dir / ensemble.name
        absent = [name for name in ensemble.members if not (places.output_dir / name / "config.json").exists()]
        if state_of(ensemble, places.output_dir) == DONE:
            continue
        if absent:
            say(f"{ensemble.name} waits for the models of {', '.join(absent)}")
            continue
        with claim(path) as mine:
            if mine and not RunDirectory(path).results_file.exists():
                say(f"{ensemble.name}: {_make_ensemble(ensemble, places, path, commit)}")
    return Counter(state_of(ensemble, places.output_dir) for ensemble in ensembles)


def _make_ensemble(ensemble: PlannedEnsemble, places: Places, path: Path, commit: str) -> str:
    begun = time.monotonic()
    begin_attempt(path, ensemble.identity, commit)
    members = [places.output_dir / name for name in ensemble.members]
    first = RunDirectory(members[0]).read_run()["config"]
    error_file(path).unlink(missing_ok=True)
    try:
        results = run_ensemble(
            EnsembleConfig(
                runs=tuple(members),
                output_dir=path,
                data_dir=places.data / ensemble.group.task,
                languages=tuple(first["languages"]),
                max_eval_examples=first["max_eval_examples"],
            )
        )
    except (ValueError, OSError) as error:
        atomic.write_text(error_file(path), f"{error}\n")
        return f"failed: {error}"
    end_attempt(path, seconds=round(time.monotonic() - begun, 1))
    return f"zero-shot {results['metric']} {_percent(results['average_zero_shot'])}"


def _described(results: dict[str, Any], seconds: float) -> str:
    """Describe a finished run in half a line."""
    parts = [f"dev {_percent(results['train'].get('best_dev'))}"]
    for name, means in results["averages"].items():
        parts.append(f"zero-shot {name} {_percent(means['zero_shot'])}")
    return ", ".join([*parts, f"{seconds:.0f} s"])


def repeat(recorded: Row, places: Places) -> Path:
    """Repeat a run of the CSV and return its directory, a new one below OUTPUT_DIR/reruns.

    Raises:
        RuntimeError: it failed, or another process is repeating it; the message has the reason and the directory.
    """
    folder = places.output_dir / RERUNS / recorded["name"]
    number = next(number for number in itertools.count(1) if not (folder / str(number)).exists())
    again = dataclasses.replace(config_of(recorded, places), output_dir=folder / str(number))
    identity = {name: recorded[name] for name in ("name", "group", "regime")}
    identity["changed"] = json.loads(recorded["changed"])
    with claim(again.output_dir) as mine:
        if not mine:
            raise RuntimeError(f"another process is repeating {recorded['name']} in {again.output_dir}")
        if _attempt(again, identity, SharedInputsCache([again]), source_commit(), keep_model=False) is None:
            raise RuntimeError(f"the run in {again.output_dir} failed: {failure_reason(again.output_dir)}")
    return again.output_dir


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
