"""Which runs may stand in one table: the same task, model, protocol, languages and seeds."""

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
    """Runs that differ in their variant and seed alone.

    Attributes:
        task, model, split, metric, train_language: of all runs.
        protocol: of all runs.
        languages: that every mean is taken over.
        seeds: of every variant.
        runs: by variant, in the order of `seeds`.
        baselines: what each variant is compared with; none for a baseline itself, or where there is none.
        left_out: a line for everything that is not here and why.

    Raises:
        ValueError: a run whose languages or seeds are not those of the others; what is in question is named.
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
        """The languages but the training one."""
        return tuple(language for language in self.languages if language != self.train_language)

    @property
    def pairs(self) -> list[tuple[Variant, Variant]]:
        """(variant, its baseline)."""
        return list(self.baselines.items())


class _Notes:
    """What is left out, with the runs of one reason in one line."""

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
    """Runs of one protocol, and what was left out of it."""

    runs: list[Run]
    notes: _Notes = field(default_factory=_Notes)


def compare(
    runs: Sequence[Run],
    *,
    metric: str | None = None,
    languages: Sequence[str] | None = None,
    baseline: str | None = None,
) -> list[Comparison]:
    """Sort runs into comparisons.

    Runs of one task, model and split whose protocols differ come into separate comparisons where a protocol has several
    variants; a protocol with a single variant is left out beside a larger one. Where the variants of a protocol have
    different seeds, there is one comparison for each set of seeds, with the variants that have all of them: no mean is
    taken over other seeds than its neighbour's. Where no run of a protocol can be compared, a line of the first
    comparison's `left_out` says so.

    Args:
        runs: as `load_runs` reads them.
        metric: None takes the one of record.
        languages: to compare on; None takes those that most runs were evaluated on.
        baseline: the label of the variant to compare with; None takes the last layer under the same compared settings.

    Raises:
        ValueError: a metric, language or baseline that is nowhere; no run at all that can be compared.
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
    """One group a protocol, less the protocols that offer nothing to compare."""
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
    """The comparisons of a group, whose notes tell what is in none of them."""
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
    """The languages that most runs were evaluated on, the larger set in a tie, whatever the order of `runs`."""
    counts = Counter(tuple(sorted(run.scores)) for run in runs)
    return max(counts, key=lambda languages: (counts[languages], len(languages), languages))


def _usual_examples(runs: Sequence[Run], languages: tuple[str, ...]) -> dict[str, int | None]:
    """How many examples of each language most of the runs that have all of them were evaluated on, the more in a tie.

    Empty where no run has all.
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
    """The runs that have all of `languages`, with as much data each; `extra`: say which others do not count."""
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
    """One run for each variant and seed."""
    seen: dict[tuple[Variant, int | None], Run] = {}
    for run in runs:
        first = seen.setdefault((run.variant, run.seed), run)
        if first is not run:
            notes.leave_out(run, f"{first.name} is a run of the same variant, protocol and seed")
    return list(seen.values())


def _seed_sets(
    by_variant: Mapping[Variant, Mapping[int | None, Run]], pairs: Mapping[Variant, Variant], notes: _Notes
) -> list[Seeds]:
    """The sets of seeds to compare on, the largest first: those that each variant shares with its baseline.

    A set of which one variant alone has all seeds offers nothing to compare, so it stands only where there is no other.
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
    """What each variant is compared with."""
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
