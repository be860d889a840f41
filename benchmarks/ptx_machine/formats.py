"""bfloat16, float16 and TF32 in the bits of registers, and two 16-bit values in one register."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]


def widen_bfloat16(bits: Values) -> Values:
    """uint16 -> float32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def round_to_bfloat16(values: Values) -> Values:
    """float32 -> uint16, to nearest even."""
    bits = np.asarray(values, dtype=np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return np.where(np.isnan(values), np.uint16(0x7FFF), (rounded >> np.uint32(16)).astype(np.uint16))


def widen_float16(bits: Values) -> Values:
    """uint16 -> float32."""
    return bits.view(np.float16).astype(np.float32)


def round_to_float16(values: Values) -> Values:
    """float32 -> uint16, to nearest even."""
    return np.asarray(values, dtype=np.float32).astype(np.float16).view(np.uint16)


WIDEN: dict[str, Callable[[Values], Values]] = {"bf16": widen_bfloat16, "f16": widen_float16}
ROUND: dict[str, Callable[[Values], Values]] = {"bf16": round_to_bfloat16, "f16": round_to_float16}


def low(pair: Values) -> Values:
    """Return the lower 16 bits of 32."""
    return (pair & np.uint32(0xFFFF)).astype(np.uint16)


def high(pair: Values) -> Values:
    """Return the upper 16 bits of 32."""
    return (pair >> np.uint32(16)).astype(np.uint16)


def pair(low_half: Values, high_half: Values) -> Values:
    """Return 32 bits from two halves of 16."""
    return low_half.astype(np.uint32) | (high_half.astype(np.uint32) << np.uint32(16))


def round_to_tf32(values: Values) -> Values:
    """float32 -> bits of TF32, ties away from zero, as `cvt.rna`."""
    return (values.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)


def cut_to_tf32(bits: Values) -> Values:
    """Return 32 bits as a TF32 product reads them, without the lower 13."""
    return (bits & np.uint32(0xFFFFE000)).view(np.float32)


def flush_denormals(values: Values) -> Values:
    """Return float32 values with denormals replaced by zeros of their sign."""
    return np.where(np.abs(values) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), values), values)
