"""Distinguish encoders with the same name by the fingerprints of their weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .runs import Run


def told_apart(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Add fingerprints to encoder names that several encoders share; return the runs and a line on each such name.

    Results without a fingerprint belong to the encoder of their name if there is only one, else to a separate one.
    """
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        if run.encoder is not None:
            found.setdefault(run.model, {})[run.encoder] = None
    several = {model: list(encoders) for model, encoders in found.items() if len(encoders) > 1}
    named = [
        dataclasses.replace(run, model=_name(run.model, run.encoder)) if run.model in several else run for run in runs
    ]
    notes = [
        f"{len(encoders)} encoders are called {model}, so their runs are not compared with each other: "
        + ", ".join(_name(model, encoder) for encoder in encoders)
        for model, encoders in several.items()
    ]
    return named, notes


def _name(model: str, encoder: str | None) -> str:
    return f"{model} ({'not recorded' if encoder is None else encoder[:8]})"
