"""The measured device: its choice, its ceilings, and its description in results files."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

from dlfa.evaluation.source import checkout_commit, installed_version
from dlfa_kernels.backends import INTERPRETED

from .cases import DTYPES
from .floors import Ceilings
from .timing import Stopwatch

ROOT = Path(__file__).resolve().parents[1]
# Sides of the square matrix product, and bytes of the copied buffer.
MATMUL_SIDE = {"cuda": 8192, "cpu": 256}
COPY_BYTES = {"cuda": 2 << 30, "cpu": 16 << 20}
CEILING_SECONDS = 0.2


def choose_device(name: str) -> torch.device:
    """Return the device to measure.

    Raises:
        ValueError: an unknown name, no such GPU, or Triton's interpreter is on, which must not be timed.
    """
    if name not in ("cuda", "cpu"):
        raise ValueError(f"--device must be cuda or cpu, got {name!r}")
    if INTERPRETED:
        raise ValueError("TRITON_INTERPRET must be unset where time is measured")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda needs a GPU that torch can use, found none; --device cpu runs small sizes")
    return torch.device(name)


def measure_ceilings(device: torch.device, stopwatch: Stopwatch) -> Ceilings:
    """Time a large copy on the device, bytes read plus bytes written, and a large matrix product of each dtype.

    float32 products are in TF32, the fastest for float32 operands, because they define a floor.
    """
    room = torch.cuda.mem_get_info(device)[0] // 4 if device.type == "cuda" else COPY_BYTES["cpu"]
    size = min(COPY_BYTES[device.type], room)
    copying = _time_copy(size, device, stopwatch)
    side, rates = MATMUL_SIDE[device.type], {}
    tf32 = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        for name, dtype in DTYPES.items():
            rates[name] = 2 * side**3 / _time_product(side, dtype, device, stopwatch) / 1e6
    finally:
        torch.backends.cuda.matmul.allow_tf32 = tf32
    return Ceilings(2 * size / copying / 1e6, rates)


def _time_copy(size: int, device: torch.device, stopwatch: Stopwatch) -> float:
    source = torch.randn(size // 4, device=device)
    target = torch.empty_like(source)
    return stopwatch.device_time(lambda _: target.copy_(source), lambda: None, CEILING_SECONDS).median_us


def _time_product(side: int, dtype: torch.dtype, device: torch.device, stopwatch: Stopwatch) -> float:
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(a)
    return stopwatch.device_time(lambda _: torch.matmul(a, b, out=product), lambda: None, CEILING_SECONDS).median_us


def header(device: torch.device, command: str, ceilings: Ceilings | None = None) -> dict[str, Any]:
    """Return the header of a results file; `gpu` and `capability` are None for a CPU."""
    cuda = device.type == "cuda"
    properties: Any = torch.cuda.get_device_properties(device) if cuda else None
    rates = {} if ceilings is None else {name: float(f"{rate:.4g}") for name, rate in ceilings.matmul_tflop_s.items()}
    return {
        "gpu": properties.name if cuda else None,
        "capability": f"{properties.major}.{properties.minor}" if cuda else None,
        "torch": str(torch.__version__),
        "triton": installed_version("triton"),
        "commit": commit(),
        "command": command,
        "copy_tb_s": None if ceilings is None else float(f"{ceilings.copy_tb_s:.4g}"),
        "matmul_tflop_s": rates.get("bfloat16"),
        "matmul_tflop_s_by_dtype": rates,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "transformers": installed_version("transformers"),
        "device": device.type,
        "multiprocessors": properties.multi_processor_count if cuda else None,
        "l2_bytes": properties.L2_cache_size if cuda else None,
        "memory_bytes": properties.total_memory if cuda else None,
        "driver": _driver() if cuda else None,
    }


def folder_name(device: torch.device) -> str:
    """Return the folder name of a device's results: its name in lower case with hyphens, or "cpu"."""
    if device.type != "cuda":
        return "cpu"
    return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name(device).lower()).strip("-")


def commit() -> str:
    """Return `source_commit` of packages and measurements.

    Results do not count: a suite writes its own before the next one starts.
    """
    return source_commit("benchmarks", ":(exclude)benchmarks/results")


def source_commit(*more: str) -> str:
    """Return the commit of the checkout of the packages, with "-dirty" if their files, or those of `more`, differ.

    Without a checkout it is BENCHMARK_COMMIT, for copies of the tree without git history, else "unknown". A process
    calls this before its first run, because the loaded source does not change.
    """
    return checkout_commit(*more, digits=12) or os.environ.get("BENCHMARK_COMMIT") or "unknown"


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.splitlines()[0] if answer.returncode == 0 and answer.stdout else None
