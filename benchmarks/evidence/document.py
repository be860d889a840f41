"""Write RESULTS.md, a page for each group and README's table, from only the CSV files, the plan and findings.md.

The same files give the same documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dlfa.files import atomic

from ..readme_sections import EVIDENCE, replace_section
from .branches import branches_table
from .control import control_overview
from .figures import fill_figures
from .group_evidence import gather
from .groups import Group, planned_runs
from .overview import headline_table, layer_table, linked, overview_table, question_table
from .page import PAGES, PICTURES, bullets, joined, titled, write_page
from .prose import BRANCHES, LIMITS, PROTOCOL, SUMMARY, UNDERSTANDING, read_prose
from .rows import Row, hours

DOCUMENT, README = "RESULTS.md", "README.md"
FOLDER = Path("benchmarks/results/evidence")
_READING = """\
Scores are percent; ± is the standard deviation over seeds. *zero-shot* is the unweighted mean over all test languages
but English, *dev* the score on English development data, by the metric that checkpoints are chosen by. Gains are in
points, each seed against the same seed. *95 %* is a confidence interval over languages and seeds at once (crossed
random effects, Clark 1973, with Satterthwaite's degrees of freedom; of two or three seeds it is wide), or where the
languages are fewer than five one over seeds alone (Student's t); *p* is its two-sided test. *p languages* is the paired
t-test over languages for these very seeds, *up* the number of languages that gain. *Chosen on dev* is what English
development data alone choose among the variants of that table; the *oracle* looks at the test data. *single layer* is
one layer alone, the last one among them."""
_LAYERS = """\
The layer that English development data choose and its zero-shot score, and behind the arrow the best one by test
average where it is another. Modes that were run with one layer alone, or with options of their own, are on the groups'
pages."""
_CONTROL = """\
*residual* is the sum of the layers with AIF's two branches added: AIF's parameters, trained alike, and no gate. What it
gains over the sum is what the parameters give; what AIF gains over it, what the gate gives. By each group's most seeds;
fewer seeds, other layers and other learning rates are on the groups' pages."""
_BRANCHES = """\
AIF's branches without the gate, that is *residual*, with parts left out or other layers; frozen encoder, two seeds,
otherwise as in the groups' runs. Made by `python -m benchmarks.evidence.branches`, from
[branches.csv](benchmarks/results/evidence/branches.csv)."""
_COMMANDS = """\
```
python -m benchmarks.evidence --run PATTERN --model ENCODER --data ROOT    # makes what is missing
python -m benchmarks.evidence --rerun NAME --model ENCODER --data ROOT     # repeats a row of runs.csv, shows both
python -m benchmarks.evidence --collect --write                            # runs.csv, this page and those of the groups
```"""


def write_document(root: Path, plan: Sequence[Group], rows: Sequence[Row]) -> Path:
    """Write RESULTS.md, its pages and pictures, and README's table below `root`; return the path of RESULTS.md.

    Raises:
        ValueError: no rows, a section of findings.md without a place, a figure there that the runs do not give, or a
            README without a place for the table.
    """
    if not rows:
        raise ValueError(f"{root / FOLDER / 'runs.csv'}: there are no runs to write about; --collect comes first")
    prose = read_prose(root / FOLDER / "findings.md", [group.name for group in plan])
    by_name = {row["name"]: row for row in rows}
    several = [gather(group, plan, by_name) for group in plan]
    evidence_by_name = {evidence.group.name: evidence for evidence in several}
    prose = {name: fill_figures(text, name, evidence_by_name) for name, text in prose.items()}
    used = {row["name"]: row for evidence in several for row in evidence.rows}
    (root / PICTURES).mkdir(parents=True, exist_ok=True)
    (root / PAGES).mkdir(parents=True, exist_ok=True)
    for made in (*(root / PICTURES).glob("*.png"), *(root / PAGES).glob("*.md")):
        made.unlink()  # of an earlier document
    for evidence in several:
        write_page(root, evidence, _prose(prose, evidence.group.name))
    controls = control_overview(
        [(linked(each.group), each.comparables[0]) for each in several if each.group.headline and each.comparables]
    )
    parts = [
        "# Results",
        f"Made by `python -m benchmarks.evidence --write` from [runs.csv]({FOLDER}/runs.csv), the plan and "
        f"[findings.md]({FOLDER}/findings.md).",
        "## Conclusions",
        _prose(prose, SUMMARY),
        *titled("## Questions", question_table(several), "A group of runs answers one each, on a page of its own."),
        *titled("## Overview", overview_table(several)),
        "## Reading the tables",
        _READING,
        "## Protocol",
        _prose(prose, PROTOCOL),
        _facts(list(used.values())),
        bullets(_unplanned(plan, rows)),
        *titled("## Which layer wins", layer_table(several), _LAYERS),
        *titled("## Gate or parameters", controls, _CONTROL),
        "## Understanding",
        _prose(prose, UNDERSTANDING),
        *titled("### What in AIF's branches helps", branches_table(root / FOLDER / "branches.csv"), _BRANCHES),
        _prose(prose, BRANCHES),
        "## Limits",
        _prose(prose, LIMITS),
        "## Commands",
        _COMMANDS,
    ]
    headline, readme = headline_table(several), root / README
    if headline is not None:
        with_table = replace_section(readme.read_text(encoding="utf-8"), EVIDENCE, headline.markdown().strip() + "\n")
        atomic.write_text(readme, with_table)
    atomic.write_text(root / DOCUMENT, joined(parts))
    return root / DOCUMENT


def _facts(rows: Sequence[Row]) -> str:
    """Return encoder, hardware, versions and time of all runs in the tables."""
    if not rows:
        return "No run of the plan is there."
    dirty = sum("-dirty" in row["commit"] for row in rows)
    lines = [
        f"{len(rows)} runs, {hours(rows):.1f} hours of training and evaluation.",
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
    return bullets(lines)


def _counted(rows: Sequence[Row], name: str) -> str:
    counts = Counter(row[name] or "none" for row in rows)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{value} ({count} runs)" for value, count in counts.most_common())


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
