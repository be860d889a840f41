"""What RESULTS.md shows of the comparisons, as tables."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from dlfa.report.ensembles import Ensemble
from dlfa.report.language_groups import language_group
from dlfa.report.significance import deviation, interval_text, p_text, percent
from dlfa.report.tables import Table, ensemble_table
from dlfa.report.variants import Variant

from .comparisons import LAST, Choice, ComparableVariants, Gain, GroupEvidence
from .rows import Row, zero_shot_mean

_NONE = "-"


def variant_table(comparable: ComparableVariants) -> Table:
    """One row a variant: development score, English, zero-shot average, gains over the last and the best single layer.

    The best single layer is the oracle's, by test average: the hardest to beat.
    """
    comparison, findings, main = comparable.comparison, comparable.findings, comparable.main_group
    source = comparison.train_language
    with_source = source in comparison.languages and main.name != source
    others = _other_metrics(comparable)
    references = [LAST] if LAST in comparison.runs else []
    if comparable.single is not None and comparable.single.oracle not in references:
        references.append(comparable.single.oracle)
    rows = []
    for variant in comparison.runs:
        cells = [_spread(findings.dev_scores(variant))]
        if with_source:
            cells.append(_spread(findings.scores(variant, language_group(source))))
        cells.append(_spread(findings.scores(variant, main)))
        for metric in others:
            cells.append(_spread([run.mean(metric, main.languages) for run in comparison.runs[variant]]))
        for reference in references:
            cells += [_NONE] * 5 if variant == reference else gain_cells(comparable.gain(variant, reference))
        rows.append((variant.label, *cells))
    of_record = next(iter(comparison.runs.values()))[0].metric
    columns = [
        "variant",
        f"dev {source}, {of_record}",
        *([source] if with_source else []),
        f"{main.name}, {comparison.metric}",
    ]
    columns += [f"{main.name}, {metric}" for metric in others]
    for reference in references:
        columns += [f"over {reference.label}", "95 %", "p", "p languages", "up"]
    return Table(tuple(columns), tuple(rows))


def choice_table(comparable: ComparableVariants) -> Table | None:
    """One row a mode: the layer that development data choose, and the oracle, each against the like single layer."""
    choices = comparable.choices
    if not choices:
        return None
    rows = []
    for choice in choices:
        cells: list[str] = []
        for oracle in (False, True):
            variant = choice.oracle if oracle else choice.chosen
            if variant is None:
                cells += ["no dev scores", *[_NONE] * 3]
                continue
            single = _single_of(comparable, oracle=oracle)
            cells += [_layers(variant), _spread(comparable.findings.scores(variant, comparable.main_group))]
            cells += [_short_gain(comparable, variant, LAST), _short_gain(comparable, variant, single)]
        rows.append((choice.mode, *cells))
    main = comparable.main_group.name
    columns = (
        "mode", "layer chosen on dev", main, "over last", "over the single layer chosen on dev",
        "oracle: best by test average", main, "over last", "over the best single layer",
    )  # fmt: skip
    return Table(columns, tuple(rows))


def mode_table(comparable: ComparableVariants, most: int = 8) -> Table | None:
    """Modes against each other, each with the layer that development data choose: the row's gain over the column's.

    Args:
        comparable: of one group.
        most: modes; of more, those of the highest scores stand in the table.
    """
    chosen = [choice.chosen for choice in comparable.choices if choice.chosen is not None]
    if LAST in comparable.comparison.runs:
        chosen.insert(0, LAST)
    variants = list(dict.fromkeys(chosen))
    best = sorted(variants, key=comparable.score, reverse=True)[:most]
    variants = [variant for variant in variants if variant in best]
    if len(variants) < 3:
        return None
    rows = []
    for variant in variants:
        cells = []
        for other in variants:
            gain = None if other == variant else comparable.gain(variant, other)
            p = None if gain is None or gain.interval is None else gain.interval.p
            cells.append(_NONE if gain is None else _points(gain.mean) + ("" if p is None else f" (p {p_text(p)})"))
        rows.append((variant.label, percent(comparable.score(variant)), *cells))
    columns = ("gain of", comparable.main_group.name, *(f"over {variant.label}" for variant in variants))
    return Table(columns, tuple(rows))


def ensemble_rows(several: Sequence[GroupEvidence]) -> Table | None:
    """One row an ensemble beside its members alone; one whose members are not all there is left out."""
    found = []
    for evidence in several:
        rows = {row["name"]: row for row in evidence.rows}
        for row in evidence.ensembles:
            members = json.loads(row["changed"])
            if not all(name in rows for name in members["members"]):
                continue
            metric = evidence.group.metric or row["metric"]
            averages = tuple(zero_shot_mean(rows[name], metric) for name in members["members"])
            names = tuple(name.partition("/")[2] for name in members["members"])
            found.append(
                Ensemble(row["name"], row["task"], metric, members["by"], names, zero_shot_mean(row, metric), averages)
            )
    return ensemble_table(found)


def overview_table(several: Sequence[GroupEvidence]) -> Table | None:
    """One row a table: last layer, single layer and best fusion, both chosen on development data, with the gains."""
    rows = []
    for evidence, comparable in _each(several):
        fused = fused_choice(comparable)
        single = _single_of(comparable, oracle=False)
        cells = [_score(comparable, LAST), _named_score(comparable, single), _NONE, _NONE, _NONE]
        if fused is not None and fused.chosen is not None:
            cells[2:] = [
                _named_score(comparable, fused.chosen),
                _short_gain(comparable, fused.chosen, LAST),
                _short_gain(comparable, fused.chosen, single),
            ]
        group = evidence.group
        rows.append((f"[{group.name}](#{group.name})", group.task, group.regime, *_size(comparable), *cells))
    columns = (
        "group", "task", "regime", "zero-shot languages", "seeds", "last", "single layer", "fusion", "over last",
        "over the single layer",
    )  # fmt: skip
    return Table(columns, tuple(rows)) if rows else None


_HEADLINE_MODES = ("single layer", "scalar_mix", "sum", "aif gate", "aif select")


def headline_table(several: Sequence[GroupEvidence]) -> Table | None:
    """README's: one row a group that has a headline, one column a mode, each with the layers that dev data choose.

    They choose among all layers that were run, by the seeds that these share; the score is over the group's most seeds,
    which a cell without a score has not had.
    """
    rows = [row for evidence in several if evidence.group.headline and (row := _headline_row(evidence)) is not None]
    columns = ("", "last layer", "single layer", "scalar mix", "sum", "AIF gate", "AIF select")
    return Table(columns, tuple(rows)) if rows else None


def _headline_row(evidence: GroupEvidence) -> tuple[str, ...] | None:
    scored = evidence.comparables[0] if evidence.comparables else None
    if scored is None or LAST not in scored.comparison.runs:
        return None
    choices = [choice for comparable in evidence.comparables for choice in comparable.choices]
    cells: list[str] = []
    scores: list[float | None] = []
    for mode in _HEADLINE_MODES:
        choice = max((item for item in choices if item.mode == mode), key=lambda item: item.candidates, default=None)
        if choice is None or choice.chosen is None:
            return None
        score = scored.score(choice.chosen) if choice.chosen in scored.comparison.runs else None
        scores.append(score)
        among = f", of {choice.candidates}" if choice.candidates > 1 else ""
        cells.append(f"{_NONE if score is None else percent(score)} ({_layers(choice.chosen)}{among})")
    best = max(range(len(scores)), key=lambda place: scores[place] or 0.0)
    cells[best] = f"**{cells[best]}**"
    seeds = len(scored.comparison.seeds)
    label = f"{evidence.group.headline}, {scored.comparison.metric}, {seeds} seed{'s' if seeds > 1 else ''}"
    return (label, percent(scored.score(LAST)), *cells)


def layer_table(several: Sequence[GroupEvidence]) -> Table | None:
    """Which layer wins: one row a mode that was run with several layers."""
    rows = []
    for evidence, comparable in _each(several):
        for choice in comparable.choices:
            of_mode = [item for item in comparable.comparison.runs if item.mode == choice.mode]
            if len(of_mode) < 2 and choice.mode != "single layer":
                continue
            chosen = "no dev scores" if choice.chosen is None else _layers(choice.chosen)
            rows.append(
                (
                    evidence.group.task,
                    evidence.group.regime,
                    evidence.group.name,
                    choice.mode,
                    chosen,
                    _NONE if choice.chosen is None else percent(comparable.score(choice.chosen)),
                    _layers(choice.oracle),
                    percent(comparable.score(choice.oracle)),
                )
            )
    columns = (
        "task", "regime", "group", "mode", "layer chosen on dev", "zero-shot", "best layer by test average",
        "zero-shot",
    )  # fmt: skip
    return Table(columns, tuple(rows)) if rows else None


def pace_table(several: Sequence[GroupEvidence]) -> Table | None:
    """Seconds a training step of the last layer and of AIF: the fastest of a group's runs on one hardware each.

    The fastest, as machines do other work beside, which slows single runs down by any factor.
    """
    rows = []
    for evidence in several:
        places = dict.fromkeys(map(_place, evidence.rows))
        for place in places:
            here = [row for row in evidence.rows if _place(row) == place and row["seconds_per_step"]]
            last = _paces(row for row in here if row["fusion"] == "last")
            aif = _paces(row for row in here if row["fusion"] == "aif")
            if not last or not aif:
                continue
            backends = ", ".join(sorted({row["backend"] for row in here if row["backend"]}))
            ratio = f"{min(aif) / min(last):.2f}"
            rows.append((evidence.group.name, _pace(last), _pace(aif), ratio, backends, *place))
    columns = ("group", "last", "aif", "aif / last", "AIF backend", "hardware", "threads", "dtype")
    return Table(columns, tuple(rows)) if rows else None


def fused_choice(comparable: ComparableVariants) -> Choice | None:
    """Of all modes that fuse layers, the one with the best development score; the oracle by test average."""
    choices = [choice for choice in comparable.choices if _fuses(choice.oracle)]
    if not choices:
        return None
    dev = {choice.chosen: comparable.dev(choice.chosen) for choice in choices if choice.chosen is not None}
    scores = {variant: score for variant, score in dev.items() if score is not None}
    chosen = max(scores, key=lambda variant: scores[variant]) if len(scores) == len(choices) else None
    candidates = sum(choice.candidates for choice in choices)
    return Choice("fusion", chosen, max((choice.oracle for choice in choices), key=comparable.score), candidates)


def shown_variants(comparable: ComparableVariants, most: int) -> list[Variant]:
    """What a table of languages has room for: all, or of each mode the chosen layer alone, the best `most` of them."""
    variants = list(comparable.comparison.runs)
    if len(variants) <= most:
        return variants
    chosen = [choice.chosen or choice.oracle for choice in comparable.choices]
    best = sorted(dict.fromkeys(chosen), key=comparable.score, reverse=True)[:most]
    return [variant for variant in variants if variant in best]


def curve_variants(comparable: ComparableVariants) -> list[Variant]:
    """What a curve over layers shows: modes with several layers, and those that take no layer; none without a curve."""
    variants = list(comparable.comparison.runs)
    modes = Counter(variant.mode for variant in variants if len(variant.layers) == 1)
    curves = [variant for variant in variants if len(variant.layers) == 1 and modes[variant.mode] > 1]
    flat = [variant for variant in variants if not variant.layers and not variant.compared and not variant.options]
    return [*flat, *curves] if curves else []


def gain_cells(gain: Gain) -> list[str]:
    """Points, the interval, p, p over languages alone, and how many languages gain."""
    interval = gain.interval
    return [
        percent(gain.mean, sign=True) if interval is None else _points(gain.mean),
        interval_text(interval),
        p_text(interval.p if interval else None),
        p_text(gain.p_languages),
        f"{gain.up}/{gain.of}",
    ]


def _points(value: float) -> str:
    return f"{round(100 * value, 2) + 0.0:+.2f}"


def _short_gain(comparable: ComparableVariants, variant: Variant, reference: Variant | None) -> str:
    if reference is None or reference not in comparable.comparison.runs or reference == variant:
        return _NONE
    gain = comparable.gain(variant, reference)
    return f"{_points(gain.mean)} {interval_text(gain.interval)}"


def _single_of(comparable: ComparableVariants, *, oracle: bool) -> Variant | None:
    if comparable.single is None:
        return None
    return comparable.single.oracle if oracle else comparable.single.chosen


def _score(comparable: ComparableVariants, variant: Variant) -> str:
    if variant not in comparable.comparison.runs:
        return _NONE
    return _spread(comparable.findings.scores(variant, comparable.main_group))


def _named_score(comparable: ComparableVariants, variant: Variant | None) -> str:
    return _NONE if variant is None else f"{variant.label}: {_score(comparable, variant)}"


def _size(comparable: ComparableVariants) -> tuple[str, str]:
    return str(len(comparable.main_group.languages)), str(len(comparable.comparison.seeds))


def _layers(variant: Variant) -> str:
    if variant.fusion == "last":
        return "last"
    return "+".join(map(str, variant.layers)) or "all"


def _fuses(variant: Variant) -> bool:
    return variant.fusion not in ("last", "lower")


def _other_metrics(comparable: ComparableVariants) -> list[str]:
    """What every run tells beside the metric of the comparison: of tagging, accuracy or the macro F1."""
    runs = [run for several in comparable.comparison.runs.values() for run in several]
    known = [set(scores) for run in runs for scores in run.scores.values()]
    return [
        name
        for name in ("accuracy", "f1")
        if name != comparable.comparison.metric and all(name in each for each in known)
    ]


def _each(several: Sequence[GroupEvidence]) -> list[tuple[GroupEvidence, ComparableVariants]]:
    return [(evidence, comparable) for evidence in several for comparable in evidence.comparables]


def _place(row: Row) -> tuple[str, str, str]:
    return row["hardware"], row["threads"], row["dtype"]


def _paces(rows: Iterable[Row]) -> list[float]:
    return [float(row["seconds_per_step"]) for row in rows]


def _pace(values: Sequence[float]) -> str:
    return f"{min(values):.3f} ({len(values)})"


def _spread(values: Sequence[float] | None) -> str:
    return _NONE if values is None else percent(statistics.fmean(values), deviation(values))
