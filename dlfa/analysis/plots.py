"""Plots of an analysis."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files.figures import COLOURS, new_figure, write_png
from .analyzed_model import FUSED
from .findings import zero_shot_mean
from .layer_contributions import BRANCHES, LAST

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BOX = ("whislo", "q1", "med", "q3", "whishi")  # matplotlib's names for the five quantiles


def probe_plot(findings: dict[str, Any], path: Path) -> bool:
    """Draw, by layer, the label probe on its training language and on the others, and the language probe.

    Returns:
        Whether there was a probe; otherwise nothing is drawn.
    """
    labels, languages = findings["label_probe"], findings["language_probe"]
    panels = [draw for draw, there in ((_label_panel, labels), (_language_panel, languages)) if there]
    if not panels:
        return False
    figure = new_figure(5.6 * len(panels), 4.2)
    for axes, draw in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        draw(axes, findings)
        layers = findings["layers"]
        axes.set_xticks(range(len(layers)), layers, fontsize=7 if len(layers) > 16 else 8)
        axes.set_xlabel("layer (0: embeddings)")
        axes.tick_params(axis="y", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=8, frameon=False, loc="best")
    figure.suptitle(f"{findings['model']}: linear probes on frozen states", fontsize=11)
    write_png(figure, path)
    return True


def language_layer_heat_map(findings: dict[str, Any], path: Path) -> bool:
    """Draw the label probe by language and layer, with each language's best layer framed.

    Returns:
        Whether there was a label probe; otherwise nothing is drawn.
    """
    if not findings["label_probe"]:
        return False
    metric, layers = findings["metric"], findings["layers"]
    names = list(findings["label_probe"])
    values = 100 * np.array([findings["label_probe"][name][metric] for name in names])
    figure = new_figure(max(6.0, 1.6 + 0.45 * len(layers)), 1.6 + 0.27 * len(names))
    from matplotlib.patches import Rectangle

    axes = figure.add_subplot()
    image = axes.imshow(values, cmap="viridis", aspect="auto")
    middle = (values.min() + values.max()) / 2
    for row, column in np.ndindex(values.shape):
        colour = "white" if values[row, column] < middle else "black"
        axes.text(column, row, f"{values[row, column]:.0f}", ha="center", va="center", fontsize=7, color=colour)
    for row, best in enumerate(values.argmax(axis=1)):
        axes.add_patch(Rectangle((best - 0.48, row - 0.46), 0.96, 0.92, fill=False, edgecolor="#d1353c", linewidth=1.6))
    source = findings["train_language"]
    axes.set_yticks(range(len(names)), [f"{name}*" if name == source else name for name in names], fontsize=8)
    axes.set_xticks(range(len(layers)), layers, fontsize=8)
    axes.set_xlabel("layer; framed: best of the language; * training language", fontsize=8)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, fraction=0.04).ax.tick_params(labelsize=7)
    axes.set_title(f"{findings['model']}, {findings['task']}: {metric} of the label probe, %", fontsize=10)
    write_png(figure, path)
    return True


def gate_plot(findings: dict[str, Any], path: Path) -> bool:
    """Draw each gate by language: quantiles, and the channels' means, sorted by their mean over languages.

    Returns:
        Whether there was a gate; otherwise nothing is drawn.
    """
    gates = findings["gates"]
    if not gates:
        return False
    names = list(gates[0]["languages"])
    height = 1.5 + 0.26 * len(names)
    figure = new_figure(11.0, height * len(gates) + 0.5)
    rows = figure.subplots(len(gates), 2, squeeze=False, width_ratios=[1, 1.35])
    for (left, right), gate in zip(rows, gates, strict=True):
        summaries = [gate["languages"][name] for name in names]
        boxes = [
            {"label": name, **dict(zip(_BOX, item["quantiles"].values(), strict=True))}
            for name, item in zip(names, summaries, strict=True)
        ]
        places = np.arange(len(names))
        left.bxp(
            boxes, positions=places, showfliers=False, orientation="horizontal", widths=0.6, patch_artist=True,
            boxprops={"facecolor": COLOURS[0], "alpha": 0.5}, medianprops={"color": "black"},
        )  # fmt: skip
        left.plot([item["mean"] for item in summaries], places, "D", color=COLOURS[1], markersize=3.5)
        left.set_xlim(0, 1)
        left.invert_yaxis()
        left.tick_params(labelsize=8)
        left.set_xlabel("gate (box: quartiles; whiskers: 5 % and 95 %; diamond: mean)", fontsize=8)
        left.spines[["top", "right"]].set_visible(False)
        channels = np.array([item["channels"] for item in summaries])
        order = channels.mean(axis=0).argsort()
        image = right.imshow(channels[:, order], cmap="RdBu", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        right.set_yticks(places, names, fontsize=8)
        right.set_xlabel("channels, sorted by their mean gate", fontsize=8)
        right.tick_params(labelsize=8)
        figure.colorbar(image, ax=right, fraction=0.04).ax.tick_params(labelsize=7)
        ends = f" (0: layer {gate['layer']} alone, 1: the last alone)" if gate["fuse"] == "select" else ""
        left.set_title(f"{gate['fuse']} of layer {gate['layer']}{ends}", fontsize=10)
        right.set_title("mean gate by channel", fontsize=10)
    figure.suptitle(f"{findings['model']}: the gate by language", fontsize=11)
    write_png(figure, path)
    return True


def contribution_plot(findings: dict[str, Any], path: Path) -> bool:
    """Draw each layer's share of the output, by language.

    Returns:
        Whether there was a fusion of several layers; otherwise nothing is drawn.
    """
    by_language = findings["contributions"]
    names = list(by_language)
    layers = list(by_language[names[0]])
    if len(layers) < 2:
        return False
    figure = new_figure(7.0, 1.7 + 0.25 * len(names))
    axes = figure.add_subplot()
    left = np.zeros(len(names))
    shades = _shades(len(layers))
    for layer, colour in zip(layers, shades, strict=True):
        shares = np.array([100 * by_language[name][layer]["norm_share"] for name in names])
        label = {LAST: "last layer", BRANCHES: BRANCHES}.get(layer, f"layer {layer}")
        bars = axes.barh(names, shares, left=left, color=colour, label=label)
        if len(layers) <= 4:
            axes.bar_label(bars, fmt="%.0f", label_type="center", fontsize=7, color="white")
        left += shares
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the output by the norms of its parts, %", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{findings['model']}: what each layer adds to the output", fontsize=10)
    figure.legend(loc="outside lower center", ncols=min(len(layers), 5), fontsize=8, frameon=False)
    write_png(figure, path)
    return True


def _shades(count: int) -> list[Any]:
    """Return distinct colours for few layers, or a colour scale for many."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    import matplotlib

    scale = matplotlib.colormaps["viridis"]
    return [scale(index / (count - 1)) for index in range(count)]


def _label_panel(axes: Axes, findings: dict[str, Any]) -> None:
    metric, source, scores = findings["metric"], findings["train_language"], findings["label_probe"]
    for index, language in enumerate(language for language in scores if language != source):
        label = "each zero-shot language" if index == 0 else None
        _curve(axes, findings, scores[language][metric], color="#9aa3ab", linewidth=0.7, alpha=0.6, label=label)
    mean = zero_shot_mean(findings, metric)
    if mean is not None:
        _curve(axes, findings, mean, color=COLOURS[1], marker="o", label="zero-shot mean")
    _curve(axes, findings, scores[source][metric], color=COLOURS[0], marker="s", label=f"{source} (training)")
    axes.set_ylabel(f"{metric}, %")
    axes.set_title(f"labels of {findings['task']}, {findings['probe_examples']} training sentences", fontsize=10)


def _language_panel(axes: Axes, findings: dict[str, Any]) -> None:
    probe = findings["language_probe"]
    between = probe["between_language_variance"]
    accuracy = f"accuracy, {findings['folds']} folds"
    _curve(axes, findings, probe["accuracy"], color=COLOURS[2], marker="o", label=accuracy)
    _curve(axes, findings, between, color=COLOURS[4], marker="^", label="variance between languages")
    axes.axhline(100 * probe["chance"], color="#6f7780", linestyle=":", label="accuracy by chance")
    axes.set_ylim(0, 104)
    axes.set_ylabel("%")
    axes.set_title(f"language of a sentence, {len(findings['examples'])} languages", fontsize=10)


def _curve(axes: Axes, findings: dict[str, Any], values: list[float], **style: Any) -> None:
    """Draw a line over the encoder's layers, and a separate point for the fused states."""
    percent = [100 * value for value in values]
    fused = findings["layers"][-1] == FUSED
    layers = percent[:-1] if fused else percent
    axes.plot(range(len(layers)), layers, markersize=4, **style)
    if fused:
        point = {**style, "marker": style.get("marker", "."), "linestyle": "", "label": None}
        axes.plot([len(layers)], percent[-1:], markersize=4, **point)
        axes.axvline(len(layers) - 0.5, color="#d0d4d8", linewidth=0.8)
