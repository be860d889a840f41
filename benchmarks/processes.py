"""Run commands with a time limit, and leave none of their processes running."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

# Seconds between the interrupt of a command and its kill. A command that itself uses `run_limited` needs more than its
# own commands, or it is killed before it has stopped them.
GRACE_SECONDS = 5.0
PR_SET_PDEATHSIG = 1
# The folders where NVIDIA's packages install the toolkit's versions, and Nsight Compute.
LOCAL = Path("/usr/local")
NSIGHT_COMPUTE = Path("/opt/nvidia/nsight-compute")

# Looked up here, because little is safe between fork and exec.
_prctl: Any = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def _prepare(parent: int) -> None:
    """Prepare a child before exec: let it be interrupted and, on Linux, killed when `parent` is gone.

    Background processes of a shell ignore interrupts, and their children inherit that.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if _prctl is None:
        return
    _prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # already gone
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def started(
    command: Sequence[str],
    *,
    cwd: Path,
    log: IO[str] | None = None,
    environment: Mapping[str, str] | None = None,
    grace: float = GRACE_SECONDS,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command inside the context, and leave none of its processes running afterwards or if we are killed.

    Args:
        command: program and arguments.
        cwd: its working directory.
        log: receives its output and errors; None means our own streams.
        environment: variables in addition to ours.
        grace: seconds to finish after it and its children are interrupted at the end; the rest are then killed.

    Raises:
        OSError: it cannot be started.
    """
    ours = os.getpid()
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdout=log,
        stderr=None if log is None else subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: _prepare(ours),
    )
    try:
        yield process
    finally:
        try:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(grace)
        finally:  # even if we are interrupted ourselves
            with suppress(ProcessLookupError):  # it has ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run_limited(command: Sequence[str], seconds: float, **how: Any) -> int | None:
    """Run a command for at most `seconds` plus its grace.

    Args:
        command: program and arguments.
        seconds: time after which it and its children are interrupted.
        how: keywords of `started`.

    Returns:
        Its exit status, or None if it exceeded its time.

    Raises:
        OSError: it cannot be started.
    """
    with started(command, **how) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


def cuda_tool(name: str) -> str:
    """Return the path of a tool of the CUDA toolkit, whose folder may not be on the PATH.

    Raises:
        ValueError: it is not found.
    """
    folders = [os.environ.get("PATH", os.defpath), f"{os.environ.get('CUDA_HOME', '/usr/local/cuda')}/bin"]
    folders += sorted(map(str, LOCAL.glob("cuda-*/bin")), reverse=True)
    folders += sorted(map(str, NSIGHT_COMPUTE.glob("*")), reverse=True)  # one folder a version
    path = shutil.which(name, path=os.pathsep.join(folders))
    if path is None:
        raise ValueError(f"{name}, of the CUDA toolkit, must be on the PATH, below CUDA_HOME or in {NSIGHT_COMPUTE}")
    return path
