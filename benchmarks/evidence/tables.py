"""The tables of a group's page."""

from __future__ import annotations

import json

from dlfa.report.ensembles import Ensemble
from dlfa.report.language_groups import language_group
from dlfa.report.significance import interval_text, p_text, percent
from dlfa.report.tables import Table, ensemble_table, spread

from .cells import NONE, gain_with_interval, layers_of, points
from .comparisons import LAST, ComparableVariants, Gain
from .group_evidence import GroupEvidence
from .rows import zero_shot_mean

_MODES = 8  # the most modes compared with each other


def variant_table(comparable: ComparableVariants) -> Table:
    """Return one row a variant: development, English and zero-shot scores, and gains over last and single layer."""
    comparison, findings, main = comparable.comparison, comparable.findings, comparable.main_group
    source = comparison.train_language
    averages = [main]
    if source in comparison.languages and main.name != source:
        averages.insert(0, language_group(source))
    others = _other_metrics(comparable)
    rows = []
    for variant in comparison.runs:
        cells = [spread(findings.dev_scores(variant)), *(spread(findings.scores(variant, each)) for each in averages)]
        for metric in others:
            cells.append(spread([run.mean(metric, main.languages) for run in comparison.runs[variant]]))
        for reference in comparable.references:
            cells += [NONE] * 5 if variant == reference else _gain_cells(comparable.gain(variant, reference))
        rows.append((variant.label, *cells))
    of_record = next(iter(comparison.runs.values()))[0].metric
    columns = ["variant", f"dev {source}, {of_record}", *(each.name for each in averages[:-1])]
    columns += [f"{main.name}, {metric}" for metric in (comparison.metric, *others)]
    for reference in comparable.references:
        columns += [f"over {reference.label}", "95 %", "p", "p languages", "up"]
    return Table(tuple(columns), tuple(rows))


def choice_table(comparable: ComparableVariants) -> Table | None:
    """Return one row a mode: the dev-chosen layer and the oracle, and gains over last and single layer chosen alike."""
    rows = []
    for choice in comparable.choices:
        cells: list[str] = []
        for variant, single in (
            (choice.chosen, comparable.chosen_single),
            (choice.oracle, comparable.best_single),
        ):
            if variant is None:
                cells += ["no dev scores", *[NONE] * 3]
                continue
            cells += [layers_of(variant), spread(comparable.findings.scores(variant, comparable.main_group))]
            cells += [gain_with_interval(comparable, variant, reference) for reference in (LAST, single)]
        rows.append((choice.mode, *cells))
    main = comparable.main_group.name
    columns = (
        "mode", "layer chosen on dev", main, "over last", "over the single layer chosen on dev",
        "oracle: best by test average", main, "over last", "over the best single layer",
    )  # fmt: skip
    return Table(columns, tuple(rows)) if rows else None


def mode_table(comparable: ComparableVariants) -> Table | None:
    """Return the gains of the best modes, row over column, each with the layer that development data choose."""
    chosen = [choice.chosen for choice in comparable.choices if choice.chosen is not None]
    if LAST in comparable.comparison.runs:
        chosen.insert(0, LAST)
    variants = comparable.best(chosen, _MODES)
    if len(variants) < 3:
        return None
    rows = []
    for variant in variants:
        cells = []
        for other in variants:
            if other == variant:
                cells.append(NONE)
                continue
            gain = comparable.gain(variant, other)
            p = None if gain.interval is None else gain.interval.p
            cells.append(points(gain.mean) + ("" if p is None else f" (p {p_text(p)})"))
        rows.append((variant.label, percent(comparable.score(variant)), *cells))
    columns = ("gain of", comparable.main_group.name, *(f"over {variant.label}" for variant in variants))
    return Table(columns, tuple(rows))


def ensembles_table(evidence: GroupEvidence) -> Table | None:
    """Return one row an ensemble, with its single members; ensembles with missing members are excluded."""
    rows = {row["name"]: row for row in evidence.rows}
    found = []
    for row in evidence.ensembles:
        changed = json.loads(row["changed"])
        members = changed["members"]
        if not all(name in rows for name in members):
            continue
        metric = evidence.group.metric or row["metric"]
        averages = tuple(zero_shot_mean(rows[name], metric) for name in members)
        names = tuple(name.partition("/")[2] for name in members)
        own = zero_shot_mean(row, metric)
        found.append(Ensemble(row["name"], row["task"], metric, changed["by"], names, own, averages))
    return ensemble_table(found)


def _gain_cells(gain: Gain) -> list[str]:
    """Return points, interval, p, p over languages only, and the number of languages that gain."""
    interval = gain.interval
    return [
        percent(gain.mean, sign=True) if interval is None else points(gain.mean),
        interval_text(interval),
        p_text(interval.p if interval else None),
        p_text(gain.p_languages),
        f"{gain.up}/{gain.of}",
    ]


def _other_metrics(comparable: ComparableVariants) -> list[str]:
    """Return the other metrics that every run has: for tagging, accuracy or the macro F1."""
    runs = [run for several in comparable.comparison.runs.values() for run in several]
    known = [set(scores) for run in runs for scores in run.scores.values()]
    return [
        name
        for name in ("accuracy", "f1")
        if name != comparable.comparison.metric and all(name in each for each in known)
    ]
