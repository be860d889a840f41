"""AIF against its control: the gate's own effect beyond its parameters, on the same layers, options and seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from dlfa.report.significance import percent
from dlfa.report.tables import Table
from dlfa.report.variants import Variant
from dlfa_kernels.checks import FUSE_MODES

from .cells import NONE, gain_with_interval
from .comparisons import ComparableVariants

_GATED = [text for fuse in FUSE_MODES for text in (f"AIF {fuse}", "over residual")]
_COLUMNS = ("layers", "sum", "residual", "over the sum", *_GATED)


def control_table(comparable: ComparableVariants) -> Table | None:
    """Return one row for each set of layers (and options) of the control's runs; None if there are none."""
    rows = [(layers, *cells) for layers, cells in _rows(comparable)]
    return Table(_COLUMNS, tuple(rows)) if rows else None


def control_overview(named: Sequence[tuple[str, ComparableVariants]]) -> Table | None:
    """Return the same rows for several groups, each with its name."""
    rows = [
        (name, str(len(comparable.comparison.seeds)), layers, *cells)
        for name, comparable in named
        for layers, cells in _rows(comparable)
    ]
    return Table(("group", "seeds", *_COLUMNS), tuple(rows)) if rows else None


def _rows(comparable: ComparableVariants) -> Iterator[tuple[str, list[str]]]:
    """Yield the control's layers, and the cells after them."""
    runs = comparable.comparison.runs
    for control in (item for item in runs if item.fusion == "residual"):
        plain = replace(control, fusion="sum", options=())
        gated = [replace(control, fusion="aif", fuse=fuse) for fuse in FUSE_MODES]
        if not any(item in runs for item in gated):
            continue
        cells = [_score(comparable, plain), _score(comparable, control), gain_with_interval(comparable, control, plain)]
        for item in gated:
            gain = gain_with_interval(comparable, item, control) if item in runs else NONE
            cells += [_score(comparable, item), gain]
        yield control.label.removeprefix("residual "), cells


def _score(comparable: ComparableVariants, variant: Variant) -> str:
    return percent(comparable.score(variant)) if variant in comparable.comparison.runs else NONE
