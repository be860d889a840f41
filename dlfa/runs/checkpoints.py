"""The Trainer's checkpoints: marking complete ones, finding the newest, and removing them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ..files import atomic
from ..files.json_files import read_object

_COMPLETE = "complete.json"


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the Trainer's checkpoint folders in `folder`, complete or not."""
    return [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]


def step_of(checkpoint: Path) -> int:
    """Return the optimiser step of a checkpoint folder."""
    return int(checkpoint.name.rpartition("-")[2])


def mark_complete(checkpoint: Path, facts: dict[str, Any]) -> None:
    """Flush a checkpoint to disk and mark it as complete, with facts that are read on resuming."""
    for path in checkpoint.rglob("*"):
        if path.is_file():
            atomic.sync(path)
    atomic.write_json(checkpoint / _COMPLETE, facts)


def complete_facts(checkpoint: Path) -> dict[str, Any]:
    """Return the facts that `mark_complete` wrote."""
    return read_object(checkpoint / _COMPLETE)


def remove_checkpoint(checkpoint: Path) -> None:
    """Remove a checkpoint. If the removal is interrupted, the checkpoint no longer counts as complete."""
    (checkpoint / _COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint in `folder`, or None.

    If the run was moved, this corrects the path of the best checkpoint that the newest one has recorded.

    Raises:
        ValueError: the best checkpoint is missing.
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
