"""Two processes in one directory: the second is refused, and a file that a killed one left is in nobody's way."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from dlfa.cli import app
from dlfa.evaluation.ensemble import EnsembleConfig, run_ensemble
from dlfa.runs.directory_lock import LOCK, exclusive

ROOT = Path(__file__).resolve().parents[3]
HOLD = """
import sys, time
from pathlib import Path
from dlfa.runs.directory_lock import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds a directory."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_first_process_of_several_holds_the_directory_for_all(tmp_path, monkeypatch):
    with exclusive(tmp_path):
        monkeypatch.setattr("dlfa.runs.directory_lock.process_state", lambda: SimpleNamespace(is_main_process=False))
        with exclusive(tmp_path):
            assert (tmp_path / LOCK).exists()
        assert (tmp_path / LOCK).exists()


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_the_second_process_is_refused(encoder, data_dir, tmp_path, holder, command):
    more = ["--fusion-layer", "1"] if command == "train" else ["--fusion-layers", "1"]
    arguments = ["--task", "udpos", "--model", encoder, "--data-dir", data_dir, "--output-dir", tmp_path / "out", *more]
    result = CliRunner().invoke(app, [command, *map(str, arguments), "--quiet"])
    assert result.exit_code == 2
    assert "is in use by another process" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == [LOCK]


def test_an_ensemble_is_refused_a_directory_in_use(tmp_path, holder):
    with pytest.raises(ValueError, match="in use by another process"):
        run_ensemble(EnsembleConfig(runs=(tmp_path / "a", tmp_path / "b"), output_dir=tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [LOCK]


def test_a_killed_process_holds_nothing(tmp_path, holder):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="in use"), exclusive(out):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (out / LOCK).exists()
    with exclusive(out):
        assert (out / LOCK).exists()
    assert list(out.iterdir()) == []


def test_what_was_made_for_nothing_goes_again(tmp_path):
    with pytest.raises(RuntimeError), exclusive(tmp_path / "a" / "b"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with exclusive(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "file").write_text("")
    assert os.listdir(tmp_path / "a" / "b") == ["file"]


def test_a_lock_on_a_file_that_was_removed_meanwhile_counts_for_nothing(tmp_path, monkeypatch):
    path, lock, removed = tmp_path / LOCK, fcntl.flock, []

    def flock(descriptor, how):
        if not removed:
            removed.append(path.unlink())
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(ValueError, match="in use"), exclusive(tmp_path):
        pass
    with exclusive(tmp_path):
        assert path.exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_does_without(tmp_path, monkeypatch, number):
    def flock(descriptor, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with exclusive(tmp_path / "out"):
        (tmp_path / "out" / "file").write_text("")
    assert os.listdir(tmp_path / "out") == ["file"]


def test_a_directory_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def flock(descriptor, how):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", flock)
    message = r"--output-dir .*out cannot be written: Input/output error"
    with pytest.raises(ValueError, match=message), exclusive(tmp_path / "out"):
        pass
