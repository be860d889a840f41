"""Format layers and gains for table cells."""

from __future__ import annotations

from dlfa.report.significance import interval_text
from dlfa.report.variants import Variant

from .comparisons import ComparableVariants

NONE = "-"


def layers_of(variant: Variant) -> str:
    """Return the lower layers, "all" for a scalar mix, or "last"."""
    if variant.fusion == "last":
        return "last"
    return "+".join(map(str, variant.layers)) or "all"


def points(value: float) -> str:
    """Return a difference in percentage points."""
    return f"{round(100 * value, 2) + 0.0:+.2f}"  # no "-0.00"


def gain_with_interval(comparable: ComparableVariants, variant: Variant, reference: Variant | None) -> str:
    """Return the gain of one variant over another; "-" if the other is the same, None or not compared."""
    if reference is None or reference not in comparable.comparison.runs or reference == variant:
        return NONE
    gain = comparable.gain(variant, reference)
    return f"{points(gain.mean)} {interval_text(gain.interval)}"
