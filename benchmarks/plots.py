"""Plots of results files: bars side by side, and the roofline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlfa.files.figures import new_figure, write_png

from .cases import Case, shape_name
from .floors import operations, tensors_moved
from .results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EAGER_COLOUR = "#b0b8c0"
OURS_COLOURS = ("#c44e52", "#e39a7b", "#8c2d3a", "#d97fa6", "#f2c0a2", "#6b3a1e", "#b5651d", "#f08080")
OTHER_COLOURS = ("#4878a8", "#6aa584", "#8a6fb0", "#c9a227", "#7f7f7f", "#30343a")
GAP, BAR_HEIGHT = 0.2, 0.22
MARKERS = {"forward": "o", "backward": "s"}


@dataclass(frozen=True)
class Bars:
    """The content of a suite's bars: a row's value, if any, its group of bars, and the axis label."""

    value: Callable[[dict[str, Any]], float | None]
    group: Callable[[dict[str, Any]], str]
    label: str


def size(row: dict[str, Any]) -> str:
    """Return the shape of a row, such as 32x128x768."""
    return shape_name(row["shape"])


def pass_and_size(row: dict[str, Any]) -> str:
    """Return the pass and shape of a row, such as "forward 32x128x768"."""
    return f"{row['pass']} {size(row)}"


def draw(suite: str, bars: Bars, results: Results, folder: Path) -> list[Path]:
    """Draw a suite's plots, `SUITE.png` and for `aif` `roofline.png`, into `folder`, if anything was measured.

    Returns:
        The files written, each replaced as a whole.
    """
    figures: dict[Path, Figure] = {}
    if any(bars.value(row) is not None for row in results.rows):
        figures[folder / f"{suite}.png"] = grouped_bars(bars, results)
    if suite == "aif" and any(row["median_us"] and row["pass"] in MARKERS for row in results.rows):
        figures[folder / "roofline.png"] = roofline(results)
    for path, figure in figures.items():
        write_png(figure, path)
    return list(figures)


def grouped_bars(bars: Bars, results: Results) -> Figure:
    """Plot one group of horizontal bars a case, with one bar a provider."""
    values = [(bars.group(row), row["provider"], bars.value(row)) for row in results.rows]
    measured = {(group, provider): value for group, provider, value in values if value is not None}
    groups, providers = (list(dict.fromkeys(key[i] for key in measured)) for i in (0, 1))
    colours = _colours(providers)
    heights = {group: sum((group, name) in measured for name in providers) for group in groups}
    total = sum(BAR_HEIGHT * count + GAP for count in heights.values())
    figure = new_figure(9, 1.4 + total)
    axes = figure.add_subplot()
    y, ticks, labelled = 0.0, [], set()
    for group in groups:
        top = y
        for name in providers:
            if (group, name) in measured:
                value = measured[group, name]
                label = None if name in labelled else name
                labelled.add(name)
                bar = axes.barh(y, value, height=BAR_HEIGHT * 0.9, color=colours[name], label=label)
                axes.bar_label(bar, labels=[f"{value:.3g}"], fontsize=7, padding=2)
                y += BAR_HEIGHT
        ticks.append((top + y - BAR_HEIGHT) / 2)
        y += GAP
    axes.set_yticks(ticks, groups, fontsize=7)
    axes.set_ylim(y - GAP + BAR_HEIGHT / 2, -BAR_HEIGHT)
    axes.margins(x=0.08)
    axes.set_xlabel(bars.label)
    _finish(figure, axes, results)
    return figure


def roofline(results: Results) -> Figure:
    """Plot operations a second over operations a byte of the core rows, below the measured roof."""
    header = results.header
    bandwidth, rate = header["copy_tb_s"], header["matmul_tflop_s"]
    figure = new_figure(8, 5.5)
    axes = figure.add_subplot()
    rows = [row for row in results.rows if row["median_us"] and row["pass"] in MARKERS and row["dtype"] == "bfloat16"]
    colours = _colours(list(dict.fromkeys(row["provider"] for row in rows)))
    intensities = []
    for row in rows:
        case = case_of(row)
        flops = operations(case, row["pass"])
        intensity = flops / (tensors_moved(case, row["pass"]) * case.tensor_bytes)
        intensities.append(intensity)
        axes.scatter(
            intensity, flops / row["median_us"] / 1e6, s=22, marker=MARKERS[row["pass"]],
            color=colours[row["provider"]], label=f"{row['provider']}, {row['pass']}", zorder=3,
        )  # fmt: skip
    ridge = rate / bandwidth
    ends = [min([*intensities, ridge]) / 2, max([*intensities, ridge]) * 2]
    points = [ends[0], ridge, ends[1]]
    axes.plot(points, [min(rate, bandwidth * point) for point in points], color="#30343a", linewidth=1.2, zorder=2)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations a byte, at the fewest of both, bfloat16")
    axes.set_ylabel("those operations over time, TFLOP/s")
    _finish(figure, axes, results)
    return figure


def case_of(row: dict[str, Any]) -> Case:
    """Return the case of a row that is neither packed nor of one token."""
    batch, length, embed_dim = row["shape"]
    settings = {key: row[key] for key in ("squeeze_dim", "kernel_size", "fuse", "dtype", "fill")}
    return Case((batch, length, embed_dim), **settings)


def _colours(providers: list[str]) -> dict[str, str]:
    colours = dict.fromkeys(providers, EAGER_COLOUR)
    for names, palette in (
        ([name for name in providers if name.startswith("ours")], OURS_COLOURS),
        ([name for name in providers if not name.startswith(("ours", "eager"))], OTHER_COLOURS),
    ):
        colours |= {name: palette[index % len(palette)] for index, name in enumerate(names)}
    return colours


def _finish(figure: Figure, axes: Any, results: Results) -> None:
    header = results.header
    where = header["gpu"] or "CPU, small sizes"
    axes.set_title(f"{where}; torch {header['torch']}, {header['date'][:10]}", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=3, fontsize=7, frameon=False)
