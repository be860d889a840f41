"""Write an analysis as Markdown with plots, and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..files import atomic
from ..files.markdown_documents import write_document
from ..report.tables import Table
from ..runs.output_paths import make_folder
from .findings import zero_shot_mean
from .gate_statistics import CLOSED, OPEN
from .plots import contribution_plot, gate_plot, language_layer_heat_map, probe_plot

ANALYSIS, DATA = "analysis.md", "analysis.json"
FILES = (ANALYSIS, DATA, "probes.png", "probe-languages.png", "gates.png", "contributions.png")


def write_analysis(folder: Path, findings: dict[str, Any]) -> Path:
    """Write `FILES` to `folder`, without plots that have no data, and return the path of analysis.md.

    Raises:
        ValueError: `folder` is a file, or cannot be created.
    """
    make_folder("--output", folder)
    atomic.write_json(folder / DATA, findings)
    parts = [f"# What the layers of {findings['model']} hold\n", _facts(findings)]
    parts += [f"- {note}\n" for note in findings["notes"]]
    for title, text, table, picture in (
        ("Probes by layer", probe_text(findings), layer_table(findings), (probe_plot, "probes.png")),
        ("Label probe by language", "", language_table(findings), (language_layer_heat_map, "probe-languages.png")),
        ("Gates", _GATES, gate_table(findings), (gate_plot, "gates.png")),
        ("What the gate varies with", _VARIANCE, variance_table(findings), None),
        ("What each layer adds", _PARTS, contribution_table(findings), (contribution_plot, "contributions.png")),
    ):
        if table is not None:
            parts += [f"## {title}\n", f"{text}\n" if text else "", table.markdown()]
            if picture is not None and picture[0](findings, folder / picture[1]):
                parts.append(f"![{title}]({picture[1]})\n")
    write_document(folder / ANALYSIS, "\n".join(part for part in parts if part), [DATA])
    return folder / ANALYSIS


_GATES = (
    f"Over the tokens of each language and all channels. Nearly closed: below {CLOSED}; nearly open: above {OPEN}; a "
    "channel counts by its mean over the tokens."
)
_VARIANCE = (
    "Shares of the gate's variance over all tokens and channels: between the channels' means, between languages, "
    "between the sentences of a language, between the tokens of a sentence. A gate that varies between channels alone "
    "is a fixed weight a channel."
)
_PARTS = (
    "The output is a sum of layers, each times a coefficient (the gate m, 1 - m, or a fixed weight); branches that are "
    "added count as one. Weight: the mean coefficient. Share: the norm of a layer's part over the sum of all parts' "
    "norms, mean over tokens."
)


def layer_table(findings: dict[str, Any]) -> Table | None:
    """Return one row per layer: the label probe on its training language and zero-shot, and the language probe."""
    labels, languages = findings["label_probe"], findings["language_probe"]
    if not labels and not languages:
        return None
    metric, source = findings["metric"], findings["train_language"]
    columns: dict[str, list[str]] = {"layer": list(findings["layers"])}
    if labels:
        for name in dict.fromkeys((metric, "accuracy")):
            columns[f"{source} {name}"] = _percents(labels[source][name])
            mean = zero_shot_mean(findings, name)
            if mean is not None:
                columns[f"zero-shot {name}"] = _percents(mean)
    if languages:
        columns["language told"] = _percents(languages["accuracy"])
        columns["log loss"] = [f"{value:.3f}" for value in languages["log_loss"]]
        columns["variance between languages"] = _percents(languages["between_language_variance"])
    return Table(tuple(columns), tuple(zip(*columns.values(), strict=True)))


def language_table(findings: dict[str, Any]) -> Table | None:
    """Return one row per language: the label probe's best layer, and every layer's score."""
    labels = findings["label_probe"]
    if not labels:
        return None
    metric, layers = findings["metric"], findings["layers"]
    rows = []
    for language, scores in labels.items():
        best = layers[int(np.argmax(scores[metric]))]
        rows.append((language, str(findings["examples"][language]), best, *_percents(scores[metric])))
    return Table(("language", "examples", "best layer", *layers), tuple(rows))


def gate_table(findings: dict[str, Any]) -> Table | None:
    """Return one row per gate and language."""
    if not findings["gates"]:
        return None
    rows: list[tuple[str, ...]] = []
    for gate in findings["gates"]:
        for language, item in gate["languages"].items():
            low, *_, high = item["quantiles"].values()
            rows.append(
                (
                    f"{gate['layer']}, {language}",
                    f"{item['mean']:.3f} ± {item['deviation']:.3f}",
                    f"{low:.2f} .. {item['quantiles']['0.5']:.2f} .. {high:.2f}",
                    *_percents([item[name] for name in ("closed", "open", "channels_closed", "channels_open")]),
                )
            )
    columns = (
        "layer, language", "mean ± deviation", "5 % .. median .. 95 %", "gates closed, %", "open, %",
        "channels closed, %", "open, %",
    )  # fmt: skip
    return Table(columns, tuple(rows))


def variance_table(findings: dict[str, Any]) -> Table | None:
    """Return one row per gate: the shares of its variance, see `gate_statistics.variance_shares`."""
    rows = [(gate["layer"], *_percents(list(gate["variance"].values()))) for gate in findings["gates"]]
    columns = ("layer", "between channels, %", "between languages, %", "between sentences, %", "between tokens, %")
    return Table(columns, tuple(rows)) if rows else None


def contribution_table(findings: dict[str, Any]) -> Table | None:
    """Return one row per language: weight and share of every layer."""
    by_language = findings["contributions"]
    layers = list(next(iter(by_language.values())))
    if len(layers) < 2:
        return None
    rows = [
        (language, *(text for layer in layers for text in (f"{parts[layer]['weight']:.3f}", _share(parts[layer]))))
        for language, parts in by_language.items()
    ]
    columns = [name for layer in layers for name in (f"{layer}: weight", f"{layer}: share, %")]
    return Table(("language", *columns), tuple(rows))


def probe_text(findings: dict[str, Any]) -> str:
    """Describe which layer is best for each probe."""
    layers, metric, source = findings["layers"], findings["metric"], findings["train_language"]
    lines = []
    if findings["label_probe"]:
        own = findings["label_probe"][source][metric]
        lines.append(f"The label probe ({metric}) is best on {source} at layer {_best(layers, own)}")
        mean = zero_shot_mean(findings, metric)
        if mean is not None:
            lines[-1] += f", zero-shot at layer {_best(layers, mean)}"
    if findings["language_probe"]:
        between = findings["language_probe"]["between_language_variance"]
        most, least = int(np.argmax(between)), int(np.argmin(between))
        lines.append(
            f"The languages lie furthest apart at layer {layers[most]} ({100 * between[most]:.1f} % of the sentences' "
            f"variance lies between them), least at layer {layers[least]} ({100 * between[least]:.1f} %)"
        )
    return "".join(f"{line}.\n" for line in lines)


def _facts(findings: dict[str, Any]) -> str:
    fusion = findings["fusion"]
    if findings["fusion_layer"] is not None:
        fusion += f" {findings['fuse'] or ''} with layer {findings['fusion_layer']}".replace("  ", " ")
    counts = ", ".join(f"{language} {count}" for language, count in findings["examples"].items())
    word = f" Words are read on their sub-words: {findings['label_subword']}." if findings["label_subword"] else ""
    return (
        f"Task {findings['task']}, fusion: {fusion}. Label probes were trained on {findings['probe_examples']} "
        f"{findings['train_language']} sentences (logistic regression, C = {findings['probe_strength']}) and tested on "
        f"sentences of each language: {counts}. The language probe is cross-validated on the means of the same "
        f"sentences.{word} {findings['seconds']:.0f} seconds.\n"
    )


def _best(layers: list[str], values: list[float]) -> str:
    index = int(np.argmax(values))
    return f"{layers[index]} ({100 * values[index]:.1f})"


def _percents(values: list[float]) -> list[str]:
    return [f"{100 * value:.1f}" for value in values]


def _share(part: dict[str, float]) -> str:
    return f"{100 * part['norm_share']:.1f}"
