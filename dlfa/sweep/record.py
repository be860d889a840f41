"""sweep.json: the inputs of a sweep's cells, their states, and the summary over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..evaluation.source import installed_version
from ..files import atomic
from ..files.json_files import read_object
from ..runs.run_directory import SWEEP, RunDirectory
from ..training.recorded_runs import error_file, failure_reason
from .config import Cell, SweepConfig


class SweepRecord:
    """sweep.json, rebuilt from the cells' directories on each write, so that it always matches them."""

    def __init__(self, config: SweepConfig) -> None:
        self.config = config
        self.inputs: dict[str, Any] | None = None
        if self.file.exists():
            self.inputs = read_object(self.file, ("inputs",))["inputs"]

    @property
    def file(self) -> Path:
        """Return the path of sweep.json."""
        return self.config.output_dir / SWEEP

    def check(self, inputs: Mapping[str, Any]) -> None:
        """Raise ValueError if the existing cells were made from inputs other than `inputs`."""
        before = inputs if self.inputs is None else self.inputs
        if changed := [name for name in inputs if before.get(name) != inputs[name]]:
            raise ValueError(
                f"--output-dir {self.config.output_dir} holds a sweep of other data or another encoder (another "
                f"{', '.join(changed)}); give a new directory"
            )

    def claim(self, inputs: dict[str, Any]) -> None:
        """Set the inputs of further cells.

        Raises:
            ValueError: the existing cells were made from other inputs.
        """
        self.check(inputs)
        self.inputs = inputs

    def _directory(self, cell: Cell) -> RunDirectory:
        return RunDirectory(self.config.output_dir / "cells" / cell.name)

    def state_of(self, cell: Cell) -> str:
        """Return "done", "failed", "interrupted" or "to do"."""
        directory = self._directory(cell)
        if directory.results_file.exists():
            return "done"
        if error_file(directory.path).exists():
            return "failed"
        return "interrupted" if directory.run_file.exists() else "to do"

    def reason(self, cell: Cell) -> str:
        """Return the last line of a failed cell's error."""
        return failure_reason(self._directory(cell).path)

    def write(self) -> dict[str, Any]:
        """Write sweep.json and return its content."""
        cells: list[dict[str, Any]] = []
        for cell in self.config.cells():
            layer = cell.model_options["fusion_layer"]
            entry: dict[str, Any] = {"name": cell.name, "mode": cell.mode, "fusion_layer": layer, "seed": cell.seed}
            entry["state"] = self.state_of(cell)
            if entry["state"] == "done":
                results = read_object(self._directory(cell).results_file, ("average", "train"))
                entry |= {name: results[name] for name in ("metric", "average", "average_zero_shot")}
                entry["seconds"] = results["train"]["seconds"]
            elif entry["state"] == "failed":
                entry["error"] = self.reason(cell)
            cells.append(entry)
        content = {
            "config": self.config.to_json(),
            "inputs": self.inputs,
            "dlfa": installed_version("dlfa"),
            "cells": cells,
            "summary": _summary(cells),
        }
        atomic.write_json(self.file, content)
        return content


def _summary(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return mean and sample standard deviation over the seeds for each mode and layer; null if undefined."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["mode"], str(cell["fusion_layer"])), []).append(cell)
    rows = []
    for members in groups.values():
        mode, layer = members[0]["mode"], members[0]["fusion_layer"]
        done = [cell for cell in members if cell["state"] == "done"]
        row: dict[str, Any] = {"mode": mode, "fusion_layer": layer, "done": len(done), "of": len(members)}
        for name in ("average_zero_shot", "average", "seconds"):
            values = [cell[name] for cell in done if cell[name] is not None]
            row[name] = statistics.fmean(values) if values else None
            row[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else None
        rows.append(row)
    return rows
