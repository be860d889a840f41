"""The baseline of torch's own layers is the definition."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="triton is there on Linux only")

from suite_cases import CPU, FORMS, reference

from benchmarks import problems
from benchmarks.cases import Case
from benchmarks.errors import relative_errors
from benchmarks.plain_aif import PlainAIF
from dlfa_kernels import FusedAIF


@pytest.mark.parametrize("case", FORMS, ids=str)
def test_plain_module_is_the_definition(case: Case) -> None:
    problem = problems.make_problem(case, CPU)
    assert problem.mask is not None
    double = FusedAIF(24, squeeze_dim=16, kernel_size=case.kernel_size, fuse=case.fuse, dtype=torch.float64)
    double.load_state_dict(problem.aif.state_dict())
    leaves = [problem.last.detach().double().requires_grad_(), problem.lower.detach().double().requires_grad_()]
    z = PlainAIF(double)(*leaves, problem.mask, case.token)
    gradients = torch.autograd.grad(z, [*leaves, *double.weights], problem.dz.double())
    results = {"z": z.detach(), **dict(zip(problems.GRADIENTS, gradients, strict=True))}
    assert max(relative_errors(results, reference(problem)).values()) < 1e-12


def test_plain_module_is_relu_only() -> None:
    with pytest.raises(ValueError, match="activation must be 'relu', got 'gelu'"):
        PlainAIF(FusedAIF(16, activation="gelu"))
