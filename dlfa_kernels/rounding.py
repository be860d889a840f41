"""Functions that round sizes up."""

from __future__ import annotations


def cdiv(a: int, b: int) -> int:
    """Return a / b, rounded up."""
    return -(-a // b)


def padded_side(value: int) -> int:
    """Return the next power of two from `value` on, at least 16, the smallest side of a matrix product."""
    return max(16, 1 << (value - 1).bit_length())
