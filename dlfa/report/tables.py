"""Findings as tables, for Markdown and for the terminal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..tasks.language_families import language
from .ensembles import Ensemble
from .findings import Effect, Findings
from .language_groups import FAMILY, LANGUAGE, LanguageGroup, average_groups, language_group
from .significance import Interval, deviation, interval_text, p_text, percent

if TYPE_CHECKING:
    import rich.table


_NUMBERS = "0123456789+-[<"  # what they begin with


@dataclass(frozen=True)
class Table:
    """Rows of text below a header; columns of numbers are aligned to the right, others, and the first, to the left."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """As a Markdown table."""
        cells = [[cell.replace("|", r"\|") for cell in row] for row in (self.columns, *self.rows)]
        rule = ["---:" if number else "---" for number in self._numbers()]
        return "".join(f"| {' | '.join(row)} |\n" for row in (cells[0], rule, *cells[1:]))

    def rich(self, title: str, caption: str) -> rich.table.Table:
        """For the terminal."""
        from rich.box import SIMPLE
        from rich.table import Table as RichTable

        table = RichTable(title=title, caption=caption, box=SIMPLE, padding=0)
        for name, number in zip(self.columns, self._numbers(), strict=True):
            table.add_column(name, justify="right" if number else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table

    def _numbers(self) -> list[bool]:
        """Whether each column holds numbers, intervals of them, or nothing."""
        columns = range(1, len(self.columns))
        return [False, *(all(row[index][:1] in _NUMBERS for row in self.rows) for index in columns)]


def score_table(findings: Findings) -> Table:
    """One row a variant: development score, training language, averages, each with its deviation over seeds."""
    comparison = findings.comparison
    source = comparison.train_language
    groups = _average_groups(findings)
    dev = {variant: findings.dev_scores(variant) for variant in comparison.runs}
    with_dev = any(scores is not None for scores in dev.values())
    rows = []
    for variant in comparison.runs:
        cells = [spread(dev[variant])] if with_dev else []
        cells += [spread(findings.scores(variant, group)) for group in groups]
        rows.append((variant.label, *cells))
    columns = ["variant", *([f"dev, {source}"] if with_dev else []), *(_title(group, source) for group in groups)]
    return Table(tuple(columns), tuple(rows))


def difference_table(findings: Findings) -> Table:
    """One row a variant that has a baseline: its gain in the zero-shot average with both intervals, and other gains."""
    comparison, main = findings.comparison, findings.main_group
    others = [group for group in _average_groups(findings) if group != main]
    rows = []
    for variant, baseline in comparison.pairs:
        effect = findings.effects[variant, main]
        rows.append(
            (
                variant.label,
                baseline.label,
                _change(effect),
                *_with_p(effect.seeds),
                *(_with_p(effect.crossed) if findings.has_crossed else ()),
                *_with_p(effect.sentences),
                *(_change(findings.effects[variant, group]) for group in others),
            )
        )
    columns = (
        "variant", "against", f"{main.name} gain", "95 % over seeds", "p",
        *(("95 % over seeds and languages", "p") if findings.has_crossed else ()), "95 % over sentences", "p",
        *(f"{_title(group, comparison.train_language)} gain" for group in others),
    )  # fmt: skip
    return Table(columns, tuple(rows))


def choice_table(findings: Findings) -> Table | None:
    """One row a mode: the layer that development data choose, and beside it the best one by test average."""
    choices = findings.layer_choices()
    if not choices:
        return None
    main = findings.main_group
    rows = []
    for choice in choices:
        cells = []
        for variant in (choice.chosen, choice.oracle):
            if variant is None:
                cells += ["no dev scores", "-", "-"]
                continue
            effect = findings.effects.get((variant, main))
            layers = "+".join(map(str, variant.layers))
            cells += [layers, spread(findings.scores(variant, main)), "-" if effect is None else _change(effect)]
        rows.append((choice.mode, *cells))
    columns = (
        "mode", "layer chosen on dev", main.name, "gain", "oracle: best by test average", main.name, "gain",
    )  # fmt: skip
    return Table(columns, tuple(rows))


def group_table(findings: Findings, kind: str) -> Table:
    """One row a language, family or script: the baseline's score and every variant's gain.

    A language's gain is marked with a bullet where it is a discovery, see `Findings.discoveries`; families and scripts
    have the interval over sentences beside it, or where there is none the one over seeds.
    """
    comparison = findings.comparison
    pairs = findings.table_pairs()
    baselines = list(dict.fromkeys(baseline for _, baseline in pairs))
    marked = {variant: findings.discoveries(variant) for variant, _ in pairs} if kind == LANGUAGE else {}
    rows = []
    for group in findings.of_kind(kind):
        head = [group.name]
        if kind == LANGUAGE:
            facts = language(group.name)
            count = next(iter(comparison.runs.values()))[0].examples[group.name]
            head += [facts.name, facts.family, facts.script, "-" if count is None else f"{count:,}"]
        else:
            head += [" ".join(group.languages)]
        cells = [spread(findings.scores(baseline, group)) for baseline in baselines]
        for variant, _ in pairs:
            effect = findings.effects[variant, group]
            if kind == LANGUAGE:
                cells.append(_change(effect) + (" •" if group.name in marked[variant] else ""))
            else:
                interval = effect.sentences or effect.seeds
                cells.append(_change(effect) + (f" {interval_text(interval)}" if interval else ""))
        rows.append((*head, *cells))
    first = {LANGUAGE: ("code", "language", "family", "script", "examples"), FAMILY: ("family", "languages")}
    head_columns = first.get(kind, ("script", "languages"))
    columns = (*head_columns, *(item.label for item in baselines), *(f"{variant.label} gain" for variant, _ in pairs))
    return Table(columns, tuple(rows))


def cost_table(findings: Findings) -> Table | None:
    """One row a variant: steps, seconds, seconds a step and their ratio to the baseline; None where no run tells."""
    comparison = findings.comparison
    rows = []
    for variant in comparison.runs:
        cost = findings.cost(variant)
        if cost is None:
            continue
        baseline = comparison.baselines.get(variant)
        reference = findings.cost(baseline) if baseline is not None else None
        ratio = "-"
        if reference is not None and reference.seconds_per_step and cost.seconds_per_step:
            ratio = f"{statistics.fmean(cost.seconds_per_step) / statistics.fmean(reference.seconds_per_step):.2f}"
            if reference.places != cost.places and _devices(reference.places) != _devices(cost.places):
                ratio += " (other device)"
        rows.append(
            (
                variant.label,
                _plain(cost.steps, 0),
                _plain(cost.seconds, 1),
                _plain(cost.seconds_per_step, 3),
                ratio,
                "; ".join(cost.places),
            )
        )
    columns = ("variant", "steps", "seconds", "seconds a step", "against baseline", "device, dtype, AIF backend")
    return Table(columns, tuple(rows)) if rows else None


def summary_table(findings: Findings) -> Table:
    """The terminal's one table of a comparison."""
    comparison, main = findings.comparison, findings.main_group
    others = [group for group in _average_groups(findings) if group != main]
    rows = []
    for variant in comparison.runs:
        means = [percent(statistics.fmean(findings.scores(variant, group))) for group in others]
        effect = findings.effects.get((variant, main))
        cells = ["-"] * 5
        if effect is not None:
            cells = [_change(effect), *_with_p(effect.seeds), *_with_p(effect.sentences)]
        cost = findings.cost(variant)
        paces = () if cost is None else cost.seconds_per_step
        pace = f"{statistics.fmean(paces):.3f}" if paces else "-"  # a run may have ended before its first step
        rows.append((variant.label, *means, spread(findings.scores(variant, main)), *cells, pace))
    columns = (
        "variant", *(group.name for group in others), main.name, "gain", "95 % seeds", "p", "95 % sentences", "p",
        "s/step",
    )  # fmt: skip
    return Table(columns, tuple(rows))


def ensemble_table(ensembles: Sequence[Ensemble]) -> Table | None:
    """One row an ensemble: its zero-shot average beside those of its members."""
    rows = []
    for item in ensembles:
        own, members = item.average, item.member_averages
        best = max(members)
        rows.append(
            (
                item.name,
                f"{item.task}, {item.metric}",
                ", ".join(item.members),
                item.by,
                percent(own),
                spread(members),
                percent(best),
                percent(own - statistics.fmean(members), sign=True),
                percent(own - best, sign=True),
            )
        )
    columns = (
        "ensemble", "task", "runs", "by", "zero-shot", "mean of runs", "best run", "gain over mean", "gain over best",
    )  # fmt: skip
    return Table(columns, tuple(rows)) if rows else None


def _average_groups(findings: Findings) -> list[LanguageGroup]:
    """The training language, the zero-shot average, the average over all; each once, and only where it is there."""
    comparison = findings.comparison
    source = [language_group(comparison.train_language)] if comparison.train_language in comparison.languages else []
    return [*source, *average_groups(comparison)]


def _title(group: LanguageGroup, source: str) -> str:
    return f"{group.name} (training)" if group.name == source else group.name


def spread(values: Sequence[float] | None) -> str:
    """The mean with the deviation over seeds, in percent."""
    return "-" if values is None else percent(statistics.fmean(values), deviation(values))


def _change(effect: Effect) -> str:
    return percent(effect.mean, deviation(effect.differences), sign=True)


def _with_p(interval: Interval | None) -> tuple[str, str]:
    return interval_text(interval), p_text(interval.p if interval else None)


def _plain(values: Sequence[float], decimals: int) -> str:
    if not values:
        return "-"
    spread = deviation(values)
    text = f"{statistics.fmean(values):,.{decimals}f}"
    return text if not spread else f"{text} ± {spread:,.{decimals}f}"


def _devices(places: Sequence[str]) -> set[str]:
    return {place.split(",")[0] for place in places}
