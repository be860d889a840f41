"""Tables of findings, for Markdown and the terminal."""

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


_NUMBERS = "0123456789+-[<"  # first characters of numbers


@dataclass(frozen=True)
class Table:
    """Rows of text below a header; columns of numbers are right-aligned, the first and other columns left-aligned."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return a Markdown table."""
        cells = [[cell.replace("|", r"\|") for cell in row] for row in (self.columns, *self.rows)]
        rule = ["---:" if number else "---" for number in self._numbers()]
        return "".join(f"| {' | '.join(row)} |\n" for row in (cells[0], rule, *cells[1:]))

    def rich(self, title: str, caption: str) -> rich.table.Table:
        """Return a table for the terminal."""
        from rich.box import SIMPLE
        from rich.table import Table as RichTable

        table = RichTable(title=title, caption=caption, box=SIMPLE, padding=0)
        for name, number in zip(self.columns, self._numbers(), strict=True):
            table.add_column(name, justify="right" if number else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table

    def _numbers(self) -> list[bool]:
        """Return for each column whether it holds only numbers, intervals or nothing."""
        columns = range(1, len(self.columns))
        return [False, *(all(row[index][:1] in _NUMBERS for row in self.rows) for index in columns)]


def score_table(findings: Findings) -> Table:
    """Return one row per variant: development score, training language, averages, with deviations over seeds."""
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
    """Return one row per variant with a baseline: its gain in the zero-shot average with intervals, and other gains."""
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
    """Return one row per mode: the layer chosen on development data, and the best one by test average."""
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
    """Return one row per language, family or script: the baseline's score and every variant's gain.

    A bullet marks a language's gain that is a discovery, see `Findings.discoveries`. Families and scripts have the
    interval over sentences, or if there is none, the interval over seeds.
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
    """Return one row per variant: steps, seconds, seconds per step, ratio to the baseline; None if not recorded."""
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
            if _devices(reference.places) != _devices(cost.places):
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
    """Return the table of a comparison that the terminal shows."""
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
    """Return one row per ensemble: its zero-shot average and those of its members."""
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
    """Return the training language, zero-shot average and overall average, each once and only if it exists."""
    comparison = findings.comparison
    source = [language_group(comparison.train_language)] if comparison.train_language in comparison.languages else []
    return [*source, *average_groups(comparison)]


def _title(group: LanguageGroup, source: str) -> str:
    return f"{group.name} (training)" if group.name == source else group.name


def spread(values: Sequence[float] | None) -> str:
    """Format the mean with the deviation over seeds, in percent."""
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
