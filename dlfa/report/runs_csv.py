"""All runs in one CSV file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from .runs import Run


def runs_csv(runs: Sequence[Run]) -> str:
    """Return CSV with one line per run: its identity, averages, scores by language, cost and protocol.

    Scores are fractions of the metric of record; fields that a run does not record are empty.
    """
    rows = [_row(run) for run in runs]
    codes = sorted({code for run in runs for code in run.scores})
    names = list(dict.fromkeys(name for row in rows for name in row if name not in codes))
    content = io.StringIO()
    writer = csv.DictWriter(content, [*names, *codes], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return content.getvalue()


def _row(run: Run) -> dict[str, Any]:
    zero_shot = [code for code in run.scores if code != run.train_language]
    variant = run.variant
    return {
        "task": run.task,
        "model": run.model,
        "variant": variant.label,
        "fusion": variant.fusion,
        "layers": "+".join(map(str, variant.layers)),
        "fuse": variant.fuse,
        "seed": run.seed,
        "split": run.split,
        "metric": run.metric,
        "average_zero_shot": _digits(run.mean(run.metric, zero_shot)) if zero_shot else None,
        "average": _digits(run.mean(run.metric, list(run.scores))),
        "best_dev": _digits(run.train.get("best_dev")),
        **{name: run.train.get(name) for name in ("steps", "seconds")},
        **{name: run.environment.get(name) for name in ("device", "dtype", "backend", "commit")},
        "protocol": json.dumps(dict(run.protocol), sort_keys=True, ensure_ascii=False),
        **{code: _digits(run.score(run.metric, code)) for code in run.scores},
    }


def _digits(value: float | None) -> str | None:
    return None if value is None else f"{value:.6f}"
