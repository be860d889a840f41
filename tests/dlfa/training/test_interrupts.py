"""SIGTERM amid training and amid a sweep: nothing half-written, and the same results after going on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from tiny_tasks import make_encoder, make_udpos
from typer.testing import CliRunner

from dlfa import DLFAForTokenClassification
from dlfa.cli import app

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Options of small runs; long enough to be met in the middle."""
    flags = {
        "task": "udpos", "model": make_encoder(tmp_path_factory.mktemp("encoder")),
        "data-dir": make_udpos(tmp_path_factory.mktemp("udpos")),
        "learning-rate": 0.01, "epochs": 20, "batch-size": 4, "gradient-accumulation": 1, "max-length": 32,
        "save-steps": 20,
    }  # fmt: skip
    given = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    return ["--quiet", *given]


def invoke(*arguments: object) -> None:
    result = CliRunner().invoke(app, [str(part) for part in arguments])
    assert result.exit_code == 0, result.output


def refusal(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(part) for part in arguments])
    assert result.exit_code == 2
    return result.stderr


def terminate_when(reached: Callable[[], bool], *arguments: object) -> None:
    """Start `dlfa`, and end it by SIGTERM as soon as `reached`; whatever it started ends too."""
    command = [sys.executable, "-m", "dlfa", *(str(part) for part in arguments)]
    # With as many threads as this process, which goes on: sums are rounded differently by others.
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())})
    try:
        deadline = time.monotonic() + 600  # a crowded machine takes minutes to import everything
        while not reached():
            assert process.poll() is None, "it ended before it could be interrupted"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
        assert psutil.wait_procs(children, timeout=60)[1] == []
    finally:
        process.kill()


def facts(run: Path) -> tuple[dict, float, int]:
    """What does not depend on the clock."""
    results = json.loads((run / "results.json").read_text())
    return results["languages"], results["train"]["loss"], results["train"]["best_step"]


@pytest.mark.parametrize(
    "more", [["--freeze-encoder"], ["--epochs", "10"], ["--epochs", "10", "--group-by-length"]], ids=" ".join
)
def test_run(options, tmp_path, more):
    cache = ["--states-cache", tmp_path / "cache"] if "--freeze-encoder" in more else []
    train = ["train", *options, *more, *cache, "--fusion-layer", 1, "--output-dir"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    terminate_when(lambda: any(killed.glob("checkpoints/*/complete.json")), *train, killed)
    assert not (killed / "results.json").exists()
    assert not (killed / "config.json").exists()
    assert "the run there is not complete; go on with dlfa train --resume" in refusal("evaluate", killed)
    assert "already holds a run" in refusal(*train, killed)
    invoke(*train, killed, "--resume")
    invoke(*train, whole)
    assert facts(killed) == facts(whole)
    assert not (killed / "checkpoints").exists()
    resumed, expected = (DLFAForTokenClassification.from_pretrained(run).state_dict() for run in (killed, whole))
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_sweep(options, tmp_path):
    frozen = ["--freeze-encoder", "--states-cache", tmp_path / "cache"]
    sweep = ["sweep", *options, *frozen, "--fusion-layers", "0,1", "--seeds", "1", "--output-dir"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    cells = killed / "cells"
    second = cells / "aif-gate-layer0-seed1"
    terminate_when(lambda: any(second.glob("checkpoints/*/complete.json")), *sweep, killed)
    there = json.loads((killed / "sweep.json").read_text())
    assert [cell["state"] for cell in there["cells"]] == ["done", "to do", "to do"]
    assert not (second / "results.json").exists()
    done = cells / "last-seed1" / "results.json"
    kept = facts(done.parent), done.stat().st_mtime_ns
    invoke(*sweep, killed)
    invoke(*sweep, whole)
    assert (facts(done.parent), done.stat().st_mtime_ns) == kept
    ended = json.loads((killed / "sweep.json").read_text())
    assert {cell["state"] for cell in ended["cells"]} == {"done"}
    for cell in ended["cells"]:
        assert facts(cells / cell["name"]) == facts(whole / "cells" / cell["name"]), cell["name"]


@pytest.mark.slow
def test_sweep_of_two_processes(options, tmp_path):
    frozen = ["--freeze-encoder", "--states-cache", tmp_path / "cache", "--processes", "2"]
    sweep = ["sweep", *options, *frozen, "--fusion-layers", "0,1", "--seeds", "1", "--output-dir"]
    killed = tmp_path / "killed"
    terminate_when(lambda: any(killed.glob("cells/*/checkpoints/*/complete.json")), *sweep, killed)
    assert "done" not in {cell["state"] for cell in json.loads((killed / "sweep.json").read_text())["cells"]}
    invoke(*sweep, killed)
    assert {cell["state"] for cell in json.loads((killed / "sweep.json").read_text())["cells"]} == {"done"}
