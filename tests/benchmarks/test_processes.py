"""Commands end in time, and take with them all that they started, however they themselves end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import processes
from benchmarks.processes import cuda_tool, run_limited

ROOT = Path(__file__).resolve().parents[2]
SLEEP = "import time; time.sleep(60)"
# Tells its process id by a file whose name is its last argument.
STUBBORN = (
    "import os, signal, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "open(sys.argv[-1], 'w').write(str(os.getpid())); time.sleep(60)"
)
# Runs such a command as the suites are run: in a session of its own, below a command that is run so too.
NESTED = (
    "import sys; from pathlib import Path; from benchmarks.processes import cuda_tool, run_limited; "
    f"run_limited([sys.executable, '-c', {STUBBORN!r}, sys.argv[-1]], 50, cwd=Path('.'), grace=float(sys.argv[-2]))"
)


def running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def written(path: Path) -> int:
    """The process id that a command writes."""
    wait_for(lambda: path.exists() and path.read_text())
    return int(path.read_text())


def test_commands_end_with_all_that_they_started(tmp_path: Path) -> None:
    script = (
        f"import subprocess, sys, time\nprint(subprocess.Popen([sys.executable, '-c', {SLEEP!r}]).pid, flush=True)\n"
    )
    with (tmp_path / "log").open("w+") as log:
        start = time.monotonic()
        status = run_limited([sys.executable, "-c", f"{script}time.sleep(60)"], 2.0, cwd=tmp_path, log=log)
        assert status is None
        assert time.monotonic() - start < 15
        log.seek(0)
        pid = int(log.readline())
    wait_for(lambda: not running(pid))
    assert run_limited([sys.executable, "-c", "raise SystemExit(3)"], 30, cwd=tmp_path) == 3
    given = [sys.executable, "-c", "import os; raise SystemExit(int(os.environ['GIVEN']))"]
    assert run_limited(given, 30, cwd=tmp_path, environment={"GIVEN": "5"}) == 5


def test_a_background_job_that_ignores_interruptions_can_still_interrupt(tmp_path: Path) -> None:
    inner = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('interrupted', flush=True)\n"
    script = (
        "import signal, sys; from pathlib import Path; from benchmarks.processes import cuda_tool, run_limited\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"run_limited([sys.executable, '-c', {inner!r}], 2.0, cwd=Path('.'), grace=20.0)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stdout == "interrupted\n"


def test_a_child_that_ignores_the_interruption_is_killed(tmp_path: Path) -> None:
    """Whether its parent ends at once or by itself, in time."""
    for ending, expected in (("time.sleep(60)", None), ("raise SystemExit(3)", 3)):
        told = tmp_path / f"{expected}"
        script = (
            "import os, subprocess, sys, time\n"
            f"subprocess.Popen([sys.executable, '-c', {STUBBORN!r}, {str(told)!r}])\n"
            f"while not os.path.exists({str(told)!r}) or not open({str(told)!r}).read(): time.sleep(0.01)\n"
        )
        assert run_limited([sys.executable, "-c", script + ending], 5.0, cwd=tmp_path) == expected
        wait_for(lambda told=told: not running(written(told)))


def test_a_command_that_ignores_the_interruption_is_given_its_grace(tmp_path: Path) -> None:
    start = time.monotonic()
    assert run_limited([sys.executable, "-c", STUBBORN, str(tmp_path / "pid")], 4.0, cwd=tmp_path, grace=1.0) is None
    assert 5.0 <= time.monotonic() - start < 10
    assert not running(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends processes with their parents on Linux")
@pytest.mark.parametrize("inner", [1.0, 30.0])
def test_nothing_outlives_the_outer_run(inner: float, tmp_path: Path) -> None:
    """Neither where the command in between has the time to end its own, nor where it is killed before."""
    told = tmp_path / "pid"
    command = [sys.executable, "-c", NESTED, str(inner), str(told)]
    assert run_limited(command, 5.0, cwd=ROOT, grace=3.0) is None
    wait_for(lambda: not running(written(told)))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends processes with their parents on Linux")
def test_nothing_outlives_an_outer_run_that_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    outer = subprocess.Popen([sys.executable, "-c", NESTED, "1", str(told)], cwd=ROOT, env=dict(os.environ))
    pid = written(told)
    outer.send_signal(signal.SIGKILL)
    outer.wait()
    wait_for(lambda: not running(pid))


def test_tools_of_the_cuda_toolkit_are_found_off_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    monkeypatch.setattr(processes, "NSIGHT_COMPUTE", tmp_path / "nsight-compute")
    monkeypatch.setattr(processes, "LOCAL", tmp_path / "local")
    with pytest.raises(ValueError, match="ncu, of the CUDA toolkit, must be on the PATH, below CUDA_HOME or in /"):
        cuda_tool("ncu")
    for folder in (
        "nsight-compute/2025.2.0",
        "nsight-compute/2025.3.1",
        "local/cuda-12.9/bin",
        "local/cuda-13.0/bin",
        "cuda/bin",
    ):
        ncu_path = tmp_path / folder / "ncu"
        ncu_path.parent.mkdir(parents=True)
        ncu_path.write_text("#!/bin/sh\n")
        ncu_path.chmod(0o755)
        assert cuda_tool("ncu") == str(ncu_path)
