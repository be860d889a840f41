"""RESULTS.md, made from runs.csv, the plan and findings.md alone; the same files give the same document."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dlfa import atomic
from dlfa.report.language_groups import FAMILY, LANGUAGE, SCRIPT
from dlfa.report.plots import language_heat_map, layer_curve
from dlfa.report.tables import Table, group_table
from dlfa.report.variants import Variant

from ..readme_sections import EVIDENCE, replace_section
from .comparisons import LAST, ComparableVariants, GroupEvidence, gather
from .groups import Group, planned_runs
from .pictures import draw
from .prose import LIMITS, PROTOCOL, SUMMARY, UNDERSTANDING, read_prose
from .rows import Row
from .tables import (
    choice_table,
    curve_variants,
    ensemble_rows,
    headline_table,
    layer_table,
    mode_table,
    overview_table,
    pace_table,
    shown_variants,
    variant_table,
)

DOCUMENT, README = "RESULTS.md", "README.md"
FOLDER = Path("benchmarks/results/evidence")
PICTURES = Path("docs/images/evidence")
PAGES = Path("docs/evidence")  # gains by language, a page a group
_COLUMNS, _ROWS = 6, 12  # variants in a table of languages, and in a heat map
_READING = """\
Scores are percent; ± is the standard deviation over seeds. *zero-shot* is the unweighted mean over all test languages
but English, *dev* the score on English development data, by the metric that checkpoints are chosen by. Gains are in
points, each seed against the same seed. *95 %* is a confidence interval over languages and seeds at once (crossed
random effects, Clark 1973, with Satterthwaite's degrees of freedom; of two or three seeds it is wide), or where the
languages are fewer than five one over seeds alone (Student's t); *p* is its two-sided test. *p languages* is the paired
t-test over languages for these very seeds, *up* the number of languages that gain. *Chosen on dev* is what English
development data alone choose among the variants of that table; the *oracle* looks at the test data. *single layer* is
one layer alone, the last one among them."""


def write_document(root: Path, plan: Sequence[Group], rows: Sequence[Row]) -> Path:
    """Write RESULTS.md, its pages and pictures, and README's table of headlines below `root`; return the first's path.

    Raises:
        ValueError: no rows, a section of findings.md that has no place, or a README without one for the table.
    """
    if not rows:
        raise ValueError(f"{root / FOLDER / 'runs.csv'}: there are no runs to write about; --collect comes first")
    prose = read_prose(root / FOLDER / "findings.md", [group.name for group in plan])
    by_name = {row["name"]: row for row in rows}
    several = [gather(group, plan, by_name) for group in plan]
    used = {row["name"]: row for evidence in several for row in evidence.rows}
    for made in (*(root / PICTURES).glob("*.png"), *(root / PAGES).glob("*.md")):
        made.unlink()  # of an earlier document
    parts = [
        "# Results",
        f"Made by `python -m benchmarks.evidence --write` from [runs.csv]({FOLDER}/runs.csv), the plan and "
        f"[findings.md]({FOLDER}/findings.md).",
        _prose(prose, SUMMARY),
        *_titled("## Overview", overview_table(several)),
        _READING,
        "## Protocol",
        _prose(prose, PROTOCOL),
        _facts(list(used.values())),
        _protocol_table(several).markdown(),
        _commands(),
        _bullets(_unplanned(plan, rows)),
        *[part for evidence in several for part in _section(root, evidence, prose)],
        *_titled("## Which layer wins", layer_table(several)),
        *_titled("## Ensembles", ensemble_rows(several), "Zero-shot averages, percent; gains in points."),
        *_titled(
            "## Seconds per training step",
            pace_table(several),
            "Of the fastest run (of how many), as the machine did other work beside: wall-clock of the whole training "
            "through the number of steps, development evaluations and checkpoints included.",
        ),
        "## Understanding",
        _prose(prose, UNDERSTANDING),
        "## Limits",
        _prose(prose, LIMITS),
    ]
    text = "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"
    headline, readme = headline_table(several), root / README
    if headline is not None:
        with_table = replace_section(readme.read_text(encoding="utf-8"), EVIDENCE, headline.markdown().strip() + "\n")
        atomic.write_text(readme, with_table)
    atomic.write_text(root / DOCUMENT, text)
    return root / DOCUMENT


def _section(root: Path, evidence: GroupEvidence, prose: dict[str, str]) -> list[str]:
    group = evidence.group
    parts = [
        f"## {group.name}",
        f"**{group.question}**",
        _prose(prose, group.name),
        f"{len(evidence.rows)} of {evidence.planned} runs: `python -m benchmarks.evidence --run '{group.name}/*'`.",
        _bullets(evidence.notes),
    ]
    page = [f"# {group.name}", f"**{group.question}** [RESULTS.md](../../{DOCUMENT}) has the means."]
    for number, comparable in enumerate(evidence.comparables):
        name = group.name if number == 0 else f"{group.name}-{number + 1}"
        comparison = comparable.comparison
        title = f"{group.name}, {comparison.model}, seeds {', '.join(map(str, comparison.seeds))}"
        if len(evidence.comparables) > 1:
            parts.append(f"### {title}")
        parts += _table_parts(root, comparable, name)
        if number < len(evidence.of_record):
            other = evidence.of_record[number]
            by = f"By {other.comparison.metric}, the task's metric of record:"
            parts += _titled("", choice_table(other), by)
            parts += _titled("", mode_table(other))
        page.append(f"## {title}")
        for reference in _references(comparable):
            parts += _languages_picture(root, comparable, reference, name)
            page += _gains(comparable, reference)
    if evidence.comparables:
        atomic.write_text(root / PAGES / f"{group.name}.md", "\n\n".join(page) + "\n")
        parts.append(f"[Gains by language, family and script]({PAGES}/{group.name}.md).")
    return parts


def _table_parts(root: Path, comparable: ComparableVariants, name: str) -> list[str]:
    comparison = comparable.comparison
    languages = " ".join(comparison.languages)
    parts = [f"Languages: {languages}. Metric: {comparison.metric}. Seeds: {', '.join(map(str, comparison.seeds))}."]
    parts.append(variant_table(comparable).markdown())
    parts += _titled("", choice_table(comparable))
    parts += _titled(
        "", mode_table(comparable), "Modes against each other, each with the layer that development data choose."
    )
    curves = curve_variants(comparable)
    if curves and draw(layer_curve, comparable.against(None, curves), root / PICTURES / f"{name}-layers.png"):
        parts.append(_picture(f"{name}: scores by layer", f"{name}-layers.png"))
    return parts


def _references(comparable: ComparableVariants) -> list[Variant]:
    """What gains by language are counted from: the last layer and the best single one."""
    references = [LAST] if LAST in comparable.comparison.runs else []
    if comparable.single is not None and comparable.single.oracle not in references:
        references.append(comparable.single.oracle)
    return references


def _gains(comparable: ComparableVariants, reference: Variant) -> list[str]:
    """Gains by language, family and script over one variant."""
    findings = comparable.against(reference, shown_variants(comparable, _COLUMNS))
    if not findings.comparison.pairs:
        return []
    few = " Of many variants, those that development data choose in each mode." if _cut(comparable, _COLUMNS) else ""
    parts = [f"### Gains over {reference.label}", f"Points ± deviation over seeds.{few}"]
    for kind in (LANGUAGE, FAMILY, SCRIPT):
        found = group_table(findings, kind)
        if found.rows:
            parts.append(found.markdown().strip())
    return parts


def _languages_picture(root: Path, comparable: ComparableVariants, reference: Variant, name: str) -> list[str]:
    """The heat map of gains over one variant."""
    file = f"{name}-languages{'' if reference == LAST else '-single'}.png"
    shown = comparable.against(reference, shown_variants(comparable, _ROWS))
    if not shown.comparison.pairs or not draw(language_heat_map, shown, root / PICTURES / file):
        return []
    return [_picture(f"{name}: gains over {reference.label}", file)]


def _cut(comparable: ComparableVariants, most: int) -> bool:
    return len(comparable.comparison.runs) > most


def _facts(rows: Sequence[Row]) -> str:
    """Encoder, hardware, versions and time of all runs that stand in the tables."""
    if not rows:
        return "No run of the plan is there."
    dirty = sum("-dirty" in row["commit"] for row in rows)
    lines = [
        f"{len(rows)} runs, {_hours(rows):.1f} hours of training and evaluation.",
        *(
            f"{title}: {_counted(rows, name)}."
            for title, name in (
                ("Encoder", "model"), ("Hardware", "hardware"), ("Torch threads", "threads"), ("Precision", "dtype"),
                ("AIF backend (runs without AIF have none)", "backend"), ("torch", "torch"),
                ("transformers", "transformers"),
            )
        ),
        f"Source: {len({row['commit'] for row in rows})} commits, in runs.csv; {dirty} of {len(rows)} runs were made "
        "from files that differed from the commit (marked -dirty there).",
    ]  # fmt: skip
    return _bullets(lines)


def _hours(rows: Sequence[Row]) -> float:
    """Wall-clock of training and evaluation; of a run that was interrupted, training alone is known."""
    return sum(float(row["total_seconds"] or row["train_seconds"]) for row in rows) / 3600


def _counted(rows: Sequence[Row], name: str) -> str:
    counts = Counter(row[name] or "none" for row in rows)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{value} ({count} runs)" for value, count in counts.most_common())


def _protocol_table(several: Sequence[GroupEvidence]) -> Table:
    rows = []
    for evidence in several:
        group, runs = evidence.group, evidence.rows
        train = sorted({row["train_examples"] for row in runs})
        tested = sorted({row["eval_examples"] for row in runs})
        options = ", ".join(f"{name} {_value(value)}" for name, value in group.all_options.items())
        rows.append(
            (
                group.name,
                group.task,
                group.regime,
                " / ".join(train) or "-",
                " / ".join(tested) or "-",
                ", ".join(map(str, group.seeds)),
                f"{len(runs)}/{evidence.planned}",
                f"{_hours(runs):.2f}",
                options,
            )
        )
    columns = (
        "group", "task", "regime", "English examples", "test examples, all languages", "seeds", "runs",
        "hours", "options of all runs",
    )  # fmt: skip
    return Table(columns, tuple(rows))


def _value(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _commands() -> str:
    return """\
```
python -m benchmarks.evidence --run PATTERN --model ENCODER --data ROOT    # makes what is missing
python -m benchmarks.evidence --rerun NAME --model ENCODER --data ROOT     # repeats a row of runs.csv, shows both
python -m benchmarks.evidence --collect --write                            # runs.csv, this page
```"""


def _unplanned(plan: Sequence[Group], rows: Sequence[Row]) -> list[str]:
    runs, ensembles = planned_runs(plan)
    planned = {run.name for run in runs} | {ensemble.name for ensemble in ensembles}
    groups = Counter(row["group"] for row in rows if row["name"] not in planned)
    return [
        f"{count} runs of {name} in runs.csv are not in the plan, so they stand in no table"
        for name, count in sorted(groups.items())
    ]


def _prose(prose: dict[str, str], name: str) -> str:
    return prose.get(name) or f"_Nothing has been written here yet (findings.md, `## {name}`)._"


def _titled(title: str, table: Table | None, text: str = "") -> list[str]:
    return [] if table is None else [title, text, table.markdown()]


def _picture(title: str, name: str) -> str:
    return f"![{re.sub(r'[^a-zA-Z0-9:,+ -]', '', title)}]({PICTURES}/{name})"


def _bullets(lines: Sequence[str]) -> str:
    return "".join(f"- {line}\n" for line in lines)
