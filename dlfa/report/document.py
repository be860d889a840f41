"""The report: report.md with its plots, and all runs in runs.csv."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..files import atomic
from ..files.markdown_documents import write_document
from ..runs.output_paths import make_folder
from .comparison import Comparison
from .ensembles import Ensemble
from .findings import Findings
from .language_groups import FAMILY, LANGUAGE, SCRIPT
from .plots import difference_plot, group_heat_map, heading, language_heat_map, layer_curve
from .runs import Run
from .runs_csv import runs_csv
from .tables import Table, choice_table, cost_table, difference_table, ensemble_table, group_table, score_table

REPORT, RUNS = "report.md", "runs.csv"
_PICTURES = ("layers", "differences", "families", "languages")


def report_files(comparisons: Sequence[Comparison]) -> list[str]:
    """Return the names of all files that the report on `comparisons` may contain."""
    names: set[str] = set()
    bases = [_file_name(item, names) for item in comparisons]
    return [REPORT, RUNS, *(f"{base}-{picture}.png" for base in bases for picture in _PICTURES)]


def write_report(
    folder: Path,
    findings: Sequence[Findings],
    runs: Sequence[Run],
    ensembles: Sequence[Ensemble] = (),
    notes: Sequence[str] = (),
) -> Path:
    """Write the report to `folder` and return its path. Files with the same names are replaced, others are kept.

    Args:
        folder: output folder, created if missing.
        findings: one section each.
        runs: the rows of runs.csv.
        ensembles: the rows of a table at the end.
        notes: notes on what the report leaves out.

    Raises:
        ValueError: `folder` is a file, or cannot be created.
    """
    make_folder("--output", folder)
    parts = ["# Results\n", _reading(findings), _bullets(notes)]
    names: set[str] = set()
    for item in findings:
        parts.append(_section(folder, item, _file_name(item.comparison, names)))
    several = ensemble_table(ensembles)
    if several is not None:
        parts += ["## Ensembles\n", "Averages over the zero-shot languages, percent.\n", several.markdown()]
    parts.append(f"All runs with all their scores: [{RUNS}]({RUNS}).\n")
    atomic.write_text(folder / RUNS, runs_csv(runs))
    write_document(folder / REPORT, "\n".join(part for part in parts if part), [RUNS])
    return folder / REPORT


def section_title(findings: Findings) -> str:
    """Return the task, model, split and seeds as one line."""
    comparison = findings.comparison
    seeds = ", ".join("not recorded" if seed is None else str(seed) for seed in comparison.seeds)
    split = "" if comparison.split == "test" else f", {comparison.split} data"
    return f"{heading(comparison)}{split}, {'seed' if len(comparison.seeds) == 1 else 'seeds'} {seeds}"


def left_out(findings: Findings) -> list[str]:
    """Return what is not in the tables or could not be computed, with reasons."""
    return [*findings.comparison.left_out, *findings.notes]


def _section(folder: Path, findings: Findings, name: str) -> str:
    comparison = findings.comparison
    protocol = ", ".join(f"{key} {value}" for key, value in sorted(comparison.protocol.items()) if value is not None)
    facts = [
        f"Metric: {comparison.metric}, percent. Languages: {len(comparison.languages)} "
        f"({' '.join(comparison.languages)}), training language {comparison.train_language}.",
        f"Protocol of all runs: {protocol or 'not recorded'}.",
    ]
    parts = [f"## {section_title(findings)}\n", "\n".join(facts) + "\n", _bullets(left_out(findings))]
    parts += _titled("Scores", score_table(findings), "Mean ± standard deviation over seeds.")
    if layer_curve(findings, folder / f"{name}-layers.png"):
        parts.append(_picture("Scores by fusion layer", f"{name}-layers.png"))
    if comparison.pairs:
        text = (
            "Gain over the baseline in percentage points, ± standard deviation over seeds. Over seeds: Student's t "
            "interval and paired t-test."
        )
        if findings.has_crossed:
            text += " Over seeds and languages: both at once, as samples of many (crossed random effects, Clark 1973)."
        if findings.resamples:
            text += f" Over sentences: paired bootstrap, {findings.resamples:,} resamples of each language's sentences."
        parts += _titled("Differences", difference_table(findings), text)
        if difference_plot(findings, folder / f"{name}-differences.png"):
            parts.append(_picture("Differences with their intervals", f"{name}-differences.png"))
    parts += _titled(
        "Choice of layer",
        choice_table(findings),
        f"Chosen on the development data of {comparison.train_language} alone; the oracle looks at the test data.",
    )
    if comparison.pairs:
        some = ""
        if len(findings.table_pairs()) < len(comparison.pairs):
            some = " Of modes with several layers, the one chosen; all are in the picture."
        text = f"Zero-shot languages only; the mean gain with its 95 % interval over sentences (else over seeds).{some}"
        for kind, title in ((FAMILY, "By language family"), (SCRIPT, "By script")):
            table = group_table(findings, kind)
            parts += _titled(title, table if table.rows else None, text)
        if group_heat_map(findings, folder / f"{name}-families.png"):
            parts.append(_picture("Gains by family and script", f"{name}-families.png"))
        text = "•: holds over sentences at a false discovery rate of 5 % over the languages (Benjamini and Hochberg)."
        parts += _titled(
            "By language", group_table(findings, LANGUAGE), ((text if findings.resamples else "") + some).strip()
        )
        if language_heat_map(findings, folder / f"{name}-languages.png"):
            parts.append(_picture("Gains by language", f"{name}-languages.png"))
    text = "Seconds are wall-clock, development evaluations and checkpoints included; mean ± deviation over seeds."
    parts += _titled("Training cost", cost_table(findings), text)
    return "\n".join(part for part in parts if part)


def _titled(title: str, table: Table | None, text: str) -> list[str]:
    return [] if table is None else [f"### {title}\n", f"{text}\n" if text else "", table.markdown()]


def _picture(title: str, name: str) -> str:
    return f"![{title}]({name})\n"


def _bullets(lines: Sequence[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)


def _reading(findings: Sequence[Findings]) -> str:
    if len(findings) == 1:
        return ""
    return "".join(f"- [{section_title(item)}](#{_anchor(section_title(item))})\n" for item in findings)


def _anchor(title: str) -> str:
    """Return the anchor that Markdown renderers make from a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _file_name(comparison: Comparison, taken: set[str]) -> str:
    parts = (comparison.task, comparison.model.rpartition("/")[2])
    base = name = "-".join(re.sub(r"[^a-zA-Z0-9]+", "-", part).strip("-").lower() for part in parts)
    number = 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    taken.add(name)
    return name
