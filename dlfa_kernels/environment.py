"""The environment variables of the package, each read in one place when it is needed."""

from __future__ import annotations

import os


def backend() -> str | None:
    """DLFA_BACKEND: what "auto" stands for, "triton" or "eager"; None where unset."""
    return os.environ.get("DLFA_BACKEND") or None


def validate() -> bool:
    """DLFA_VALIDATE=1: read the values of cu_seqlens on a GPU too, at the price of a host sync."""
    return os.environ.get("DLFA_VALIDATE", "0") == "1"


def triton_interpreted() -> bool:
    """TRITON_INTERPRET=1, Triton's own variable: kernels run on CPU tensors, for tests."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"
