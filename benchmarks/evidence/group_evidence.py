"""The evidence for a group in the CSV: comparisons of its runs, and notes on everything in none of them."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dlfa.report.comparison import compare
from dlfa.report.findings import find
from dlfa.report.runs import Run

from .comparisons import LAST, ComparableVariants
from .directories import planned_protocol, protocol_changes
from .groups import NOWHERE, PROTOCOL_OPTIONS, Group, PlannedRun, variant
from .rows import Row, languages_of, run_of

_NAMED = 12  # the most missing variants that a note names


@dataclass(frozen=True)
class GroupEvidence:
    """The evidence for a group.

    Attributes:
        group: the group of the plan.
        rows: rows of its finished runs with the planned protocol, including those of `include`.
        ensembles: rows of the group's ensembles.
        planned: the number of planned runs.
        comparables: one for each set of seeds that several variants share, the largest set first.
        of_record: the same by the task's metric of record, if the group is compared by another.
        notes: one line for each missing or excluded item, with the reason.
    """

    group: Group
    rows: tuple[Row, ...]
    ensembles: tuple[Row, ...]
    planned: int
    comparables: tuple[ComparableVariants, ...]
    of_record: tuple[ComparableVariants, ...]
    notes: tuple[str, ...]


def gather(group: Group, plan: Sequence[Group], rows: Mapping[str, Row]) -> GroupEvidence:
    """Return the evidence in the CSV for a group of the plan.

    Args:
        group: the group of the plan.
        plan: all groups, for runs that the group includes.
        rows: the rows of the CSV by name.

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
    """Return the runs without options that all AIF runs share, which do not distinguish variants.

    AIF's control shares AIF's options.
    """
    of_aif = [set(run.variant.options) for run in runs if run.variant.fusion == "aif"]
    common = set.intersection(*of_aif) if of_aif else set()
    return [
        replace(
            run, variant=replace(run.variant, options=tuple(item for item in run.variant.options if item not in common))
        )
        if run.variant.fusion in ("aif", "residual")
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
    """Describe how a row differs from the plan; empty if it does not."""
    told = [protocol_changes(json.loads(row["config"]), planned_protocol(run))]
    languages = run.config(NOWHERE).languages
    if languages is not None and set(languages) != set(languages_of(row)):
        told.append(f"languages {','.join(languages_of(row))} instead of {','.join(languages)}")
    return ", ".join(filter(None, told))


def _usual_values(group: Group) -> dict[str, Any]:
    """Return the group's value of each field in which its variants or included runs may differ."""
    plain = planned_protocol(PlannedRun(group, variant("last"), None, 1))
    values = {**plain, **{name: plain["model_options"].get(name) for name in PROTOCOL_OPTIONS}}
    return {name: values.get(name) for name in group.varied}
