"""A group's page, docs/evidence/GROUP.md: findings, protocol, and all tables and pictures of its comparisons."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from dlfa.files import atomic
from dlfa.report.language_groups import FAMILY, LANGUAGE, SCRIPT
from dlfa.report.plots import language_heat_map, layer_curve
from dlfa.report.tables import Table, group_table
from dlfa.report.variants import Variant

from .comparisons import LAST, ComparableVariants
from .control import control_table
from .group_evidence import GroupEvidence
from .pictures import shrink
from .rows import distinct, hours
from .tables import choice_table, ensembles_table, mode_table, variant_table

PAGES = Path("docs/evidence")
PICTURES = Path("docs/images/evidence")
_FROM_PAGES = "../images/evidence"
_COLUMNS, _ROWS = 6, 12  # the most variants in a table of languages, and in a heat map


def write_page(root: Path, evidence: GroupEvidence, prose: str) -> None:
    """Write the page of a group and its pictures below `root`.

    Args:
        root: the root of the tree; the folders of pages and pictures must exist.
        evidence: the evidence of the group.
        prose: the hand-written text about it.

    Raises:
        ValueError: a picture remains too large.
    """
    group = evidence.group
    parts = [
        f"# {group.name}",
        f"**{group.question}**",
        prose,
        "[How to read the tables](../../RESULTS.md#reading-the-tables).",
        bullets([*_facts(evidence), *evidence.notes]),
    ]
    for number, comparable in enumerate(evidence.comparables):
        name = group.name if number == 0 else f"{group.name}-{number + 1}"
        parts += _tables(root, comparable, name)
        if number < len(evidence.of_record):
            other = evidence.of_record[number]
            by = f"By {other.comparison.metric}, the task's metric of record:"
            parts += [*titled("", choice_table(other), by), *titled("", mode_table(other))]
        for reference in comparable.references:
            parts += _gains(root, comparable, reference, name)
    parts += titled("## Ensembles", ensembles_table(evidence), "Zero-shot averages, percent; gains in points.")
    atomic.write_text(root / PAGES / f"{group.name}.md", joined(parts))


def joined(parts: list[str]) -> str:
    """Join the parts of a document with blank lines between them; empty ones are skipped."""
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def titled(title: str, table: Table | None, text: str = "") -> list[str]:
    """Return a table's parts of a document; none without a table."""
    return [] if table is None else [title, text, table.markdown()]


def bullets(lines: list[str]) -> str:
    """Return a Markdown list."""
    return "".join(f"- {line}\n" for line in lines)


def _facts(evidence: GroupEvidence) -> list[str]:
    """Return the protocol of the group's runs, their number, and the command that makes them."""
    group = evidence.group
    options = ", ".join(f"{name} {_value(value)}" for name, value in group.all_options.items())
    return [
        f"{len(evidence.rows)} of {evidence.planned} runs, {hours(evidence.rows):.2f} hours: "
        f"`python -m benchmarks.evidence --run '{group.name}/*'`",
        f"Task {group.task}, regime {group.regime}, {distinct(evidence.rows, 'train_examples')} English training "
        f"examples, {distinct(evidence.rows, 'eval_examples')} test examples in all languages",
        f"Options of all runs: {options}",
    ]


def _value(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _tables(root: Path, comparable: ComparableVariants, name: str) -> list[str]:
    comparison = comparable.comparison
    languages, seeds = " ".join(comparison.languages), ", ".join(map(str, comparison.seeds))
    parts = [
        f"## {comparison.model}, seeds {seeds}",
        f"Languages: {languages}. Metric: {comparison.metric}. Seeds: {seeds}.",
        variant_table(comparable).markdown(),
        *titled("", choice_table(comparable)),
        *titled(
            "", mode_table(comparable), "Modes against each other, each with the layer that development data choose."
        ),
        *titled("", control_table(comparable), "AIF against its control, which has the same parameters and no gate."),
    ]
    file = f"{name}-layers.png"
    curves = _curve_variants(comparable)
    if curves and layer_curve(comparable.against(None, curves), root / PICTURES / file):
        shrink(root / PICTURES / file)
        parts.append(_picture(f"{name}: scores by layer", file))
    return parts


def _gains(root: Path, comparable: ComparableVariants, reference: Variant, name: str) -> list[str]:
    """Return the gains over one variant by language, family and script; none if there is no other variant."""
    findings = comparable.against(reference, _shown_variants(comparable, _COLUMNS))
    if not findings.comparison.pairs:
        return []
    parts = [f"### Gains over {reference.label}"]
    file = f"{name}-languages{'' if reference == LAST else '-single'}.png"
    if language_heat_map(comparable.against(reference, _shown_variants(comparable, _ROWS)), root / PICTURES / file):
        shrink(root / PICTURES / file)
        parts.append(_picture(f"{name}: gains over {reference.label}", file))
    many = len(comparable.comparison.runs) > _COLUMNS
    few = " Of many variants, those that development data choose in each mode." if many else ""
    parts.append(f"Points ± deviation over seeds.{few}")
    tables = [group_table(findings, kind) for kind in (LANGUAGE, FAMILY, SCRIPT)]
    return [*parts, *(table.markdown() for table in tables if table.rows)]


def _shown_variants(comparable: ComparableVariants, most: int) -> list[Variant]:
    """Return the variants to show: all if at most `most`, else the best `most` of each mode's chosen layers."""
    variants = list(comparable.comparison.runs)
    if len(variants) <= most:
        return variants
    return comparable.best([choice.chosen or choice.oracle for choice in comparable.choices], most)


def _curve_variants(comparable: ComparableVariants) -> list[Variant]:
    """Return the variants of the curve over layers: modes with several layers, and those without layers; or none."""
    variants = list(comparable.comparison.runs)
    modes = Counter(variant.mode for variant in variants if len(variant.layers) == 1)
    curves = [variant for variant in variants if len(variant.layers) == 1 and modes[variant.mode] > 1]
    flat = [variant for variant in variants if not variant.layers and not variant.compared and not variant.options]
    return [*flat, *curves] if curves else []


def _picture(title: str, file: str) -> str:
    return f"![{re.sub(r'[^a-zA-Z0-9:,+ -]', '', title)}]({_FROM_PAGES}/{file})"
