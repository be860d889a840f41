"""Relative errors of results."""

import pytest
import torch

from benchmarks.errors import relative_error, relative_errors


def test_relative_errors() -> None:
    expected = {"z": torch.tensor([3.0, 4.0]), "last": torch.zeros(2)}
    near = {"z": torch.tensor([3.0, 4.5]), "last": torch.zeros(2)}
    assert relative_errors(near, expected) == {"z": pytest.approx(0.1), "last": 0.0}
    off = {"z": torch.tensor([3.0, torch.nan]), "last": torch.ones(2)}
    assert relative_errors(off, expected) == {"z": float("inf"), "last": float("inf")}


def test_differences_are_not_rounded_to_the_dtype_of_results() -> None:
    one, next_one = torch.tensor([256.0]).bfloat16(), torch.tensor([258.0]).bfloat16()
    assert relative_error(next_one, one) == 2 / 256
    assert relative_error(torch.tensor([257.0]), one) == 1 / 256
    assert relative_error(torch.tensor([1 + 2**-40], dtype=torch.float64), torch.ones(1)) == 2**-40


def test_a_result_of_another_shape_is_no_result() -> None:
    with pytest.raises(ValueError, match=r"result must have shape \(2, 3\), got \(3,\)"):
        relative_error(torch.ones(3), torch.ones(2, 3))
