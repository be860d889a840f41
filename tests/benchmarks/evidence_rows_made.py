"""Rows of runs.csv with made-up scores, for tests of what is made of them."""

from __future__ import annotations

import json

from benchmarks.evidence.directories import planned_protocol
from benchmarks.evidence.groups import PlannedRun
from benchmarks.evidence.rows import COLUMNS, Row
from dlfa.report.variants import Variant


def made_row(
    run: PlannedRun, scores: dict[str, float], *, dev: float = 0.9, seconds: float = 10.0, commit: str = "abc"
) -> Row:
    """The row that a finished run would have; `scores` are accuracies by language, the F1 lies 0.1 below."""
    layers = run.layers if isinstance(run.layers, tuple) else () if run.layers is None else (run.layers,)
    fusion, _, fuse = run.variant.mode.partition(" ")
    protocol = planned_protocol(run)
    values = {
        **{name: value for name, value in run.identity.items() if name != "changed"},
        "task": run.group.task,
        "variant": Variant.of(fusion, layers, fuse or None, protocol["model_options"]).label,
        "fusion": fusion,
        "layers": "+".join(map(str, layers)),
        "fuse": fuse or "",
        "changed": json.dumps(run.changed),
        "seed": run.seed,
        "train_examples": 50,
        "eval_examples": 10 * len(scores),
        "model": "tiny",
        "metric": "f1",
        "train_language": "en",
        "dev": dev,
        "steps": 100,
        "seconds_per_step": seconds / 100,
        "train_seconds": seconds,
        "total_seconds": seconds + 1,
        "backend": "eager" if fusion == "aif" else "",
        "hardware": "a processor, 2 cores",
        "threads": 1,
        "dtype": "float32",
        "torch": "2.0",
        "transformers": "5.0",
        "commit": commit,
        "config": json.dumps(protocol),
        "examples": " ".join(f"{code}:10" for code in scores),
        **{f"accuracy:{code}": f"{score:.5f}" for code, score in scores.items()},
        **{f"f1:{code}": f"{score - 0.1:.5f}" for code, score in scores.items()},
    }
    return {name: str(values.get(name, "")) for name in dict.fromkeys((*COLUMNS, *values))}
