"""Commands that are given so much time and no more."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO


def run_limited(
    command: Sequence[str],
    seconds: float,
    *,
    cwd: Path,
    log: IO[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> int | None:
    """Run a command with all that it starts for at most `seconds`.

    Args:
        command: program and arguments.
        seconds: after them, it and its children are interrupted, then killed.
        cwd: where it runs.
        log: takes its output, errors too; None leaves both where ours go.
        environment: variables on top of ours.

    Returns:
        Its exit status, or None where it ran over its time.

    Raises:
        OSError: it cannot be started.
    """
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdout=log,
        stderr=None if log is None else subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            for ending in (signal.SIGINT, signal.SIGKILL):
                os.killpg(process.pid, ending)
                try:
                    process.wait(5)
                    break
                except subprocess.TimeoutExpired:
                    continue
