"""Plots of findings."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files.figures import COLOURS, new_figure, write_png
from ..tasks.language_families import language
from .comparison import Comparison
from .findings import Findings
from .language_groups import FAMILY, LANGUAGE, SCRIPT, LanguageGroup, language_group
from .significance import deviation
from .variants import Variant

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def layer_curve(findings: Findings, path: Path) -> bool:
    """Draw scores by fusion layer: per mode a line, deviation and seeds; variants without a layer are horizontal lines.

    Returns:
        Whether some mode was run with several single layers; otherwise nothing is drawn.
    """
    comparison = findings.comparison
    modes: dict[str, list[Variant]] = {}
    for variant in comparison.runs:
        if len(variant.layers) == 1:
            modes.setdefault(variant.mode, []).append(variant)
    if all(len(members) < 2 for members in modes.values()):
        return False
    flat = [variant for variant in comparison.runs if not variant.layers]
    groups = [findings.main_group]
    source = comparison.train_language
    if comparison.zero_shot and source in comparison.languages:
        groups.append(language_group(source))
    figure = new_figure(5.4 * len(groups), 4.4)
    layers = sorted({variant.layers[0] for members in modes.values() for variant in members})
    for axes, group in zip(np.atleast_1d(figure.subplots(1, len(groups))), groups, strict=True):
        for index, variant in enumerate(flat):
            _level(axes, findings.scores(variant, group), COLOURS[-1 - index % 3], variant.label, index)
        bounds: list[float] = []
        for index, (mode, members) in enumerate(modes.items()):
            shift = (index - (len(modes) - 1) / 2) * 0.12
            scores = [[100 * score for score in findings.scores(variant, group)] for variant in members]
            colour = COLOURS[index % len(COLOURS)]
            x = [variant.layers[0] + shift for variant in members]
            means = [statistics.fmean(values) for values in scores]
            spread = [deviation(values) or 0 for values in scores]
            bounds += [mean + sign * width for mean, width in zip(means, spread, strict=True) for sign in (-1, 1)]
            bounds += [value for values in scores for value in values]
            axes.errorbar(x, means, yerr=spread, color=colour, marker="o", markersize=4, capsize=2, label=mode)
            for place, values in zip(x, scores, strict=True):
                axes.plot([place] * len(values), values, ".", color=colour, alpha=0.35, markersize=4)
        name = f"{source} (training)" if group.name == source else f"{group.name}, {len(group.languages)} languages"
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("fusion layer (0: embeddings)")
        axes.set_ylabel(f"{comparison.metric}, %")
        axes.set_xticks(range(layers[0], layers[-1] + 1))
        axes.margins(x=0.08)
        levels = {variant.label: 100 * statistics.fmean(findings.scores(variant, group)) for variant in flat}
        _show_curves(axes, bounds, levels)
        _bare(axes)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(3 * len(groups), len(labels)), fontsize=8, frameon=False
    )
    spread_shown = ": mean ± deviation over seeds" if len(comparison.seeds) > 1 else ""
    figure.suptitle(f"{heading(comparison)}{spread_shown}", fontsize=11)
    write_png(figure, path)
    return True


def difference_plot(findings: Findings, path: Path) -> bool:
    """Draw gains in the zero-shot average, one row per variant, with intervals over sentences and seeds, and the seeds.

    Returns:
        Whether there was a difference; otherwise nothing is drawn.
    """
    comparison, group = findings.comparison, findings.main_group
    pairs = comparison.pairs
    if not pairs:
        return False
    effects = [findings.effects[variant, group] for variant, _ in pairs]
    figure = new_figure(8.0, 1.9 + 0.27 * len(pairs))
    axes = figure.add_subplot()
    rows = np.arange(len(pairs))[::-1]
    bounds = [100 * value for effect in effects for value in effect.differences]
    for row, effect in zip(rows, effects, strict=True):
        if effect.sentences is not None:
            low, high = 100 * effect.sentences.low, 100 * effect.sentences.high
            bounds += [low, high]
            axes.plot([low, high], [row, row], color=COLOURS[0], linewidth=6, alpha=0.4, solid_capstyle="butt")
        if effect.seeds is not None:
            axes.plot([100 * effect.seeds.low, 100 * effect.seeds.high], [row, row], color="#30343a", linewidth=1.2)
        axes.plot([100 * value for value in effect.differences], [row] * len(effect.differences), "|", color="#30343a")
        axes.plot([100 * effect.mean], [row], "o", color=COLOURS[0], markersize=5)
    axes.axvline(0, color="#b5495b", linewidth=1)
    # With only two seeds, the interval can be many times as wide as everything else; the plot then clips it.
    margin = 0.35 * max(max(bounds) - min(bounds), 0.2)
    axes.set_xlim(min(*bounds, 0) - margin, max(*bounds, 0) + margin)
    axes.set_yticks(rows, [variant.label for variant, _ in pairs], fontsize=8)
    axes.set_ylim(-0.7, len(pairs) - 0.3)
    axes.set_xlabel(f"gain in {comparison.metric}, {group.name}, percentage points")
    baselines = ", ".join(dict.fromkeys(baseline.label for _, baseline in pairs))
    axes.set_title(f"{heading(comparison)}: against {baselines}", fontsize=10)
    _bare(axes)
    from matplotlib.lines import Line2D

    handles: list[Any] = [Line2D([], [], color=COLOURS[0], marker="o", linestyle="", label="mean")]
    if any(effect.seeds is not None for effect in effects):
        handles += [
            Line2D([], [], color="#30343a", marker="|", linestyle="", label="one seed"),
            Line2D([], [], color="#30343a", linewidth=1.2, label="95 % over seeds (t)"),
        ]
    if any(effect.sentences is not None for effect in effects):
        label = "95 % over sentences (bootstrap)"
        handles.append(Line2D([], [], color=COLOURS[0], alpha=0.4, linewidth=6, label=label))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    write_png(figure, path)
    return True


def language_heat_map(findings: Findings, path: Path) -> bool:
    """Draw gains by variant and language, sorted by family; a bullet marks a discovery.

    Returns:
        Whether there was a difference; otherwise nothing is drawn.
    """
    comparison = findings.comparison
    groups = findings.of_kind(LANGUAGE)
    if not comparison.pairs:
        return False
    values = _gains(findings, groups)
    figure = new_figure(max(6.5, 2.6 + 0.38 * len(groups)), 2.6 + 0.3 * len(values))
    axes = figure.add_subplot()
    _heat(axes, values, list(comparison.baselines))
    for row, (variant, _) in enumerate(comparison.pairs):
        for code in findings.discoveries(variant):
            column = next(index for index, group in enumerate(groups) if group.name == code)
            axes.plot(column + 0.36, row - 0.33, ".", color="black", markersize=3)
    families = [language(group.name).family for group in groups]
    starts = [column for column in range(len(groups)) if column == 0 or families[column] != families[column - 1]]
    for start, stop in zip(starts, [*starts[1:], len(groups)], strict=True):
        if start:
            axes.axvline(start - 0.5, color="white", linewidth=2.5)
        middle = (start + stop - 1) / 2
        axes.annotate(
            families[start], (middle, -0.5), xytext=(-5, 4), textcoords="offset points", rotation=50, fontsize=7,
            ha="left", va="bottom", annotation_clip=False,
        )  # fmt: skip
    source = comparison.train_language
    names = [f"{group.name}*" if group.name == source else group.name for group in groups]
    axes.set_xticks(range(len(groups)), names, fontsize=8)
    marks = ["* training language"] if source in comparison.languages else []
    if findings.resamples:
        marks.append("• holds over sentences at a false discovery rate of 5 %")
    axes.set_xlabel("; ".join(marks), fontsize=8)
    figure.suptitle(_gain_title(findings), fontsize=10)
    write_png(figure, path)
    return True


def group_heat_map(findings: Findings, path: Path) -> bool:
    """Draw gains by variant and family, and by variant and script, for the zero-shot languages only.

    Returns:
        Whether there was a difference; otherwise nothing is drawn.
    """
    comparison = findings.comparison
    kinds = [findings.of_kind(kind) for kind in (FAMILY, SCRIPT)]
    if not comparison.pairs or not any(kinds):
        return False
    figure = new_figure(max(6.5, 2.8 + 0.4 * sum(map(len, kinds))), 2.6 + 0.3 * len(comparison.pairs))
    pairs = figure.subplots(1, 2, sharey=True, width_ratios=[len(groups) for groups in kinds])
    limit = max(np.abs(_gains(findings, groups)).max() for groups in kinds)
    for axes, groups, name in zip(pairs, kinds, ("family", "script"), strict=True):
        _heat(axes, _gains(findings, groups), list(comparison.baselines), limit)
        axes.set_xticks(range(len(groups)), [group.label for group in groups], fontsize=8, rotation=50, ha="right")
        axes.set_title(f"by {name} (number of languages)", fontsize=9)
    figure.suptitle(_gain_title(findings), fontsize=10)
    write_png(figure, path)
    return True


def heading(comparison: Comparison) -> str:
    """Return task and model as one line."""
    return f"{comparison.task}, {comparison.model}"


def _gain_title(findings: Findings) -> str:
    baselines = ", ".join(dict.fromkeys(baseline.label for _, baseline in findings.comparison.pairs))
    metric = findings.comparison.metric
    return f"{heading(findings.comparison)}: gain in {metric} against {baselines}, percentage points"


def _gains(findings: Findings, groups: list[LanguageGroup]) -> np.ndarray:
    """Return (pairs, groups) gains in percentage points."""
    pairs = findings.comparison.pairs
    return np.array([[100 * findings.effects[variant, group].mean for group in groups] for variant, _ in pairs])


def _heat(axes: Axes, values: np.ndarray, variants: list[Variant], limit: float | None = None) -> None:
    """Draw a heat map with its numbers, zero in white; `limit` is the value of the darkest colour, at least 0.1."""
    bound = max(limit or float(np.abs(values).max()), 0.1)
    axes.imshow(values, cmap="RdBu", vmin=-bound, vmax=bound, aspect="auto")
    for row, column in np.ndindex(values.shape):
        value = round(float(values[row, column]), 1) + 0.0  # no "-0.0"
        colour = "white" if abs(value) > 0.65 * bound else "black"
        axes.text(column, row, f"{value:+.1f}", ha="center", va="center", fontsize=6.5, color=colour)
    axes.set_yticks(range(len(variants)), [variant.label for variant in variants], fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _level(axes: Axes, scores: list[float], colour: str, label: str, index: int) -> None:
    """Draw a variant without a layer as a horizontal line, with its deviation as a band."""
    centre, spread = 100 * statistics.fmean(scores), 100 * (deviation(scores) or 0)
    axes.axhline(centre, color=colour, linestyle=("--", ":", "-.")[index % 3], linewidth=1.3, label=label)
    if spread:
        axes.axhspan(centre - spread, centre + spread, color=colour, alpha=0.12, linewidth=0)


def _show_curves(axes: Axes, bounds: list[float], levels: dict[str, float]) -> None:
    """Fit the vertical axis to the curves and nearby levels; levels far off are given as text."""
    low, high = min(bounds), max(bounds)
    reach = 2 * max(high - low, 1.0)
    near = [level for level in levels.values() if low - reach <= level <= high + reach]
    far = {label: level for label, level in levels.items() if level not in near}
    low, high = min([low, *near]), max([high, *near])
    margin = 0.08 * max(high - low, 0.5)
    axes.set_ylim(low - margin, high + margin)
    for place, arrow, labels in (
        (0.02, "↓", [label for label, level in far.items() if level < low]),
        (0.94, "↑", [label for label, level in far.items() if level > high]),
    ):
        if labels:
            text = ", ".join(f"{label} {far[label]:.1f}" for label in labels)
            axes.text(0.02, place, f"{arrow} {text}", transform=axes.transAxes, fontsize=8)


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
