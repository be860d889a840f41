"""Wall clock of the core sizes by pytest-benchmark, waiting for the device:

    pytest benchmarks --benchmark-only

On a GPU the sizes are those of `benchmarks.aif`; on a CPU they are small, to run the same code. A provider with wrong
results is not timed, and its tests fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pytest
import torch

from . import providers
from .cases import Case, core_case, shapes
from .floors import PASSES
from .hardware import choose_device
from .problems import Problem, beyond_limits, exact, make_problem
from .suite import check
from .timing import synchronise

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CASES = [core_case(shape) for shape in shapes(DEVICE)]
COMPILED = CASES if DEVICE.type == "cuda" else CASES[:1]
RUNS = [
    *((case, name) for case in CASES for name in (providers.ours(DEVICE), providers.EAGER)),
    *((case, providers.COMPILE) for case in COMPILED),
]


@pytest.fixture(scope="module", autouse=True)
def _timed_on_device() -> Iterator[None]:
    choose_device(DEVICE.type)  # rejects Triton's interpreter
    threads = torch.get_num_threads()
    if DEVICE.type == "cpu":
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def bound(case: Case, provider: str) -> tuple[Problem, providers.Call, dict[str, dict[str, float]]]:
    """Return a case's tensors, the provider bound to them, and its errors by pass; a pair's passes are consecutive."""
    if provider == providers.COMPILE:
        torch.compiler.reset()  # else it stops compiling a module after too many shapes
    problem = make_problem(case, DEVICE)
    call = providers.build(provider, problem)
    return problem, call, check(call, problem, exact(problem), PASSES)


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize(("case", "provider"), RUNS, ids=lambda value: str(value).replace(" ", "-"))
def test_speed(benchmark: Any, case: Case, provider: str, pass_: str) -> None:
    """Time one pass of one provider if its results are correct."""
    problem, call, errors = bound(case, provider)
    wrong = beyond_limits(errors[pass_], problem.last.dtype, providers.is_ours(provider))
    assert not wrong, f"not timed, as it is wrong: {wrong}"

    def forward() -> None:
        providers.inference(call)
        synchronise(DEVICE)

    def backward(z: torch.Tensor) -> None:
        providers.gradients(z, problem)
        synchronise(DEVICE)

    def both() -> None:
        backward(call())

    benchmark.extra_info.update(provider=provider, pass_=pass_, max_rel_error=max(errors[pass_].values()))
    if pass_ == "backward":
        benchmark.pedantic(backward, setup=lambda: ((call(),), {}), rounds=10, warmup_rounds=1)
    else:
        benchmark.pedantic(forward if pass_ == "forward" else both, rounds=10, warmup_rounds=1)
