"""Sizes rounded up."""

from __future__ import annotations


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def power_of_two(value: int) -> int:
    """The smallest power of two that is at least `value`, and at least 16, the smallest side of a matrix product."""
    return max(16, 1 << (value - 1).bit_length())
