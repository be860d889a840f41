"""Who computes AIF: ours and the baselines, on the same parameters."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="triton is there on Linux only")

from suite_cases import CPU, PACKED, SMALL

from benchmarks import problems, providers


def test_providers_share_the_parameters() -> None:
    problem = problems.make_problem(SMALL, CPU)
    before = {name: providers.inference(providers.build(name, problem)) for name in ("eager", "ours-eager-backend")}
    with torch.no_grad():
        problem.aif.global_expand.bias.fill_(-1000.0)
    for name, z in before.items():
        assert z.abs().max() > 0
        assert providers.inference(providers.build(name, problem)).abs().max() == 0, name
    assert problem.aif.backend == "auto"


def test_unknown_and_unfit_providers() -> None:
    with pytest.raises(ValueError, match=r"provider must be one of ours, .*, got 'theirs'"):
        providers.build("theirs", problems.make_problem(SMALL, CPU))
    with pytest.raises(ValueError, match="for packed sequences, got 'eager'"):
        providers.build("eager", problems.make_problem(PACKED[0], CPU))


def test_baselines_may_take_tf32() -> None:
    for name in providers.PROVIDERS:
        ours = name in ("ours", "ours-eager-backend")
        assert providers.is_ours(name) == providers.is_ours(name + providers.GRAPH) == ours
    assert all(map(providers.is_ours, providers.SCHEDULES))
    assert problems.limit("z", torch.float32, ours=True) == 2e-5
    assert problems.limit("z", torch.float32, ours=False) == 1e-3
