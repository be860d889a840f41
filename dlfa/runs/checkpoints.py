"""The Trainer's checkpoints: which are whole, which is the newest, and removing them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ..files import atomic
from ..files.json_files import read_object

_COMPLETE = "complete.json"


def checkpoints_in(folder: Path) -> list[Path]:
    """The Trainer's checkpoint folders in `folder`, whole or not."""
    return [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]


def step_of(checkpoint: Path) -> int:
    """The optimiser step of a checkpoint folder."""
    return int(checkpoint.name.rpartition("-")[2])


def mark_complete(checkpoint: Path, facts: dict[str, Any]) -> None:
    """Mark a checkpoint as written to its end, on the disk too, with facts to be read again on resuming."""
    for path in checkpoint.rglob("*"):
        if path.is_file():
            atomic.sync(path)
    atomic.write_json(checkpoint / _COMPLETE, facts)


def complete_facts(checkpoint: Path) -> dict[str, Any]:
    """What `mark_complete` wrote."""
    return read_object(checkpoint / _COMPLETE)


def remove_checkpoint(checkpoint: Path) -> None:
    """Remove a checkpoint; one that is removed half-way no longer counts as complete."""
    (checkpoint / _COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in `folder` that was written to its end; None without one.

    Where the run was moved, the best checkpoint's path that it holds is put right.

    Raises:
        ValueError: the best checkpoint is gone.
    """
    complete = [path for path in checkpoints_in(folder) if (path / _COMPLETE).exists()]
    if not complete:
        return None
    newest = max(complete, key=step_of)
    state_file = newest / "trainer_state.json"
    state = json.loads(state_file.read_text(encoding="utf-8"))
    best = state.get("best_model_checkpoint")
    if best is not None:
        here = folder / Path(best).name
        if not (here / _COMPLETE).exists():
            raise ValueError(f"--resume: the run's best checkpoint {here} is gone; start again with --overwrite")
        if str(here) != best:
            state["best_model_checkpoint"] = str(here)
            atomic.write_json(state_file, state)
    return newest
