"""Relative errors of results, and the limits for ours."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

# The largest relative errors in norm of a correct result of the kernels, for z and for a gradient; also in their tests.
# They hold at all sizes: rounding of single elements is the same part of a norm for any number of them, and long sums
# are taken block by block in float32, rounded to nearest, so that errors have either sign, as their terms do, and grow
# no faster than the sums. Products as three of TF32 have errors of about 1e-6.
LIMITS = {torch.bfloat16: (1e-2, 2e-2), torch.float16: (2e-3, 4e-3), torch.float32: (2e-5, 2e-5)}


def relative_error(result: Tensor, expected: Tensor) -> float:
    """Return |result - expected| / |expected| in Euclidean norm; infinite for a missed zero or a NaN.

    Raises:
        ValueError: the shapes differ.
    """
    if result.shape != expected.shape:
        raise ValueError(f"result must have shape {tuple(expected.shape)}, got {tuple(result.shape)}")
    # wide enough for an exact difference of close numbers, but no wider, because states are large
    dtype = torch.promote_types(torch.promote_types(result.dtype, expected.dtype), torch.float32)
    distance, size = (
        torch.linalg.vector_norm(values, dtype=torch.float64).item()
        for values in (result.to(dtype) - expected.to(dtype), expected)
    )
    if distance == 0:
        return 0.0
    return distance / size if size > 0 and distance == distance else float("inf")


def relative_errors(results: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the `relative_error` of each result by name; `expected` may have more entries.

    Raises:
        ValueError: a result has another shape than expected.
    """
    return {name: relative_error(result, expected[name]) for name, result in results.items()}
