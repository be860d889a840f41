"""Uncertainty of a mean over seeds, and how figures are written with it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A confidence interval, with the two-sided p-value of "no difference"; None where there is none."""

    low: float
    high: float
    p: float | None


def t_interval(values: Sequence[float]) -> Interval | None:
    """Student's t interval of the mean of `values` at `CONFIDENCE`, and the test against a mean of 0.

    On the differences of paired runs this is the paired t-test over seeds. None of fewer than two values. Values that
    are all the same have no spread, so there is no test: p is None.
    """
    from scipy.stats import ttest_1samp

    if len(values) < 2:
        return None
    if all_same(values):
        return Interval(values[0], values[0], None)
    result = ttest_1samp(values, 0.0)
    low, high = result.confidence_interval(CONFIDENCE)
    return Interval(float(low), float(high), float(result.pvalue))


def all_same(values: Sequence[float]) -> bool:
    """Whether `values` differ by nothing but rounding, from which no test may draw a p-value."""
    return math.isclose(max(values), min(values), rel_tol=1e-9, abs_tol=1e-12)


def deviation(values: Sequence[float]) -> float | None:
    """The sample standard deviation; None of fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def adjusted(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for the false discovery rate over all of them (Benjamini and Hochberg)."""
    from scipy.stats import false_discovery_control

    return [float(value) for value in false_discovery_control(p_values)] if len(p_values) else []


def percent(value: float | None, uncertainty: float | None = None, *, sign: bool = False) -> str:
    """A fraction as percent, with as many digits as its uncertainty allows: 74.61 ± 0.27, 74.6 ± 1.3."""
    if value is None:
        return "-"
    decimals = _decimals(None if uncertainty is None else 100 * uncertainty)
    rounded = round(100 * value, decimals) + 0.0  # no "-0.0"
    text = f"{rounded:{'+' if sign else ''}.{decimals}f}"
    return text if uncertainty is None else f"{text} ± {100 * uncertainty:.{decimals}f}"


def interval_text(interval: Interval | None) -> str:
    """In percent points with sign, such as [+0.31, +0.92]."""
    if interval is None:
        return "-"
    decimals = _decimals(50 * (interval.high - interval.low))
    return f"[{100 * interval.low:+.{decimals}f}, {100 * interval.high:+.{decimals}f}]"


def p_text(p: float | None) -> str:
    """Three decimals, or that it is less."""
    if p is None:
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _decimals(uncertainty: float | None) -> int:
    """Two where the uncertainty lies below one, else one."""
    return 2 if uncertainty is not None and uncertainty < 1 else 1
