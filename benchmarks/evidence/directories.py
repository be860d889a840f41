"""A run's directory: its state, its owner while it is made, and the record beside its results.

Besides the files of `dlfa train`, a directory has `claim`, which the process that makes the run locks until it ends,
and evidence.json: the run's name, group, regime and options, and its attempts with their source.
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
from .machine import hardware

RECORD = "evidence.json"
RERUNS = "reruns"
DONE, FAILED, INTERRUPTED, RUNNING, OTHER, TO_DO = (
    "done", "failed", "interrupted", "running", "other protocol", "to do",
)  # fmt: skip
_CLAIM = "claim"


def protocol(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values in run.json's configuration that affect the result and differ from their defaults.

    Task, encoder, seed and languages are excluded, because the results contain them, and so are places.
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
    """Return the `protocol` of a planned run."""
    return protocol(run.config(NOWHERE).with_presets().to_json())


def protocol_changes(found: Mapping[str, Any], planned: Mapping[str, Any]) -> str:
    """Describe the differences of two protocols; empty if there are none."""
    before, now = ({**each, **each["model_options"]} for each in (found, planned))
    names = sorted({*before, *now} - {"model_options"})
    return ", ".join(
        f"{name} {before.get(name)} instead of {now.get(name)}" for name in names if before.get(name) != now.get(name)
    )


def changes(run: PlannedRun, output_dir: Path) -> str:
    """Describe how the run in a planned run's directory differs from the plan; empty if it does not."""
    directory = RunDirectory(output_dir / run.name)
    if not directory.run_file.exists():
        return ""
    found = directory.read_run()["config"]
    return protocol_changes(protocol(found), planned_protocol(run))


def state_of(run: PlannedRun | PlannedEnsemble, output_dir: Path) -> str:
    """Return one of the states above, from the run's directory below the directory of all runs."""
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
    """Create a run's directory and lock it; yield False if another process holds the lock.

    The operating system owns the lock, so a process that dies in any way releases it.
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
    """Return the evidence.json of a run's directory.

    Raises:
        ValueError: it cannot be read.
    """
    return read_object(path / RECORD, ("name", "group", "regime", "attempts"))


def begin_attempt(path: Path, identity: Mapping[str, Any], commit: str) -> None:
    """Write the start of an attempt and its hardware to a run's record, which is created if missing.

    Args:
        path: the run's directory.
        identity: the run's `name`, `group`, `regime` and `changed`.
        commit: the commit of the loaded source.
    """
    # An attempt without a configuration left nothing to continue from.
    before = read_record(path)["attempts"] if RunDirectory(path).run_file.exists() and (path / RECORD).exists() else []
    attempt = {"commit": commit, "hardware": hardware(), "threads": torch.get_num_threads(), "seconds": None}
    atomic.write_json(path / RECORD, {**identity, "attempts": [*before, attempt]})


def end_attempt(path: Path, **facts: Any) -> None:
    """Add facts at the end of the last attempt."""
    record = read_record(path)
    record["attempts"][-1] |= facts
    atomic.write_json(path / RECORD, record)


def finished_directories(output_dir: Path) -> list[Path]:
    """Return the directories of all finished runs, sorted by name, without repeated runs."""
    found = []
    for folder, names, files in os.walk(output_dir):
        path = Path(folder)
        if RECORD in files and RunDirectory(path).results_file.exists():
            found.append(path)
        if RECORD in files or path == output_dir / RERUNS:
            names.clear()
    return sorted(found)
