"""The tables of RESULTS.md, with one row a group or comparison, and README's table."""

from __future__ import annotations

from collections.abc import Sequence

from dlfa.report.significance import percent
from dlfa.report.tables import Table, spread
from dlfa.report.variants import Variant

from .cells import NONE, gain_with_interval, layers_of
from .comparisons import LAST, Choice, ComparableVariants
from .group_evidence import GroupEvidence
from .groups import Group
from .page import PAGES
from .rows import distinct, hours

# Modes without options, and their names in the columns of tables.
_MODES = {
    "single layer": "single layer", "scalar_mix": "scalar mix", "sum": "sum", "residual": "residual",
    "aif gate": "AIF gate", "aif select": "AIF select",
}  # fmt: skip


def question_table(several: Sequence[GroupEvidence]) -> Table | None:
    """Return one row a group: its question and the numbers of examples and runs."""
    rows = [
        (
            linked(evidence.group),
            evidence.group.question,
            distinct(evidence.rows, "train_examples"),
            distinct(evidence.rows, "eval_examples"),
            f"{len(evidence.rows)}/{evidence.planned}",
            f"{hours(evidence.rows):.2f}",
        )
        for evidence in several
    ]
    columns = ("group", "question", "English examples", "test examples, all languages", "runs", "hours")
    return Table(columns, tuple(rows)) if rows else None


def overview_table(several: Sequence[GroupEvidence]) -> Table | None:
    """Return one row a comparison: last layer, the single layer and fusion that development data choose, and gains."""
    rows = []
    for evidence in several:
        group = evidence.group
        for comparable in evidence.comparables:
            fused, single = _chosen_fusion(comparable), comparable.chosen_single
            last = _score(comparable, LAST) if LAST in comparable.comparison.runs else NONE
            languages, seeds = len(comparable.main_group.languages), len(comparable.comparison.seeds)
            cells = [last, _named_score(comparable, single), NONE, NONE, NONE]
            if fused is not None:
                gains = [gain_with_interval(comparable, fused, reference) for reference in (LAST, single)]
                cells[2:] = [_named_score(comparable, fused), *gains]
            rows.append((linked(group), group.task, group.regime, str(languages), str(seeds), *cells))
    columns = (
        "group", "task", "regime", "zero-shot languages", "seeds", "last", "single layer", "fusion", "over last",
        "over the single layer",
    )  # fmt: skip
    return Table(columns, tuple(rows)) if rows else None


def layer_table(several: Sequence[GroupEvidence]) -> Table | None:
    """Return the best layers: one row a comparison, one column a mode; only modes that were run with several layers."""
    rows = []
    for evidence in several:
        for comparable in evidence.comparables:
            found = {choice.mode: choice for choice in comparable.choices if choice.candidates > 1}
            cells = [_best_layers(comparable, found[mode]) if mode in found else NONE for mode in _MODES]
            if set(cells) != {NONE}:
                rows.append((linked(evidence.group), str(len(comparable.comparison.seeds)), *cells))
    return Table(("group", "seeds", *_MODES.values()), tuple(rows)) if rows else None


def headline_table(several: Sequence[GroupEvidence]) -> Table | None:
    """Return README's table: one row a group with a headline, one column a mode, with the layers that dev data choose.

    The choice is among all layers that were run, by the seeds that they share. The score is over the group's largest
    set of seeds; a cell without a score was not run with all of these. If the development scores of several are equal,
    the cell has the range of their scores. A mode that was not run has an empty cell.
    """
    rows = [row for evidence in several if evidence.group.headline and (row := _headline_row(evidence)) is not None]
    return Table(("", "last layer", *_MODES.values()), tuple(rows)) if rows else None


def _headline_row(evidence: GroupEvidence) -> tuple[str, ...] | None:
    scored = evidence.comparables[0] if evidence.comparables else None
    if scored is None or LAST not in scored.comparison.runs:
        return None
    choices = [choice for comparable in evidence.comparables for choice in comparable.choices]
    cells: list[str] = []
    for mode in _MODES:
        choice = max((item for item in choices if item.mode == mode), key=lambda item: item.candidates, default=None)
        if choice is not None and choice.chosen is None:
            return None
        cells.append(NONE if choice is None else _headline_cell(scored, choice))
    seeds = len(scored.comparison.seeds)
    label = f"{evidence.group.headline}, {scored.comparison.metric}, {seeds} seed{'s' if seeds > 1 else ''}"
    return (label, percent(scored.score(LAST)), *cells)


def _headline_cell(scored: ComparableVariants, choice: Choice) -> str:
    """Return the score of the layers that development data choose; for ties the range, without a choice."""
    found = sorted(scored.score(item) for item in choice.tied if item in scored.comparison.runs)
    scores = list(dict.fromkeys(percent(score) for score in (found[:1] + found[-1:])))
    layers = layers_of(choice.tied[0]) if len(choice.tied) == 1 else f"{len(choice.tied)} tied"
    among = f", of {choice.candidates}" if choice.candidates > 1 else ""
    return f"{' to '.join(scores) or NONE} ({layers}{among})"


def linked(group: Group) -> str:
    """Return a group's name with a link to its page."""
    return f"[{group.name}]({PAGES}/{group.name}.md)"


def _chosen_fusion(comparable: ComparableVariants) -> Variant | None:
    """Return the fusion that development data choose among all modes; None if a run lacks its score."""
    choices = [choice for choice in comparable.choices if choice.oracle.fusion not in ("last", "lower")]
    chosen = [choice.chosen for choice in choices if choice.chosen is not None]
    if len(chosen) < len(choices):
        return None
    return max(chosen, key=lambda variant: comparable.dev(variant) or 0.0, default=None)


def _best_layers(comparable: ComparableVariants, choice: Choice) -> str:
    """Return the chosen layer with its score and, after an arrow, the oracle's if it differs."""
    told = [
        f"{layers_of(variant)} ({percent(comparable.score(variant))})"
        for variant in dict.fromkeys((choice.chosen, choice.oracle))
        if variant is not None
    ]
    return " → ".join(told if choice.chosen is not None else ["no dev scores", *told])


def _named_score(comparable: ComparableVariants, variant: Variant | None) -> str:
    return NONE if variant is None else f"{variant.label}: {_score(comparable, variant)}"


def _score(comparable: ComparableVariants, variant: Variant) -> str:
    return spread(comparable.findings.scores(variant, comparable.main_group))
