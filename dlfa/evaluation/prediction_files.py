"""Prediction files: test-XX (or dev-XX), one a language, in the format of XTREME's scorer, written and read again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.examples import Example, gold_labels
from ..files import atomic
from ..tasks import Task

if TYPE_CHECKING:
    from .evaluate import LanguageEvaluation


def prediction_name(task: Task, language: str, split: str = "test") -> str:
    """The name of a language's prediction file."""
    return f"{split}-{language}{task.prediction_suffix}"


def write_predictions(
    path: Path, task: Task, evaluations: Mapping[str, LanguageEvaluation], split: str = "test"
) -> None:
    """Write test-XX (or dev-XX) files below `path`, one a language, in the format of XTREME's scorer."""
    for language, result in evaluations.items():
        text = task.prediction_text(result.examples, result.predictions)
        atomic.write_text(path / prediction_name(task, language, split), text)


def read_predictions(task: Task, path: Path, examples: Sequence[Example]) -> list[Any]:
    """Read a prediction file as `Task.prediction_text` writes it: one prediction for each of `examples`.

    Raises:
        ValueError: it cannot be read, or does not fit the examples.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    predictions: list[Any]
    if task.kind == "qa":
        answers = json.loads(text)
        missing = [example.id for example in examples if example.id not in answers]  # type: ignore[union-attr]
        if missing:
            raise ValueError(f"{path} has no answer to question {missing[0]}")
        return [answers[example.id] for example in examples]  # type: ignore[union-attr]
    if task.kind == "token":
        predictions = [tuple(block.split("\n")) for block in text.removesuffix("\n\n").split("\n\n")]
    else:
        predictions = text.removesuffix("\n").split("\n")
    if len(predictions) != len(examples):
        raise ValueError(f"{path} holds {len(predictions)} predictions for {len(examples)} examples")
    known = set(task.labels)
    for number, (example, prediction) in enumerate(zip(examples, predictions, strict=True), start=1):
        labels = (prediction,) if isinstance(prediction, str) else prediction
        if len(labels) != len(gold_labels(example)):
            raise ValueError(f"{path}, example {number}: {len(labels)} labels for {len(gold_labels(example))}")
        if not known.issuperset(labels):
            wrong = sorted(set(labels) - known)[0]
            raise ValueError(f"{path}, example {number}: {wrong!r} is no label of {task.name}")
    return predictions
