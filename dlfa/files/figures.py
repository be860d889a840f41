"""Figures without a display, written atomically as PNG."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from . import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#4878a8", "#d1793c", "#5a9e5d", "#b5495b", "#8367a8", "#8c6d4f", "#c77ba6", "#6f7780")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, size in inches, with a layout in which labels do not overlap."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def write_png(figure: Figure, path: Path) -> None:
    """Write the figure to `path`, which is replaced atomically."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    atomic.write_bytes(path, content.getvalue())
