"""The origin of a run: the source as loaded by the process, and the hardware."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch

import dlfa

from ..hardware import output_of

# The packages that affect a result; changes elsewhere in the tree do not mark a run as dirty.
_PACKAGES = ("dlfa", "dlfa_kernels")


def source_commit() -> str:
    """Return the commit of the checkout of the packages, with "-dirty" if their files differ from it.

    Without a checkout it is BENCHMARK_COMMIT, for copies of the tree without git history, else "unknown". A process
    calls this once, before its first run, because the loaded source does not change.
    """
    root = Path(dlfa.__file__).resolve().parents[1]
    commit = output_of("git", "-C", str(root), "rev-parse", "HEAD")
    if not commit:
        return os.environ.get("BENCHMARK_COMMIT") or "unknown"
    changed = output_of("git", "-C", str(root), "status", "--porcelain", "--", *_PACKAGES)
    return f"{commit[:12]}-dirty" if changed else commit[:12]


def hardware() -> str:
    """Return the GPU's name, or the processor's with the number of cores this process may use; never a host's name."""
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
