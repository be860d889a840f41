"""Findings of a comparison: means, differences to the baseline with their uncertainty, chosen layers, cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .bootstrap import paired_bootstrap
from .comparison import Comparison
from .crossed_interval import crossed_interval
from .language_groups import LANGUAGE, LanguageGroup, groups_of, zero_shot_group
from .significance import Interval, adjusted, t_interval
from .variants import Variant

_COLUMNS = 6  # variants in a table of languages


@dataclass(frozen=True)
class Effect:
    """A variant's difference to its baseline, averaged over a group of languages.

    Attributes:
        differences: variant minus baseline for each seed, as fractions.
        seeds: t interval and paired t-test over seeds; None for a single seed.
        crossed: `crossed_interval` over seeds and languages; None for a single seed or language.
        sentences: paired bootstrap over sentences; None if it could not be computed.
    """

    differences: tuple[float, ...]
    seeds: Interval | None
    crossed: Interval | None
    sentences: Interval | None

    @property
    def mean(self) -> float:
        """Return the mean over the seeds."""
        return statistics.fmean(self.differences)


@dataclass(frozen=True)
class LayerChoice:
    """The best layer of a mode, by development data of the training language and by test average (the oracle)."""

    mode: str
    chosen: Variant | None
    oracle: Variant


@dataclass(frozen=True)
class Cost:
    """Training cost per seed: optimiser steps, wall-clock seconds, and the hardware."""

    steps: tuple[float, ...]
    seconds: tuple[float, ...]
    places: tuple[str, ...]

    @property
    def seconds_per_step(self) -> tuple[float, ...]:
        """Return seconds per step, including development evaluations and checkpoints."""
        return tuple(seconds / steps for seconds, steps in zip(self.seconds, self.steps, strict=True) if steps)


@dataclass(frozen=True)
class Findings:
    """The data for the tables and plots of one comparison.

    Attributes:
        comparison: the runs.
        groups: groups of languages, see `groups_of`.
        effects: by variant and group, for variants that have a baseline.
        notes: what could not be computed, and why.
        resamples: number of bootstrap resamples; 0 without a bootstrap.
    """

    comparison: Comparison
    groups: tuple[LanguageGroup, ...]
    effects: Mapping[tuple[Variant, LanguageGroup], Effect]
    notes: tuple[str, ...]
    resamples: int

    @property
    def main_group(self) -> LanguageGroup:
        """Return the group of the zero-shot average."""
        return zero_shot_group(self.comparison)

    @property
    def has_crossed(self) -> bool:
        """Return whether the zero-shot gains have intervals over both seeds and languages."""
        return any(effect.crossed for (_, group), effect in self.effects.items() if group == self.main_group)

    def of_kind(self, kind: str) -> list[LanguageGroup]:
        """Return the groups of that kind."""
        return [group for group in self.groups if group.kind == kind]

    def scores(self, variant: Variant, group: LanguageGroup) -> list[float]:
        """Return the mean over the group's languages for each seed."""
        return [run.mean(self.comparison.metric, group.languages) for run in self.comparison.runs[variant]]

    def dev_scores(self, variant: Variant) -> list[float] | None:
        """Return the best checkpoint's development score for each seed; None if a run does not record it."""
        values = [run.train.get("best_dev") for run in self.comparison.runs[variant]]
        return None if any(value is None for value in values) else [float(value) for value in values]  # type: ignore[arg-type]

    def cost(self, variant: Variant) -> Cost | None:
        """Return the training cost; None if a run does not record it."""
        runs = self.comparison.runs[variant]
        if any(run.train.get(name) is None for run in runs for name in ("steps", "seconds")):
            return None
        places = []
        for run in runs:
            told = [run.environment.get(name) for name in ("device", "dtype", "backend")]
            places.append(", ".join(str(item) for item in told if item))
        return Cost(
            tuple(float(run.train["steps"]) for run in runs),
            tuple(float(run.train["seconds"]) for run in runs),
            tuple(dict.fromkeys(places)),
        )

    def discoveries(self, variant: Variant) -> set[str]:
        """Return the languages with a significant difference over sentences (false discovery rate 5 % over all)."""
        intervals = {group.name: self.effects[variant, group].sentences for group in self.of_kind(LANGUAGE)}
        p_values = {name: each.p for name, each in intervals.items() if each is not None and each.p is not None}
        return {name for name, p in zip(p_values, adjusted([*p_values.values()]), strict=True) if p < 0.05}

    def layer_choices(self) -> list[LayerChoice]:
        """Return one choice for each mode that was run with several layers."""
        modes: dict[str, list[Variant]] = {}
        for variant in self.comparison.runs:
            if variant.layers:
                modes.setdefault(variant.mode, []).append(variant)
        choices = []
        for mode, members in modes.items():
            if len(members) < 2:
                continue
            oracle = max(members, key=lambda member: statistics.fmean(self.scores(member, self.main_group)))
            dev = {member: scores for member in members if (scores := self.dev_scores(member)) is not None}
            complete = len(dev) == len(members)
            chosen = max(dev, key=lambda member: statistics.fmean(dev[member])) if complete else None
            choices.append(LayerChoice(mode, chosen, oracle))
        return choices

    def table_pairs(self) -> list[tuple[Variant, Variant]]:
        """Return the pairs for a table of languages: all, or if there are too many, each mode's chosen layer only."""
        pairs = self.comparison.pairs
        if len(pairs) <= _COLUMNS:
            return pairs
        choices = self.layer_choices()
        modes = {choice.mode for choice in choices}
        chosen = {choice.chosen or choice.oracle for choice in choices}
        return [pair for pair in pairs if pair[0] in chosen or pair[0].mode not in modes]


def _why_no_differences(variants: Sequence[Variant]) -> str:
    if len(variants) == 1:
        return f"there are runs of {variants[0].label} alone"
    if all(variant == variant.with_fusion_last() for variant in variants):
        return "there are runs of the last layer, the baseline, alone"
    return "there is no run of the baseline"


def find(
    comparison: Comparison,
    *,
    resamples: int,
    data_dir: Path | None = None,
    on_language: Callable[[str], None] | None = None,
) -> Findings:
    """Compute the findings of a comparison.

    Args:
        comparison: the runs.
        resamples: number of resamples for the bootstrap over sentences; 0 skips it.
        data_dir: folder of the gold labels, see `paired_bootstrap`. If they or the predictions are unavailable, the
            bootstrap is skipped and a note gives the reason.
        on_language: called after the bootstrap of each language.
    """
    groups = tuple(groups_of(comparison))
    notes = []
    intervals: dict[tuple[Variant, LanguageGroup], Interval] = {}
    if resamples and comparison.pairs:
        try:
            intervals = paired_bootstrap(
                comparison, groups, resamples=resamples, data_dir=data_dir, on_language=on_language
            )
            drawn = {group for _, group in intervals}
            if single := [group.name for group in groups if group.kind == LANGUAGE and group not in drawn]:
                notes.append(f"no bootstrap over the one sentence of {', '.join(single)}; in means it counts as it is")
        except ValueError as error:
            notes.append(f"no bootstrap over sentences: {error}")
    if not comparison.pairs:
        notes.append(f"no differences: {_why_no_differences(list(comparison.runs))} with this protocol and these seeds")
    effects = {}
    for variant, baseline in comparison.pairs:
        for group in groups:
            pairs = list(zip(comparison.runs[variant], comparison.runs[baseline], strict=True))
            metric, languages = comparison.metric, group.languages
            differences = tuple(run.mean(metric, languages) - other.mean(metric, languages) for run, other in pairs)
            crossed = None
            if len(pairs) > 1 and len(languages) > 1:
                crossed = crossed_interval(
                    [
                        [run.score(metric, code) - other.score(metric, code) for code in languages]
                        for run, other in pairs
                    ]
                )
            effects[variant, group] = Effect(
                differences, t_interval(differences), crossed, intervals.get((variant, group))
            )
    return Findings(comparison, groups, effects, tuple(notes), resamples if intervals else 0)
