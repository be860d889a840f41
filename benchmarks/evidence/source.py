"""What a run was made with: the source as it was when the process loaded it, and the hardware."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch

import dlfa

from ..hardware import output_of

# The packages that have a say in a result; a change elsewhere in the tree makes no run a dirty one.
_PACKAGES = ("dlfa", "dlfa_kernels")


def source_commit() -> str:
    """The commit of the checkout that the packages are loaded from, with "-dirty" where their files differ from it.

    Without a checkout it is BENCHMARK_COMMIT, for copies of the tree without its history, else "unknown". A process
    that makes runs asks once, before the first of them, as what it has loaded stays as it is.
    """
    root = Path(dlfa.__file__).resolve().parents[1]
    commit = output_of("git", "-C", str(root), "rev-parse", "HEAD")
    if not commit:
        return os.environ.get("BENCHMARK_COMMIT") or "unknown"
    changed = output_of("git", "-C", str(root), "status", "--porcelain", "--", *_PACKAGES)
    return f"{commit[:12]}-dirty" if changed else commit[:12]


def hardware() -> str:
    """The GPU's name, else the processor's with the number of cores that this process may use; no name of a host."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor()}, {cores} cores"


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()
