"""Run directories as training leaves them, with made predictions in place of a model's."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlfa.data.examples import Example, TaggedSentence
from dlfa.tasks import TASKS, Task
from dlfa.tasks.metrics import average

Predictor = Callable[[str, Sequence[Example], random.Random], list[Any]]


def corrupted(task: Task, rate: Mapping[str, float] | float) -> Predictor:
    """Gold labels, each replaced by a random one at the rate of its language."""

    def predict(language: str, examples: Sequence[Example], draw: random.Random) -> list[Any]:
        share = rate if isinstance(rate, float) else rate[language]

        def wrong(label: str | None) -> str:
            return draw.choice(task.labels) if draw.random() < share else str(label)

        return [
            tuple(map(wrong, example.tags)) if isinstance(example, TaggedSentence) else wrong(example.label)  # type: ignore[union-attr]
            for example in examples
        ]

    return predict


def make_run(
    folder: Path,
    data: Mapping[str, Sequence[Example]],
    predict: Predictor,
    *,
    task: str = "udpos",
    fusion: str = "last",
    fusion_layer: int | list[int] | None = None,
    fuse: str = "gate",
    seed: int = 1,
    data_dir: Path | None = None,
    config: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
) -> Path:
    """Write results.json, run.json and predictions/ for one run, and return its folder."""
    kind = TASKS[task]
    languages = {}
    (folder / "predictions").mkdir(parents=True)
    for language, examples in data.items():
        predictions = predict(language, examples, random.Random(f"{folder.name}{language}"))
        languages[language] = {**kind.score(examples, predictions, language), "examples": len(examples)}
        text = kind.prediction_text(examples, predictions)
        (folder / "predictions" / f"test-{language}{kind.prediction_suffix}").write_text(text, encoding="utf-8")
    settings = {
        "processes": 1,
        "learning_rate": 2e-5,
        "epochs": 1,
        "seed": seed,
        "model_options": dict(options or {}),
        **(config or {}),
    }
    results = {
        "task": task,
        "model": "tiny",
        "fusion": fusion,
        "fusion_layer": fusion_layer,
        "fuse": fuse,
        "seed": seed,
        "split": "test",
        "metric": kind.metric,
        "train_language": "en",
        "languages": languages,
        "average": average(languages, kind.metric),
        "average_zero_shot": average(languages, kind.metric, "en"),
        "train": {"steps": 100, "seconds": 50.0 + seed, "loss": 0.1, "best_dev": 0.9} | dict(train or {}),
        "config": settings,
        "environment": {"device": "cpu", "dtype": "float32", "backend": "eager" if fusion == "aif" else None},
    }
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    run = {"config": {**settings, "data_dir": None if data_dir is None else str(data_dir)}, "data_sha256": "0"}
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    return folder
