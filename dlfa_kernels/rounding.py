"""Sizes rounded up."""

from __future__ import annotations


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def padded_side(value: int) -> int:
    """The side of a block that holds `value`: a power of two, 16 at least, the smallest side of a matrix product."""
    return max(16, 1 << (value - 1).bit_length())
