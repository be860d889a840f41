"""Uncertainty of a mean over seeds, and formatting of numbers with it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A confidence interval, with the two-sided p-value of "no difference", or None without a test."""

    low: float
    high: float
    p: float | None


def t_interval(values: Sequence[float]) -> Interval | None:
    """Compute Student's t interval of the mean of `values` at `CONFIDENCE`, and the test against a mean of 0.

    On differences of paired runs this is the paired t-test over seeds. Fewer than two values give None. If all values
    are the same, there is no spread to test with and p is None.
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
    """Return whether `values` differ only by rounding, so that a test on them would be meaningless."""
    return math.isclose(max(values), min(values), rel_tol=1e-9, abs_tol=1e-12)


def deviation(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation; None for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for the false discovery rate over all of them (Benjamini and Hochberg)."""
    from scipy.stats import false_discovery_control

    return [float(value) for value in false_discovery_control(p_values)] if len(p_values) else []


def percent(value: float | None, uncertainty: float | None = None, *, sign: bool = False) -> str:
    """Format a fraction as percent, with as many digits as its uncertainty allows: 74.61 ± 0.27, 74.6 ± 1.3."""
    if value is None:
        return "-"
    decimals = _decimals(None if uncertainty is None else 100 * uncertainty)
    rounded = round(100 * value, decimals) + 0.0  # no "-0.0"
    text = f"{rounded:{'+' if sign else ''}.{decimals}f}"
    return text if uncertainty is None else f"{text} ± {100 * uncertainty:.{decimals}f}"


def interval_text(interval: Interval | None) -> str:
    """Format an interval in percentage points with sign, such as [+0.31, +0.92]."""
    if interval is None:
        return "-"
    decimals = _decimals(50 * (interval.high - interval.low))
    return f"[{100 * interval.low:+.{decimals}f}, {100 * interval.high:+.{decimals}f}]"


def p_text(p: float | None) -> str:
    """Format a p-value with three decimals, or as "< 0.001"."""
    if p is None:
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _decimals(uncertainty: float | None) -> int:
    """Return 2 if the uncertainty is below one, else 1."""
    return 2 if uncertainty is not None and uncertainty < 1 else 1
