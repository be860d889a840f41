"""Results of ensembles from results.json, with the results of their members."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .fields import Fields


@dataclass(frozen=True)
class Ensemble:
    """An ensemble's results; averages are over the zero-shot languages, or over all if there are none.

    Attributes:
        name: its folder.
        task, metric: shared by all runs.
        by: how the runs are combined.
        members: names of the runs.
        average: the ensemble's average.
        member_averages: the average of each single run, in the order of `members`.
    """

    name: str
    task: str
    metric: str
    by: str
    members: tuple[str, ...]
    average: float
    member_averages: tuple[float, ...]


def read_ensemble(path: Path, values: Mapping[str, Any]) -> Ensemble:
    """Read the results of an ensemble, which have a field `ensemble`.

    Raises:
        ValueError: a malformed field; the message names it and the file.
    """
    fields = Fields(path, values)
    ensemble = Fields(path, fields.mapping("ensemble"), "ensemble.")
    runs = ensemble.values.get("runs")
    if not isinstance(runs, list) or not runs or not all(isinstance(run, dict) for run in runs):
        raise ensemble.error("runs", "a list of objects", runs)
    key = "average" if values.get("average_zero_shot") is None else "average_zero_shot"
    members = [Fields(path, run, f"ensemble.runs.{index}.") for index, run in enumerate(runs)]
    return Ensemble(
        str(path.parent),
        fields.text("task"),
        fields.text("metric"),
        ensemble.text("by"),
        tuple(member.text("run") for member in members),
        fields.fraction(key, values.get(key)),
        tuple(member.fraction(key, member.values.get(key)) for member in members),
    )
