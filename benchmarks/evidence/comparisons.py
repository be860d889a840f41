"""A group's rows as comparisons: what may stand in one table, and a line for everything that may not, and why."""

from __future__ import annotations

import fnmatch
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dlfa.report.comparison import Comparison, compare
from dlfa.report.crossed_interval import crossed_interval
from dlfa.report.findings import Findings, find
from dlfa.report.language_groups import LanguageGroup
from dlfa.report.runs import Run
from dlfa.report.significance import Interval, t_interval
from dlfa.report.variants import Variant

from .directories import planned_protocol, protocol_changes
from .groups import PROTOCOL_OPTIONS, Group, Places, PlannedRun, variant
from .rows import Row, languages_of, run_of

LAST = Variant("last")
_NOWHERE = Places("unset", Path("unset"), Path("unset"))
_NAMED = 12  # missing variants that a line names
# Of fewer languages, hardly anything can be said about others: an interval is then one over seeds, for these languages.
FEWEST_LANGUAGES = 5


@dataclass(frozen=True)
class Gain:
    """A variant against another over the same languages and seeds.

    Attributes:
        mean: over all of them, a fraction.
        interval: over languages and seeds, with the test's p; over seeds alone where the languages are few. None
            where there is one figure alone.
        p_languages: of the paired t-test over languages, each with its mean over these seeds.
        up, of: languages whose mean over the seeds is the higher, and how many there are.
    """

    mean: float
    interval: Interval | None
    p_languages: float | None
    up: int
    of: int


@dataclass(frozen=True)
class Choice:
    """The best layer of a mode by the development data, and by the test average, of `candidates` many."""

    mode: str
    chosen: Variant | None  # None where some run does not tell its development score
    oracle: Variant
    candidates: int


@dataclass(frozen=True)
class ComparableVariants:
    """Variants with the same seeds, which one table may hold."""

    findings: Findings

    @property
    def comparison(self) -> Comparison:
        """The runs."""
        return self.findings.comparison

    @property
    def main_group(self) -> LanguageGroup:
        """The zero-shot languages; the training language where there is no other."""
        return self.findings.main_group

    def score(self, variant_: Variant) -> float:
        """The zero-shot average over the seeds."""
        return statistics.fmean(self.findings.scores(variant_, self.main_group))

    def dev(self, variant_: Variant) -> float | None:
        """The development score over the seeds."""
        scores = self.findings.dev_scores(variant_)
        return None if scores is None else statistics.fmean(scores)

    def best(self, variants: Iterable[Variant], most: int) -> list[Variant]:
        """Those of the highest scores, `most` of them at most, each once and in the order that they have here."""
        ranked = sorted(dict.fromkeys(variants), key=self.score, reverse=True)[:most]
        return [item for item in dict.fromkeys(variants) if item in ranked]

    def gain(self, variant_: Variant, reference: Variant) -> Gain:
        """Of one variant over another."""
        comparison, languages = self.comparison, self.main_group.languages
        metric = comparison.metric
        pairs = list(zip(comparison.runs[variant_], comparison.runs[reference], strict=True))
        values = [[a.score(metric, code) - b.score(metric, code) for code in languages] for a, b in pairs]
        by_language = [statistics.fmean(column) for column in zip(*values, strict=True)]
        few = len(languages) < FEWEST_LANGUAGES
        interval = t_interval([statistics.fmean(row) for row in values]) if few else crossed_interval(values)
        over_languages = t_interval(by_language)
        return Gain(
            statistics.fmean(by_language),
            interval,
            None if over_languages is None else over_languages.p,
            sum(x > 0 for x in by_language),
            len(by_language),
        )

    @property
    def singles(self) -> list[Variant]:
        """The last layer and every lower layer alone, without other changes."""
        return [
            item
            for item in self.comparison.runs
            if item.fusion in ("last", "lower") and not item.compared and not item.options
        ]

    @property
    def single(self) -> Choice | None:
        """The best single layer; None where no lower layer was run alone."""
        members = self.singles
        return self._choice("single layer", members) if any(item.fusion == "lower" for item in members) else None

    @property
    def chosen_single(self) -> Variant | None:
        """The single layer that development data choose."""
        return None if self.single is None else self.single.chosen

    @property
    def best_single(self) -> Variant | None:
        """The best single layer by test average."""
        return None if self.single is None else self.single.oracle

    @property
    def references(self) -> list[Variant]:
        """What gains are counted from: the last layer, and the best single one by test average, the hardest to beat."""
        found = [LAST] if LAST in self.comparison.runs else []
        if self.best_single is not None and self.best_single != LAST:
            found.append(self.best_single)
        return found

    @property
    def choices(self) -> list[Choice]:
        """Of every mode but the last layer, in order; single layers count as one mode, the last layer among them."""
        modes: dict[str, list[Variant]] = {}
        for item in self.comparison.runs:
            if item not in self.singles:
                modes.setdefault(item.mode, []).append(item)
        found = [self._choice(mode, members) for mode, members in modes.items()]
        return [self.single, *found] if self.single is not None else found

    def _choice(self, mode: str, members: Sequence[Variant]) -> Choice:
        dev = {item: score for item in members if (score := self.dev(item)) is not None}
        chosen = max(dev, key=lambda item: dev[item]) if len(dev) == len(members) else None
        return Choice(mode, chosen, max(members, key=self.score), len(members))

    def against(self, reference: Variant | None, variants: Sequence[Variant]) -> Findings:
        """The findings of some variants alone, compared with `reference`, which is then one of them, or with none."""
        kept = [item for item in self.comparison.runs if item == reference or item in variants]
        runs = {item: self.comparison.runs[item] for item in kept}
        baselines = {} if reference is None else {item: reference for item in kept if item != reference}
        return find(replace(self.comparison, runs=runs, baselines=baselines), resamples=0)


@dataclass(frozen=True)
class GroupEvidence:
    """What there is of a group.

    Attributes:
        group: of the plan.
        rows: of its finished runs that are of the planned protocol, included ones too.
        ensembles: rows of the group's ensembles.
        planned: how many runs there would be.
        comparables: one for each set of seeds that several variants have, the largest set first.
        of_record: the same by the task's metric of record, where the group is compared by another.
        notes: a line for everything that is missing or left out, and why.
    """

    group: Group
    rows: tuple[Row, ...]
    ensembles: tuple[Row, ...]
    planned: int
    comparables: tuple[ComparableVariants, ...]
    of_record: tuple[ComparableVariants, ...]
    notes: tuple[str, ...]


def gather(group: Group, plan: Sequence[Group], rows: Mapping[str, Row]) -> GroupEvidence:
    """What the CSV holds for a group of the plan.

    Args:
        group: of the plan.
        plan: all groups, for runs that the group includes.
        rows: of the CSV by name.

    Raises:
        ValueError: a pattern of `include` that no run matches.
    """
    planned = [*group.runs(), *_included(group, plan)]
    kept, notes = [], []
    missing: dict[str, list[int]] = {}
    for run in planned:
        row = rows.get(run.name)
        if row is None:
            missing.setdefault(run.name.rpartition("/")[0], []).append(run.seed)
        elif difference := _difference(row, run):
            notes.append(f"{run.name} is left out: another protocol ({difference})")
        else:
            kept.append(row)
    if missing:
        named = [f"{name} (seed {', '.join(map(str, seeds))})" for name, seeds in missing.items()]
        more = f" and {len(named) - _NAMED} more variants" if len(named) > _NAMED else ""
        count = sum(map(len, missing.values()))
        notes.append(f"{count} of {len(planned)} planned runs are not there: {'; '.join(named[:_NAMED])}{more}")
    usual = _usual_values(group)
    runs = _without_common_options([run_of(row, usual) for row in kept])
    comparables: list[ComparableVariants] = []
    of_record: list[ComparableVariants] = []
    if runs:
        comparables = _comparables(runs, group.metric)
        notes += dict.fromkeys(line for comparable in comparables for line in comparable.comparison.left_out)
        if group.metric not in (None, runs[0].metric):
            of_record = _comparables(runs, None)
    ensembles = [rows[each.name] for each in group.planned_ensembles() if each.name in rows]
    names = {row["name"] for row in kept}
    for each in group.planned_ensembles():
        if each.name not in rows:
            notes.append(f"{each.name} is not there")
        elif absent := [name for name in each.members if name not in names]:
            notes.append(f"{each.name} is left out: {', '.join(absent)} not there, or of another protocol")
    return GroupEvidence(
        group, tuple(kept), tuple(ensembles), len(planned), tuple(comparables), tuple(of_record), tuple(notes)
    )


def _comparables(runs: Sequence[Run], metric: str | None) -> list[ComparableVariants]:
    baseline = LAST.label if any(run.variant == LAST for run in runs) else None
    return [ComparableVariants(find(item, resamples=0)) for item in compare(runs, metric=metric, baseline=baseline)]


def _without_common_options(runs: Sequence[Run]) -> list[Run]:
    """The runs with options that all of AIF have left out of their variants: they tell none from another."""
    of_aif = [set(run.variant.options) for run in runs if run.variant.fusion == "aif"]
    common = set.intersection(*of_aif) if of_aif else set()
    return [
        replace(
            run, variant=replace(run.variant, options=tuple(item for item in run.variant.options if item not in common))
        )
        if run.variant.fusion == "aif"
        else run
        for run in runs
    ]


def _included(group: Group, plan: Sequence[Group]) -> list[PlannedRun]:
    others = [run for each in plan if each.name != group.name for run in each.runs()]
    found: dict[str, PlannedRun] = {}
    for pattern in group.include:
        matching = [run for run in others if fnmatch.fnmatchcase(run.name, pattern)]
        if not matching:
            raise ValueError(f"group {group.name}: no run of another group matches {pattern!r} of include")
        found |= {run.name: run for run in matching}
    return list(found.values())


def _difference(row: Row, run: PlannedRun) -> str:
    """In what a row differs from the plan; empty where it does not."""
    told = [protocol_changes(json.loads(row["config"]), planned_protocol(run, _NOWHERE))]
    languages = run.config(_NOWHERE).languages
    if languages is not None and set(languages) != set(languages_of(row)):
        told.append(f"languages {','.join(languages_of(row))} instead of {','.join(languages)}")
    return ", ".join(filter(None, told))


def _usual_values(group: Group) -> dict[str, Any]:
    """The group's own value of each field in which its variants, or runs that it includes, may differ."""
    plain = planned_protocol(PlannedRun(group, variant("last"), None, 1), _NOWHERE)
    values = {**plain, **{name: plain["model_options"].get(name) for name in PROTOCOL_OPTIONS}}
    return {name: values.get(name) for name in group.varied}
