"""Writing and reading prediction files: test-XX (or dev-XX), one per language, in the format of XTREME's scorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.examples import Example, gold_labels
from ..files import atomic
from ..files.json_files import read_object
from ..tasks import Task

if TYPE_CHECKING:
    from .evaluate import LanguageEvaluation


def prediction_name(task: Task, language: str, split: str = "test") -> str:
    """Return the name of a language's prediction file."""
    return f"{split}-{language}{task.prediction_suffix}"


def write_predictions(
    path: Path, task: Task, evaluations: Mapping[str, LanguageEvaluation], split: str = "test"
) -> None:
    """Write test-XX (or dev-XX) files below `path`, one per language, in the format of XTREME's scorer."""
    for language, result in evaluations.items():
        text = task.prediction_text(result.examples, result.predictions)
        atomic.write_text(path / prediction_name(task, language, split), text)


def read_predictions(task: Task, path: Path, examples: Sequence[Example]) -> list[Any]:
    """Read a prediction file in the format of `Task.prediction_text`, with one prediction for each of `examples`.

    Raises:
        ValueError: the file cannot be read or does not match the examples.
    """
    predictions: list[Any]
    if task.kind == "qa":
        return _read_answers(path, [example.id for example in examples])  # type: ignore[union-attr]
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
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


def _read_answers(path: Path, questions: Sequence[str]) -> list[str]:
    """The answer to each question of a prediction file of question answering."""
    answers = read_object(path)
    predictions = []
    for question in questions:
        if question not in answers:
            raise ValueError(f"{path} has no answer to question {question}")
        answer = answers[question]
        if not isinstance(answer, str):
            raise ValueError(f"{path}: the answer to question {question} must be a text, got {answer!r}")
        predictions.append(answer)
    return predictions
