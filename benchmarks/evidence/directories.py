"""A run's directory: in what state it is, whose it is while it is being made, and what is recorded beside its results.

Beside what `dlfa train` leaves, a directory holds `claim`, locked by the process that makes the run for as long as that
process lives, and evidence.json: the run's name, group, regime and options, and its attempts with their source.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from dlfa.files import atomic
from dlfa.files.json_files import read_object
from dlfa.models.configuration import DLFAConfig
from dlfa.runs.run_config import Role, RunConfig, fields_of
from dlfa.runs.run_directory import RunDirectory
from dlfa.training.recorded_runs import error_file

from .groups import NOWHERE, PlannedEnsemble, PlannedRun
from .source import hardware

RECORD = "evidence.json"
RERUNS = "reruns"
DONE, FAILED, INTERRUPTED, RUNNING, OTHER, TO_DO = (
    "done", "failed", "interrupted", "running", "other protocol", "to do",
)  # fmt: skip
_CLAIM = "claim"


def protocol(config: Mapping[str, Any]) -> dict[str, Any]:
    """Everything in run.json's configuration that has a say in the result, as far as it is not at its default.

    Task, encoder, seed and languages, which the results themselves tell, are left out, and so are places.
    """
    defaults = {item.name: item.default for item in dataclasses.fields(RunConfig)}
    of_model = {item.name: item.default for item in dataclasses.fields(DLFAConfig)}
    kept = {
        name: value for name, value in fields_of(config, Role.PROTOCOL).items() if value not in (defaults.get(name), [])
    }
    if "intermediate" in kept:
        kept["intermediate"] = [stage.partition(":")[0] for stage in kept["intermediate"]]
    options = {name: value for name, value in config["model_options"].items() if of_model.get(name) != value}
    return kept | {"model_options": options}


def planned_protocol(run: PlannedRun) -> dict[str, Any]:
    """As `protocol`, of a run that is planned."""
    return protocol(run.config(NOWHERE).with_presets().to_json())


def protocol_changes(found: Mapping[str, Any], planned: Mapping[str, Any]) -> str:
    """In what two protocols differ, in words; empty where they do not."""
    before, now = ({**each, **each["model_options"]} for each in (found, planned))
    names = sorted({*before, *now} - {"model_options"})
    return ", ".join(
        f"{name} {before.get(name)} instead of {now.get(name)}" for name in names if before.get(name) != now.get(name)
    )


def changes(run: PlannedRun, output_dir: Path) -> str:
    """In what the run that lies in a planned run's directory differs from it, in words; empty where it does not."""
    directory = RunDirectory(output_dir / run.name)
    if not directory.run_file.exists():
        return ""
    found = directory.read_run()["config"]
    return protocol_changes(protocol(found), planned_protocol(run))


def state_of(run: PlannedRun | PlannedEnsemble, output_dir: Path) -> str:
    """One of the states above, as the run's directory tells; it lies below the directory of all runs."""
    path = output_dir / run.name
    if not path.is_dir():
        return TO_DO
    if RunDirectory(path).results_file.exists():
        return OTHER if isinstance(run, PlannedRun) and changes(run, output_dir) else DONE
    if _is_claimed(path):
        return RUNNING
    if error_file(path).exists():
        return FAILED
    return INTERRUPTED if RunDirectory(path).run_file.exists() else TO_DO


@contextlib.contextmanager
def claim(path: Path) -> Iterator[bool]:
    """Make a run's directory and hold it; yields False where another process holds it.

    The lock is the operating system's, so a process that dies, however it does, holds nothing.
    """
    path.mkdir(parents=True, exist_ok=True)
    with (path / _CLAIM).open("a+b") as file:
        for _ in range(20):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield True
                return
            time.sleep(0.01)  # `_is_claimed` of another process holds it for a moment
        yield False


def _is_claimed(path: Path) -> bool:
    try:
        with (path / _CLAIM).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def read_record(path: Path) -> dict[str, Any]:
    """evidence.json of a run's directory.

    Raises:
        ValueError: it cannot be read.
    """
    return read_object(path / RECORD, ("name", "group", "regime", "attempts"))


def begin_attempt(path: Path, identity: Mapping[str, Any], commit: str) -> None:
    """Write, or add to, a run's record that an attempt at it begins, on what hardware.

    Args:
        path: of the run's directory.
        identity: of the run: `name`, `group`, `regime`, `changed`.
        commit: of the source that was loaded.
    """
    # An attempt that left no configuration left nothing that this one goes on with.
    before = read_record(path)["attempts"] if RunDirectory(path).run_file.exists() and (path / RECORD).exists() else []
    attempt = {"commit": commit, "hardware": hardware(), "threads": torch.get_num_threads(), "seconds": None}
    atomic.write_json(path / RECORD, {**identity, "attempts": [*before, attempt]})


def end_attempt(path: Path, **facts: Any) -> None:
    """Add what is known at the end of the last attempt."""
    record = read_record(path)
    record["attempts"][-1] |= facts
    atomic.write_json(path / RECORD, record)


def finished_directories(output_dir: Path) -> list[Path]:
    """The directories of all finished runs, in the order of their names; repeated runs are not among them."""
    found = []
    for folder, names, files in os.walk(output_dir):
        path = Path(folder)
        if RECORD in files and RunDirectory(path).results_file.exists():
            found.append(path)
        if RECORD in files or path == output_dir / RERUNS:
            names.clear()
    return sorted(found)
