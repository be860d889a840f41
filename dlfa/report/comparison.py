"""Group runs that can be compared: those with the same task, model, protocol, languages and seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .runs import Run, protocol_differences, protocol_key
from .variants import Variant

Seeds = tuple[int | None, ...]


@dataclass(frozen=True)
class Comparison:
    """Runs that differ only in variant and seed.

    Attributes:
        task, model, split, metric, train_language: shared by all runs.
        protocol: shared by all runs.
        languages: the languages that every mean is taken over.
        seeds: the seeds of every variant.
        runs: by variant, in the order of `seeds`.
        baselines: each variant's baseline; baselines themselves and variants without one have no entry.
        left_out: one line for each thing that was left out, with the reason.

    Raises:
        ValueError: a run's languages or seeds differ from the others'; the message names them.
    """

    task: str
    model: str
    split: str
    metric: str
    train_language: str
    protocol: Mapping[str, Any]
    languages: tuple[str, ...]
    seeds: Seeds
    runs: Mapping[Variant, tuple[Run, ...]]
    baselines: Mapping[Variant, Variant]
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for variant, runs in self.runs.items():
            if tuple(run.seed for run in runs) != self.seeds:
                found = _listed(run.seed for run in runs)
                raise ValueError(f"{variant.label}: needed the seeds {_listed(self.seeds)}, got {found}")
            for run in runs:
                run.mean(self.metric, self.languages)

    @property
    def zero_shot(self) -> tuple[str, ...]:
        """Return all languages except the training language."""
        return tuple(language for language in self.languages if language != self.train_language)

    @property
    def pairs(self) -> list[tuple[Variant, Variant]]:
        """Return (variant, baseline) pairs."""
        return list(self.baselines.items())


class _Notes:
    """Notes on what is left out; runs with the same reason share a line."""

    def __init__(self) -> None:
        self.runs: dict[str, list[Run]] = {}
        self.other: list[str] = []

    def leave_out(self, run: Run, reason: str) -> None:
        self.runs.setdefault(reason, []).append(run)

    def lines(self) -> list[str]:
        lines = []
        for reason, runs in self.runs.items():
            names = ", ".join(f"{run.name} ({run.variant.label}, seed {_seed(run.seed)})" for run in runs)
            lines.append(f"left out {'is' if len(runs) == 1 else f'are {len(runs)} runs,'} {names}: {reason}")
        return lines + self.other


@dataclass(frozen=True)
class _Group:
    """Runs with one protocol, and notes on what was left out."""

    runs: list[Run]
    notes: _Notes = field(default_factory=_Notes)


def compare(
    runs: Sequence[Run],
    *,
    metric: str | None = None,
    languages: Sequence[str] | None = None,
    baseline: str | None = None,
) -> list[Comparison]:
    """Group runs into comparisons.

    For one task, model and split, each protocol with several variants has its own comparison. A protocol with a single
    variant is left out if there is a larger one. If the variants of a protocol have different seeds, there is one
    comparison per set of seeds, with the variants that have all of them, so all means in it are over the same seeds.
    If no run of a protocol can be compared, the first comparison's `left_out` has a line about it.

    Args:
        runs: the runs that `load_runs` returns.
        metric: the metric to compare; None uses the metric of record.
        languages: the languages to compare on; None uses those that most runs were evaluated on.
        baseline: label of the variant to compare with; None uses the last layer with the same compared settings.

    Raises:
        ValueError: no run has the metric, a language or the baseline, or no runs can be compared.
    """
    if baseline is not None and baseline not in {run.variant.label for run in runs}:
        labels = sorted({run.variant for run in runs}, key=lambda variant: variant.sort_key)
        raise ValueError(f"--baseline: no run is {baseline!r}; there are {', '.join(item.label for item in labels)}")
    for language in languages or ():
        if not any(language in run.scores for run in runs):
            known = sorted({language for run in runs for language in run.scores})
            raise ValueError(f"--languages: no run was evaluated on {language!r}; there are {', '.join(known)}")
    if metric is not None and not any(metric in values for run in runs for values in run.scores.values()):
        known = sorted({name for run in runs for values in run.scores.values() for name in values})
        raise ValueError(f"--metric: no results hold {metric!r}; there are {', '.join(known)}")
    comparisons: list[Comparison] = []
    lines = []
    for group in _groups(runs, metric):
        found = _comparisons(group, metric, languages, baseline)
        comparisons += found
        if not found:
            first = group.runs[0]
            lines.append(f"no run of {first.task}, {first.model} can be compared: {'; '.join(group.notes.lines())}")
    if not lines:
        return comparisons
    if not comparisons:
        raise ValueError("; ".join(lines))
    return [replace(comparisons[0], left_out=(*comparisons[0].left_out, *lines)), *comparisons[1:]]


def _groups(runs: Sequence[Run], metric: str | None) -> list[_Group]:
    """Group runs by protocol, without the protocols that have nothing to compare."""
    alike: dict[tuple[str, ...], dict[str, list[Run]]] = {}
    for run in runs:
        key = (run.task, run.model, run.split, metric or run.metric, run.train_language)
        alike.setdefault(key, {}).setdefault(protocol_key(run), []).append(run)
    groups = []
    for protocols in alike.values():
        by_size = sorted(protocols.values(), key=lambda group: (-len({run.variant for run in group}), -len(group)))
        kept = [group for group in by_size if len({run.variant for run in group}) > 1] or by_size[:1]
        main = _Group(kept[0])
        for group in by_size:
            if group not in kept:
                for run in group:
                    difference = protocol_differences(run, kept[0][0].protocol)
                    main.notes.leave_out(run, f"another protocol ({difference})")
        groups += [main, *(_Group(group) for group in kept[1:])]
    return groups


def _comparisons(
    group: _Group, metric: str | None, languages: Sequence[str] | None, baseline: str | None
) -> list[Comparison]:
    """Return the comparisons of a group; what is in none of them is added to the group's notes."""
    name = metric or group.runs[0].metric
    notes = group.notes
    chosen = tuple(languages) if languages is not None else _usual_languages(group.runs)
    kept = _without_repeats(_of_languages(group.runs, name, chosen, notes, extra=languages is None), notes)
    by_variant: dict[Variant, dict[int | None, Run]] = {}
    for run in sorted(kept, key=lambda run: run.variant.sort_key):
        by_variant.setdefault(run.variant, {})[run.seed] = run
    if not by_variant:
        return []
    first = kept[0]
    comparisons = []
    for seeds in _seed_sets(by_variant, _baselines(by_variant, baseline), notes):
        members = {
            variant: tuple(there[seed] for seed in seeds)
            for variant, there in by_variant.items()
            if set(seeds) <= set(there)
        }
        others: dict[str, list[str]] = {}
        for variant, there in by_variant.items():
            if variant not in members:
                others.setdefault(_listed(there), []).append(variant.label)
        lines = [
            f"{', '.join(labels)} {'is' if len(labels) == 1 else 'are'} left out: seeds {there}, this comparison needs "
            f"{_listed(seeds)}"
            for there, labels in others.items()
        ]
        comparisons.append(
            Comparison(
                first.task,
                first.model,
                first.split,
                name,
                first.train_language,
                first.protocol,
                chosen,
                seeds,
                members,
                _baselines(members, baseline),
                (*notes.lines(), *lines),
            )
        )
    return comparisons


def _usual_languages(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the languages that most runs were evaluated on; ties go to the larger set, not by the order of `runs`."""
    counts = Counter(tuple(sorted(run.scores)) for run in runs)
    return max(counts, key=lambda languages: (counts[languages], len(languages), languages))


def _usual_examples(runs: Sequence[Run], languages: tuple[str, ...]) -> dict[str, int | None]:
    """Return the most common numbers of examples by language among runs with all `languages`; ties go to the larger.

    The result is empty if no run has all languages.
    """
    counts = Counter(
        tuple(run.examples[language] for language in languages)
        for run in runs
        if all(language in run.scores for language in languages)
    )
    if not counts:
        return {}
    usual = max(counts, key=lambda numbers: (counts[numbers], [-1 if number is None else number for number in numbers]))
    return dict(zip(languages, usual, strict=True))


def _of_languages(
    runs: Sequence[Run], metric: str, languages: tuple[str, ...], notes: _Notes, *, extra: bool
) -> list[Run]:
    """Return the runs that have all `languages` with the usual numbers of examples; `extra`: note unused languages."""
    usual = _usual_examples(runs, languages)
    kept = []
    for run in runs:
        missing = [language for language in languages if language not in run.scores]
        other = [] if missing else [language for language in languages if run.examples[language] != usual[language]]
        if missing:
            notes.leave_out(
                run,
                f"not evaluated on {', '.join(missing)}, and a mean over unequal sets of languages is refused "
                "(--languages compares on those that all have)",
            )
        elif other:
            counts = ", ".join(f"{language} {run.examples[language]} for {usual[language]}" for language in other)
            notes.leave_out(run, f"evaluated on other numbers of examples ({counts})")
        elif any(metric not in run.scores[language] for language in languages):
            notes.leave_out(run, f"the results hold no {metric}")
        else:
            kept.append(run)
    more = sorted({language for run in kept for language in run.scores}.difference(languages))
    if more and extra:
        notes.other.append(f"{', '.join(more)} do not count, as most runs were not evaluated on them")
    return kept


def _without_repeats(runs: Sequence[Run], notes: _Notes) -> list[Run]:
    """Keep one run per variant and seed."""
    seen: dict[tuple[Variant, int | None], Run] = {}
    for run in runs:
        first = seen.setdefault((run.variant, run.seed), run)
        if first is not run:
            notes.leave_out(run, f"{first.name} is a run of the same variant, protocol and seed")
    return list(seen.values())


def _seed_sets(
    by_variant: Mapping[Variant, Mapping[int | None, Run]], pairs: Mapping[Variant, Variant], notes: _Notes
) -> list[Seeds]:
    """Return the sets of seeds that variants share with their baselines, the largest first.

    A set that only one variant has in full is used only if there is no other, because it offers nothing to compare.
    """
    shared = {
        frozenset(there).intersection(by_variant[pairs[variant]] if variant in pairs else there)
        for variant, there in by_variant.items()
    }

    def members(seeds: frozenset[int | None]) -> frozenset[Variant]:
        return frozenset(variant for variant, there in by_variant.items() if seeds <= set(there))

    order = sorted(filter(None, shared), key=lambda seeds: (-len(seeds), str(_sorted(seeds))))
    sets = [seeds for seeds in order if len(members(seeds)) > 1] or order[:1]
    sets = [seeds for seeds in sets if not any(seeds < other and members(seeds) == members(other) for other in sets)]
    for variant, there in by_variant.items():
        unused = set(there).difference(*(seeds for seeds in sets if variant in members(seeds)))
        if unused:
            notes.other.append(
                f"{variant.label}: seeds {_listed(unused)} stand in no comparison, as the runs to compare with are "
                "missing"
            )
    return [_sorted(seeds) for seeds in sets]


def _baselines(members: Mapping[Variant, Any], baseline: str | None) -> dict[Variant, Variant]:
    """Return each variant's baseline."""
    pairs = {}
    for variant in members:
        if baseline is None:
            reference = variant.with_fusion_last()
        else:
            reference = next((item for item in members if item.label == baseline), variant)
        if reference != variant and reference in members:
            pairs[variant] = reference
    return pairs


def _seed(seed: int | None) -> str:
    return "not recorded" if seed is None else str(seed)


def _sorted(seeds: Iterable[int | None]) -> Seeds:
    return tuple(sorted(seeds, key=lambda seed: (seed is None, seed or 0)))


def _listed(seeds: Iterable[int | None]) -> str:
    return ", ".join(map(_seed, _sorted(seeds))) or "none"
