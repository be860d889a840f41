"""A saved model with what its run recorded: loaded to evaluate or to predict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

import dlfa  # noqa: F401  (makes model_type "dlfa" known to the Auto classes)

from .processes import default_device
from .run_config import RunConfig
from .run_directory import RunDirectory
from .tasks import Task, get_task
from .training import load_tokenizer

_AUTO = {
    "token": AutoModelForTokenClassification,
    "sequence": AutoModelForSequenceClassification,
    "pair": AutoModelForSequenceClassification,
    "qa": AutoModelForQuestionAnswering,
}


@dataclass(frozen=True)
class SavedRun:
    """A model on its device, ready to be used; `config` is None where the directory holds a model alone."""

    task: Task
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    config: RunConfig | None
    max_length: int


def load_run(path: Path, task_name: str | None = None, max_length: int | None = None) -> SavedRun:
    """Load the model in `path`, on the GPU where there is one.

    Args:
        path: an output directory of `dlfa train`, or any directory that transformers can load a model with the right
            head and labels from.
        task_name: needed only where `path` holds no run.json.
        max_length: tokens a sequence; None takes the run's, else XTREME's.

    Raises:
        ValueError: no model there, a task that cannot be told or is not the run's, labels that are not the task's.
    """
    if not path.is_dir():
        raise ValueError(f"model directory {path} does not exist")
    directory = RunDirectory(path)
    config = RunConfig.from_json(directory.read_run()["config"], path) if directory.run_file.exists() else None
    if config is not None and task_name is not None and task_name != config.task:
        raise ValueError(f"--task must be {config.task}, which the run in {path} was trained for, got {task_name}")
    name = config.task if config is not None else task_name
    if name is None:
        raise ValueError(f"--task must be given: {path} has no run.json that tells it")
    task = get_task(name)
    if not (path / "config.json").exists():
        state = "the run there is not complete; go on with dlfa train --resume" if config else "there is no config.json"
        raise ValueError(f"no model in {path}: {state}")
    length = max_length or (config.max_length if config is not None else None) or task.preset.max_length
    tokenizer = load_tokenizer(str(path), length)
    try:
        model = _AUTO[task.kind].from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"the model in {path} cannot be loaded for task {task.name}: {reason}") from error
    _check_labels(task, model, path)
    model.to(default_device())
    return SavedRun(task, model.eval(), tokenizer, config, length)


def _check_labels(task: Task, model: PreTrainedModel, path: Path) -> None:
    if not task.labels:
        return
    labels: dict[int, str] = {int(index): label for index, label in (model.config.id2label or {}).items()}
    names = tuple(labels[index] for index in sorted(labels))
    if names != task.labels:
        raise ValueError(
            f"the model in {path} has the labels {', '.join(names)}, task {task.name} has {', '.join(task.labels)}"
        )
