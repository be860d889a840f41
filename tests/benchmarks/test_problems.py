"""Float64 results, errors and limits: what a result is checked by."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip("triton", reason="triton is there on Linux only")

from suite_cases import CPU, FORMS, PACKED, reference

from benchmarks import problems, providers
from benchmarks.cases import Case
from benchmarks.errors import relative_errors
from dlfa_kernels import aif_reference
from dlfa_kernels import reference as reference_module


@pytest.mark.parametrize("case", [*FORMS, *PACKED], ids=str)
def test_float64_results_do_not_depend_on_how_many_sequences_go_at_once(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = problems.make_problem(case, CPU)
    whole = reference(problem)
    for sequences in (1, 2, 3):
        bytes_of_one = problems.TENSORS_OF_REFERENCE * 8 * 9 * 24
        monkeypatch.setattr(problems, "CPU_REFERENCE_BYTES", sequences * bytes_of_one)
        errors = relative_errors(problems.exact(problem), whole)
        assert errors.keys() == whole.keys()
        assert max(errors.values()) < 1e-7, sequences


def test_z_has_another_limit_than_gradients() -> None:
    assert problems.limit("z", torch.bfloat16, ours=True) < problems.limit("last", torch.bfloat16, ours=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["z", "last"])
def test_baselines_may_be_less_exact(name: str, dtype: torch.dtype) -> None:
    assert problems.limit(name, dtype, ours=True) < problems.limit(name, dtype, ours=False)


@pytest.mark.parametrize(
    "case", [*(replace(form, fill=fill) for form in FORMS for fill in (0.6, 1.0)), *PACKED], ids=str
)
def test_nothing_comes_near_zero_before_relu(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, least = problems.make_problem(case, CPU), []

    def noted(values: Tensor) -> Tensor:
        least.append(values.abs().min().item())
        share = (values > 0).double().mean().item()
        assert share == 0.5
        return F.relu(values)

    monkeypatch.setitem(reference_module._PHI, "relu", noted)
    with torch.no_grad():
        aif_reference(
            problem.last, problem.lower, *problem.aif.weights, problem.mask, cu_seqlens=problem.cu_seqlens,
            token=case.token, fuse=case.fuse,
        )  # fmt: skip
    assert len(least) == 2
    assert min(least) > 0.2


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("form", [FORMS[1], FORMS[2]], ids=str)
def test_plain_code_keeps_within_the_limits_of_the_kernels(form: Case, dtype: str) -> None:
    """Without `decide_relu`, bfloat16 gradients are off by five times as much."""
    case = replace(form, shape=(4, 64, 256), squeeze_dim=64, dtype=dtype)
    problem = problems.make_problem(case, CPU)
    results = providers.results(providers.build(providers.EAGER, problem), problem)
    for name, error in relative_errors(results, problems.exact(problem)).items():
        assert error <= problems.limit(name, problem.last.dtype, ours=True) / 2, name
