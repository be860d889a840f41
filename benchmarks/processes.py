"""Commands that are given so much time and no more, and of which nothing is left running."""

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

# Seconds from the interruption of a command to its end by force. One that runs others by `run_limited` itself needs
# more than they do, or it is ended before it has ended them.
GRACE_SECONDS = 5.0
PR_SET_PDEATHSIG = 1
# Where NVIDIA's packages install it.
NSIGHT_COMPUTE = Path("/opt/nvidia/nsight-compute")

# Looked up here, as little as possible being safe between fork and exec.
_prctl: Any = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def _prepare(parent: int) -> None:
    """In a child that is about to become a command: let it be interrupted, and killed when `parent` is gone, on Linux.

    What a shell runs in the background ignores interruptions, and so would all that it starts.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if _prctl is None:
        return
    _prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # gone before
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
    """A command that runs inside, and of which nothing is left running afterwards, nor when we are killed.

    Args:
        command: program and arguments.
        cwd: where it runs.
        log: takes its output, errors too; None leaves both where ours go.
        environment: variables on top of ours.
        grace: seconds that it has to end, if it has not yet, when it and its children are interrupted in the end; what
            is left of them is killed.

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
        finally:  # though we are interrupted ourselves meanwhile
            with suppress(ProcessLookupError):  # nothing of it is left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run_limited(command: Sequence[str], seconds: float, **how: Any) -> int | None:
    """Run a command for at most `seconds` and its grace.

    Args:
        command: program and arguments.
        seconds: after them, it and its children are interrupted.
        how: keywords of `started`.

    Returns:
        Its exit status, or None where it ran over its time.

    Raises:
        OSError: it cannot be started.
    """
    with started(command, **how) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


def cuda_tool(name: str) -> str:
    """The path of a tool of the CUDA toolkit, whose folder is not on the PATH everywhere.

    Raises:
        ValueError: it is nowhere.
    """
    folders = [os.environ.get("PATH", os.defpath), f"{os.environ.get('CUDA_HOME', '/usr/local/cuda')}/bin"]
    folders += sorted(map(str, NSIGHT_COMPUTE.glob("*")), reverse=True)  # a folder a version
    path = shutil.which(name, path=os.pathsep.join(folders))
    if path is None:
        raise ValueError(f"{name}, of the CUDA toolkit, must be on the PATH, below CUDA_HOME or in {NSIGHT_COMPUTE}")
    return path
