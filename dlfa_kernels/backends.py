"""Choice of the implementation that runs a call: the Triton kernels or the eager definition."""

from __future__ import annotations

import torch
from torch import Tensor

from . import environment
from .checks import check_one_of
from .device import device_architecture, runs_kernels

BACKENDS = ("auto", "triton", "eager")
try:
    import triton

    TRITON_AVAILABLE = True
    # TRITON_INTERPRET=1 at the time of this import. Triton asks too when kernels are defined, and never again: what the
    # variable holds later changes nothing.
    INTERPRETED = bool(triton.knobs.runtime.interpret)
except ImportError:
    TRITON_AVAILABLE = INTERPRETED = False
# Whether CPU tensors may be given to the kernels. `benchmarks.cpu_as_gpu` sets this one alone, where what they compile
# to is run in place of Triton's interpreter.
TAKES_CPU_TENSORS = INTERPRETED


def resolve_backend(backend: str, last: Tensor) -> str:
    """Turn `backend` into "triton" or "eager" for states like `last`.

    "auto" means DLFA_BACKEND if it is set. Otherwise it is Triton if Triton can be imported and the tensors are
    float32, bfloat16 or float16 on an AMD GPU or an NVIDIA one of compute capability 8.0 or more, and eager if not.

    Args:
        backend: one of `BACKENDS`.
        last: the states; only their dtype and device matter.

    Raises:
        ValueError: an unknown backend, here or in DLFA_BACKEND.
        RuntimeError: "triton" cannot run: Triton is missing, the tensors are on the CPU without TRITON_INTERPRET=1, or
            the GPU is older.
        TypeError: "triton" with float64, which only the eager path supports.
    """
    check_one_of("backend", backend, BACKENDS)
    asked = "backend='triton'"
    if backend == "auto":
        override = environment.backend()
        if override is None or override == "auto":
            able = last.is_cuda and TRITON_AVAILABLE and last.dtype != torch.float64 and not _on_older_gpu(last)
            return "triton" if able else "eager"
        check_one_of("DLFA_BACKEND", override, BACKENDS)
        backend, asked = override, "DLFA_BACKEND=triton"
    if backend == "eager":
        return "eager"
    if not TRITON_AVAILABLE:
        raise RuntimeError(f"{asked} needs the triton package, which cannot be imported; use backend='eager'")
    if last.dtype == torch.float64:
        raise TypeError(f"{asked} takes float32, bfloat16 or float16, got torch.float64; use backend='eager'")
    if last.device.type == "cpu" and not TAKES_CPU_TENSORS:
        raise RuntimeError(
            f"{asked} needs CUDA or ROCm tensors, got a CPU tensor; set TRITON_INTERPRET=1 before Python "
            "starts to run the kernels in Triton's interpreter, or use backend='eager'"
        )
    if last.device.type not in ("cpu", "cuda", "meta"):
        raise RuntimeError(f"{asked} needs CUDA or ROCm tensors, got {last.device.type}; use backend='eager'")
    if last.is_cuda and _on_older_gpu(last):
        raise RuntimeError(
            f"{asked} needs an NVIDIA GPU of compute capability 8.0 or more, got {device_architecture(last.device)}; "
            "use backend='eager'"
        )
    return "triton"


def _on_older_gpu(states: Tensor) -> bool:
    # torch.compile is not to trace the question; a call that it compiled asks when it runs, and raises
    return not torch.compiler.is_compiling() and not runs_kernels(states.device)
