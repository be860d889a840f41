"""Figures without a display, written atomically as PNG."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from . import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#4878a8", "#d1793c", "#5a9e5d", "#b5495b", "#8367a8", "#8c6d4f", "#c77ba6", "#6f7780")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, size in inches, with a layout in which labels do not overlap.

    Callers import matplotlib after this, because of what it does about backends.
    """
    # A notebook names its backend to the commands that it starts; without that backend matplotlib cannot be imported.
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        from matplotlib.figure import Figure
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return Figure(figsize=(width, height), layout="constrained")


def write_png(figure: Figure, path: Path) -> None:
    """Write the figure to `path`, which is replaced atomically."""
    for text in (*figure.texts, *(axes.title for axes in figure.axes)):
        text.set_parse_math(False)  # titles name folders, which may have dollar signs
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    atomic.write_bytes(path, content.getvalue())
