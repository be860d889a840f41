"""Small cases and a session on the CPU, for tests of the suites."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import problems, suite
from benchmarks.budget import Budget
from benchmarks.cases import Case
from benchmarks.floors import Ceilings
from dlfa_kernels import aif_reference

CPU = torch.device("cpu")
SMALL = Case((3, 9, 24), 16, dtype="float32", fill=0.6)
FORMS = [
    SMALL,
    replace(SMALL, fuse="select"),
    replace(SMALL, kernel_size=3),
    replace(SMALL, kernel_size=3, token=0),
    replace(SMALL, kernel_size=3, token=4, fuse="select"),
    replace(SMALL, token=2),
]
PACKED = [replace(SMALL, packed=True), replace(SMALL, packed=True, kernel_size=3, fuse="select")]
CEILINGS = Ceilings(4.0, {"bfloat16": 800.0, "float16": 800.0, "float32": 400.0})


def reference(problem: problems.Problem) -> dict[str, Tensor]:
    """`aif_reference` in float64 on all sequences at once."""
    leaves = [leaf.detach().double().requires_grad_() for leaf in problem.leaves]
    case = problem.case
    z = aif_reference(
        *leaves, problem.mask, cu_seqlens=problem.cu_seqlens, token=case.token, fuse=case.fuse  # type: ignore[misc]
    )  # fmt: skip
    gradients = torch.autograd.grad(z, leaves, problem.dz.double())
    return {"z": z.detach(), **dict(zip(problems.GRADIENTS, gradients, strict=True))}


def session(tmp_path: Path, seconds: float = 60.0) -> suite.Session:
    return suite.Session("aif", CPU, Budget(seconds), tmp_path / "aif.json", "command")


TASK = suite.Task(replace(SMALL, fill=1.0), ("eager",), ("forward", "backward"))


def never(*_: object) -> dict[str, object]:
    raise AssertionError("a wrong provider was measured")
