"""The session on a GPU that runs everything in parts, and keeps what there is."""

from __future__ import annotations

import importlib.util
import re
import sys
import tarfile
import time
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

pytest.importorskip("triton", reason="triton is there on Linux only")

from benchmarks import gpu_session
from benchmarks.gpu_session import Part, Step
from benchmarks.hardware import ROOT
from benchmarks.processes import run_limited


def test_session_goes_on_and_keeps_what_there_is(tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    (work / "results").mkdir(parents=True)
    python = (sys.executable, "-c")
    save = f"open({str(work / 'results' / 'aif.json')!r}, 'w').write('half'); print('began', flush=True)"
    planned = [
        Step("fails", (*python, "print('told why'); raise SystemExit(4)"), 1.0, grace=1.0),
        Step("hangs", (*python, f"{save}; import time; time.sleep(60)"), 1.0, grace=1.0),
        Step("missing", ("no-such-program-anywhere",), 1.0, grace=1.0),
        Step("works", (*python, "print('given', {seconds})"), 1.0, grace=1.0),
    ]
    start = time.monotonic()
    statuses = gpu_session.run_session(planned, work, out, gpu_session.RESERVE_SECONDS + 12, "suites")
    assert time.monotonic() - start < 20
    assert statuses == {"fails": 4, "hangs": None, "missing": 127, "works": 0}
    assert {path.name for path in out.iterdir()} == {"suites.tar.gz", "suites.txt"}
    summary = (out / "suites.txt").read_text()
    for said in ("fails: exit status 4", "hangs: ran over its time", "told why", "began", "works: exit status 0"):
        assert said in summary
    with tarfile.open(out / "suites.tar.gz") as archive:
        names = set(archive.getnames())
        kept = archive.extractfile("results/aif.json")
        assert kept is not None
        assert kept.read() == b"half"
    logs = {"1-fails.log", "2-hangs.log", "3-missing.log", "4-works.log"}
    assert names == {"results/aif.json", *logs}


def test_session_without_time(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    planned = [Step("late", (sys.executable, "-c", "raise SystemExit(0)"), 1.0)]
    assert gpu_session.run_session(planned, tmp_path / "work", tmp_path / "out", 1.0, "checks") == {"late": None}
    assert "late: no time left" in (tmp_path / "out" / "checks.txt").read_text()


def test_session_steps_name_files_and_modules_that_exist(tmp_path: Path) -> None:
    names = {
        Part.CHECKS: ["tests", "sanitizer"],
        Part.SUITES: ["compile", "traffic", "traffic of groups", "suites"],
    }
    for part in Part:
        planned = gpu_session.steps(tmp_path, part)
        assert [step.name for step in planned] == names[part]
        for step in planned:
            assert step.command[:2] == (sys.executable, "-m")
            module = step.command[2]
            assert module == "pytest" or (ROOT / f"{module.replace('.', '/')}.py").is_file()
            assert module in ("pytest", "benchmarks.precompile") or gpu_session.BUDGET in step.command
    files = [Path(word) for word in gpu_session.kernel_tests() if word.endswith(".py")]
    assert [path.name for path in files[:2]] == list(gpu_session.FIRST_TESTS)
    assert {path.name for path in files} | {*gpu_session.TESTS_WITHOUT_GPU} == {
        path.name for path in (ROOT / "tests" / "dlfa_kernels").glob("test_*.py")
    }


def test_each_part_has_a_budget_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def note(planned: list[Step], work: Path, out: Path, seconds: float, name: str) -> dict[str, int]:
        ran.append((name, len(planned), seconds))
        return {}

    monkeypatch.setattr(gpu_session, "choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(gpu_session, "run_session", note)
    app = typer.Typer()
    app.command()(gpu_session.command)
    for options in (("--part", "suites", "--budget-seconds", "570"), ("--part", "suites"), ("--part", "checks")):
        assert CliRunner().invoke(app, ["--out", str(tmp_path), *options]).exit_code == 0
    checks, suites = (gpu_session.PART_SECONDS[part] for part in (Part.CHECKS, Part.SUITES))
    assert ran == [("suites", 4, 570), ("suites", 4, suites), ("checks", 2, checks)]
    assert checks + suites + 2 * gpu_session.START_SECONDS <= 12.2 * 60
    for options in (("--part", "lunch"), ()):
        assert CliRunner().invoke(app, ["--out", str(tmp_path), *options]).exit_code == 2


def test_every_step_has_time_to_work_though_those_before_it_take_all_of_theirs(tmp_path: Path) -> None:
    for part, least in (
        (Part.CHECKS, {"tests": 95, "sanitizer": 64}),
        (Part.SUITES, {"compile": 18, "traffic": 25, "traffic of groups": 25, "suites": 310}),
    ):
        planned = gpu_session.steps(tmp_path, part)
        remaining = gpu_session.PART_SECONDS[part] - gpu_session.RESERVE_SECONDS
        for index, step in enumerate(planned):
            limit = remaining * step.weight / sum(later.weight for later in planned[index:])
            assert limit - step.grace - gpu_session.START_SECONDS >= least.get(step.name, -999), step.name
            remaining -= limit


def test_session_leaves_out_the_tests_without_a_gpu_alone() -> None:
    folder = ROOT / "tests" / "dlfa_kernels"
    uses_gpu = re.compile(r"^def test_.*\n?.*device: torch\.device|mark\.gpu", re.MULTILINE)
    without = {path.name for path in folder.glob("test_*.py") if not uses_gpu.search(path.read_text())}
    assert without == set(gpu_session.TESTS_WITHOUT_GPU)


@pytest.mark.skipif(importlib.util.find_spec("xdist") is None, reason="needs pytest-xdist")
def test_tests_that_are_cut_short_name_what_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow:\n gpu:\n")
    (tmp_path / "test_some.py").write_text(
        "import os, signal, time, pytest\n"
        "def test_fails(): assert 1 == 2\n"
        "@pytest.mark.slow\n@pytest.mark.gpu\ndef test_slow_on_a_gpu(): pass\n"
        "@pytest.mark.slow\ndef test_slow(): pass\n"
        "def test_hangs():\n"
        "    time.sleep(4)\n"
        "    os.killpg(os.getpgid(0), signal.SIGINT)  # as all are interrupted when the time is over\n"
        "    time.sleep(60)\n"
    )
    command = [word.replace(f"={gpu_session.HANGING_SECONDS}", "=2") for word in gpu_session.kernel_tests(tmp_path)]
    with (tmp_path / "log").open("w+") as log:
        assert run_limited(command, 120.0, cwd=tmp_path, log=log) is not None  # it ended by itself, interrupted
        log.seek(0)
        said = log.read()
    for named in ("FAILED test_some.py::test_fails - assert 1 == 2", "PASSED", "in test_hangs"):
        assert named in said
    assert "test_slow_on_a_gpu" in said
    assert "test_slow " not in said
