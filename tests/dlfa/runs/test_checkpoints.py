"""The checkpoints of an interrupted run."""

import json

from dlfa.runs.checkpoints import checkpoints_in, complete_facts, mark_complete, newest_checkpoint, remove_checkpoint
from dlfa.runs.run_directory import RunDirectory


def test_folders_of_other_names_are_no_checkpoints(tmp_path):
    for name in ("checkpoint-10", "checkpoint-best", "checkpoint-", "mine-10"):
        (tmp_path / name).mkdir()
    assert checkpoints_in(tmp_path) == [tmp_path / "checkpoint-10"]


def test_a_checkpoint_is_on_the_disk_before_it_counts_as_complete(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("dlfa.files.atomic.sync", synced.append)
    files = [tmp_path / "model.safetensors", tmp_path / "states" / "rng.pth"]
    (tmp_path / "states").mkdir()
    for file in files:
        file.write_bytes(b"weights")
    mark_complete(tmp_path, {"seconds": 1.0})
    assert sorted(synced) == files
    assert complete_facts(tmp_path) == {"seconds": 1.0}


def test_a_checkpoint_that_is_half_removed_is_not_complete(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    (folder / "trainer_state.json").write_text("{}")
    mark_complete(folder, {"seconds": 1.0})
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # killed before it began
    remove_checkpoint(folder)
    assert folder.is_dir()
    assert newest_checkpoint(tmp_path) is None


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
