"""How far results are from what they should be, and how far ours may be."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

# Relative errors in norm over which a result of the kernels counts as wrong, of z and of a gradient; in their tests
# too. They hold at all sizes. What is rounded element by element is the same part of a norm however many there are.
# Long sums go block by block in float32, rounded to nearest: their errors have either sign, as their terms do, and grow
# no faster than the sums. Products as three of TF32 err by about 1e-6.
LIMITS = {torch.bfloat16: (1e-2, 2e-2), torch.float16: (2e-3, 4e-3), torch.float32: (2e-5, 2e-5)}


def relative_error(result: Tensor, expected: Tensor) -> float:
    """|result - expected| / |expected| in Euclidean norm; infinite where a zero is missed or a NaN got through.

    Raises:
        ValueError: the shapes differ.
    """
    if result.shape != expected.shape:
        raise ValueError(f"result must have shape {tuple(expected.shape)}, got {tuple(result.shape)}")
    # wide enough that the difference of close numbers is exact, and no wider: states are large
    dtype = torch.promote_types(torch.promote_types(result.dtype, expected.dtype), torch.float32)
    distance, size = (
        torch.linalg.vector_norm(values, dtype=torch.float64).item()
        for values in (result.to(dtype) - expected.to(dtype), expected)
    )
    if distance == 0:
        return 0.0
    return distance / size if size > 0 and distance == distance else float("inf")


def relative_errors(results: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, float]:
    """`relative_error` of each result by name; `expected` may have more.

    Raises:
        ValueError: the shapes of one differ.
    """
    return {name: relative_error(result, expected[name]) for name, result in results.items()}
