"""Bytes that a pass keeps for the backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor

pytest.importorskip("triton", reason="triton is there on Linux only")

from suite_cases import CPU, PACKED, SMALL

from benchmarks import memory, problems, suite
from benchmarks.cases import Case


@pytest.mark.parametrize("case", [SMALL, PACKED[0]], ids=str)
def test_what_is_kept_for_the_backward_leaves_out_what_is_there_anyway(case: Case) -> None:
    problem = problems.make_problem(case, CPU)
    given = problem.cu_seqlens[-1:] if problem.mask is None else problem.mask[..., None]

    def saved(call: Callable[[], Tensor]) -> int:
        return memory.saved_bytes(suite.Work({}, problem, {}, "eager", call, "both"))

    def squared() -> Tensor:
        states = problem.last.exp()
        return states * states.view(states.shape)

    states = problem.last.numel() * 4
    assert saved(lambda: problem.last * problem.lower) == 0
    assert saved(lambda: problem.last.exp()) == 0
    assert saved(lambda: problem.last * given) == 0
    assert saved(squared) == states  # once, however often it is kept
    assert saved(lambda: (problem.last.exp() * problem.lower).sin()) == 2 * states


@pytest.mark.parametrize(("dtype", "tensors"), [("bfloat16", 2.5), ("float16", 2.5), ("float32", 1.25)])
def test_saved_bytes_are_told_in_tensors_of_the_rows_dtype(dtype: str, tensors: float) -> None:
    row = {"shape": [2, 3, 8], "dtype": dtype, "saved_bytes": 2 * 3 * 8 * 5}
    assert memory.saved_tensors(row) == tensors
    assert memory.saved_tensors({**row, "saved_bytes": None}) is None
