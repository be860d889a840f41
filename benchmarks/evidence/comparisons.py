"""Variants that one table may compare, their gains, and the best layers."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from dlfa.report.comparison import Comparison
from dlfa.report.crossed_interval import crossed_interval
from dlfa.report.findings import Findings, find
from dlfa.report.language_groups import LanguageGroup
from dlfa.report.significance import Interval, t_interval
from dlfa.report.variants import Variant

LAST = Variant("last")
# Fewer languages allow hardly any inference about others: the interval is then over seeds only.
FEWEST_LANGUAGES = 5


@dataclass(frozen=True)
class Gain:
    """The gain of one variant over another, for the same languages and seeds.

    Attributes:
        mean: over all languages and seeds, a fraction.
        interval: over languages and seeds, with the test's p; over seeds only if languages are few. None if there is
            only one figure.
        p_languages: p of the paired t-test over languages, each with its mean over these seeds.
        up, of: number of languages with a higher mean over the seeds, and number of all languages.
    """

    mean: float
    interval: Interval | None
    p_languages: float | None
    up: int
    of: int


@dataclass(frozen=True)
class Choice:
    """The best layers of a mode, of `candidates` many, by development data and by test average.

    Attributes:
        tied: all with the highest development score, in the order of the runs; none if a run lacks its score. Their
            test scores may differ much.
    """

    mode: str
    tied: tuple[Variant, ...]
    oracle: Variant
    candidates: int

    @property
    def chosen(self) -> Variant | None:
        """The first one with the highest development score; None if a run lacks its score."""
        return self.tied[0] if self.tied else None


@dataclass(frozen=True)
class ComparableVariants:
    """Variants with the same seeds, which one table may compare."""

    findings: Findings

    @property
    def comparison(self) -> Comparison:
        """The runs."""
        return self.findings.comparison

    @property
    def main_group(self) -> LanguageGroup:
        """The zero-shot languages; the training language if there is no other."""
        return self.findings.main_group

    def score(self, variant_: Variant) -> float:
        """Return the zero-shot average over the seeds."""
        return statistics.fmean(self.findings.scores(variant_, self.main_group))

    def dev(self, variant_: Variant) -> float | None:
        """Return the development score over the seeds."""
        scores = self.findings.dev_scores(variant_)
        return None if scores is None else statistics.fmean(scores)

    def best(self, variants: Iterable[Variant], most: int) -> list[Variant]:
        """Return the `most` variants, or fewer, with the highest scores, each once, in their given order."""
        ranked = sorted(dict.fromkeys(variants), key=self.score, reverse=True)[:most]
        return [item for item in dict.fromkeys(variants) if item in ranked]

    def gain(self, variant_: Variant, reference: Variant) -> Gain:
        """Return the gain of one variant over another."""
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
        """The best single layer; None if no lower layer was run alone."""
        members = self.singles
        return self._choice("single layer", members) if any(item.fusion == "lower" for item in members) else None

    @property
    def chosen_single(self) -> Variant | None:
        """The best single layer by development data."""
        return None if self.single is None else self.single.chosen

    @property
    def best_single(self) -> Variant | None:
        """The best single layer by test average."""
        return None if self.single is None else self.single.oracle

    @property
    def references(self) -> list[Variant]:
        """The references of gains: the last layer, and the best single one by test average, the hardest to beat."""
        found = [LAST] if LAST in self.comparison.runs else []
        if self.best_single is not None and self.best_single != LAST:
            found.append(self.best_single)
        return found

    @property
    def choices(self) -> list[Choice]:
        """The choices of all modes except the last layer, in order; single layers are one mode, with the last layer."""
        modes: dict[str, list[Variant]] = {}
        for item in self.comparison.runs:
            if item not in self.singles:
                modes.setdefault(item.mode, []).append(item)
        found = [self._choice(mode, members) for mode, members in modes.items()]
        return [self.single, *found] if self.single is not None else found

    def _choice(self, mode: str, members: Sequence[Variant]) -> Choice:
        dev = {item: score for item in members if (score := self.dev(item)) is not None}
        highest = max(dev.values(), default=None)
        tied = tuple(item for item in dev if dev[item] == highest) if len(dev) == len(members) else ()
        return Choice(mode, tied, max(members, key=self.score), len(members))

    def against(self, reference: Variant | None, variants: Sequence[Variant]) -> Findings:
        """Return the findings of only these variants, compared with `reference`, which is added, or with none."""
        kept = [item for item in self.comparison.runs if item == reference or item in variants]
        runs = {item: self.comparison.runs[item] for item in kept}
        baselines = {} if reference is None else {item: reference for item in kept if item != reference}
        return find(replace(self.comparison, runs=runs, baselines=baselines), resamples=0)
