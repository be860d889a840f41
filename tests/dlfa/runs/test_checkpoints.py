"""The checkpoints of an interrupted run."""

import json

from dlfa.runs.checkpoints import mark_complete, newest_checkpoint
from dlfa.runs.run_directory import RunDirectory


def test_only_complete_checkpoints_are_resumed(tmp_path):
    directory = RunDirectory(tmp_path)
    assert newest_checkpoint(directory.checkpoints) is None
    for step in (9, 10, 20):
        folder = directory.checkpoints / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        best = "/elsewhere/checkpoints/checkpoint-9"
        (folder / "trainer_state.json").write_text(json.dumps({"best_model_checkpoint": best}))
        if step < 20:  # the newest was cut short
            mark_complete(folder, {"seconds": 1.0})
    newest = newest_checkpoint(directory.checkpoints)
    assert newest == directory.checkpoints / "checkpoint-10"
    state = json.loads((newest / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(directory.checkpoints / "checkpoint-9")
