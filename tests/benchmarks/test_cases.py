"""The grid of cases, and the lengths of their sequences."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="triton is there on Linux only")

from benchmarks import cases
from benchmarks.cases import Case


@pytest.mark.parametrize("fill", [1.0, 0.6, 0.3, 0.05])
@pytest.mark.parametrize("shape", [*cases.SHAPES, (1, 40, 8)])
def test_lengths_hold_the_share_of_real_tokens(shape: tuple[int, int, int], fill: float) -> None:
    batch, length, _ = shape
    lengths = Case(shape, 16, fill=fill).lengths
    assert len(lengths) == batch
    assert all(0 <= count <= length for count in lengths)
    if batch > 1:
        assert sum(lengths) / (batch * length) == pytest.approx(fill, abs=0.6 / length)


def test_cases() -> None:
    cuda = torch.device("cuda")
    grid = cases.full_grid(cuda)
    assert len(grid) == len(set(grid)) == 6 * 2 * 2 * 2 * 3
    for shape in cases.SHAPES:
        assert {cases.core_case(shape), *cases.variations(shape)} <= set(grid)
        assert len(cases.variations(shape)) == 5
    assert cases.core_case((16, 4096, 1024)).squeeze_dim == 256
