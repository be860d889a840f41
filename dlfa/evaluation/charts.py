"""The bar chart of a run's results, and a one-line title of the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files.figures import new_figure, write_png

BAR, SOURCE_BAR, ALL_LINE, ZERO_SHOT_LINE = "#4878a8", "#b0b8c0", "#30343a", "#c44e52"


def bar_chart(results: Mapping[str, Any], path: Path) -> None:
    """Draw the main metric per language, with its averages as lines, to the PNG file `path`.

    Args:
        results: the output of `dlfa.evaluation.results.summary`.
        path: the file; it is replaced atomically.

    Raises:
        ValueError: the results have no language.
    """
    metric, source, languages = results["metric"], results["train_language"], results["languages"]
    if not languages:
        raise ValueError("results must hold at least one language")
    names = sorted(languages)
    values = [100 * languages[name][metric] for name in names]
    figure = new_figure(max(5.0, 0.34 * len(names) + 1.6), 4.2)
    from matplotlib.patches import Patch
    from matplotlib.patheffects import withStroke

    axes = figure.add_subplot()
    colours = [SOURCE_BAR if name == source else BAR for name in names]
    bars = axes.bar(names, values, color=colours, width=0.75)
    halo = [withStroke(linewidth=2.5, foreground="white")]  # numbers stay readable where a line crosses them
    axes.bar_label(bars, fmt="%.0f", fontsize=7, padding=1, path_effects=halo, zorder=5)
    handles: list[Any] = [Patch(color=BAR, label="zero-shot")]
    if source in names:
        handles.append(Patch(color=SOURCE_BAR, label=f"training language ({source})"))
    for value, colour, style, label in (
        (results["average_zero_shot"], ZERO_SHOT_LINE, "-", "average, zero-shot"),
        (results["average"], ALL_LINE, "--", "average, all"),
    ):
        if value is not None:
            text = f"{label}: {100 * value:.1f}"
            handles.append(axes.axhline(100 * value, color=colour, linestyle=style, linewidth=1.2, label=text))
    axes.set_ylim(0, 100)
    axes.set_xlim(-0.7, len(names) - 0.3)
    axes.set_ylabel(f"{metric}, %")
    axes.set_title(title(results), fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    write_png(figure, path)


def title(results: Mapping[str, Any]) -> str:
    """Return the task, model and fusion in one line."""
    parts = [results["task"], results["model"]]  # an ensemble of several models has no one name
    if "ensemble" in results:
        parts.append(f"ensemble of {len(results['ensemble']['runs'])} runs")
    else:
        parts.append(_fusion(results))
    return ", ".join(part for part in parts if part is not None)


def _fusion(results: Mapping[str, Any]) -> str:
    fusion, layers = results.get("fusion", "last"), results.get("fusion_layer")
    if fusion == "last":
        return "last layer"
    if layers is None:
        where = "all layers" if fusion == "scalar_mix" else "an external input"
    elif isinstance(layers, list):
        where = f"layers {', '.join(map(str, layers))}"
    else:
        where = f"layer {layers}"
    return f"{fusion} with {where}" + (f", {results.get('fuse')}" if fusion == "aif" else "")
