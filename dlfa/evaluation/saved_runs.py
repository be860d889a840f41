"""Loading a saved model, with the record of its run, for evaluation or prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import dlfa  # noqa: F401  (makes model_type "dlfa" known to the Auto classes)

from ..data.examples import Example
from ..error_lines import first_line
from ..files.json_files import read_object
from ..models.config_files import load_config
from ..models.configuration import AUTO_CLASSES
from ..models.positions import check_length
from ..models.tokenizer import load_tokenizer
from ..models.whole_weights import load_whole
from ..processes import default_device
from ..runs.run_config import RunConfig
from ..runs.run_directory import RunDirectory
from ..tasks import Encoding, Task, get_task
from ..tasks.model_inputs import ModelInputs
from .evaluate import LanguageEvaluation, evaluate, example_scores
from .results import backend_of, recorded_config


@dataclass(frozen=True)
class SavedRun:
    """A loaded model on its device; `config` is None if the directory holds only a model."""

    task: Task
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    config: RunConfig | None
    max_length: int

    @property
    def autocast(self) -> torch.dtype | None:
        """The autocast dtype of the run's training and evaluation; None for no autocast."""
        return None if self.config is None else self.config.autocast

    def inputs(self) -> ModelInputs:
        """Return inputs that encode examples as the run's own evaluation did; they cache their features."""
        encoding = Encoding(self.max_length, getattr(self.model.config, "label_subword", "first"))
        return ModelInputs(self.task, self.tokenizer, encoding)

    def scores(
        self, examples: Sequence[Example], batch_size: int, on_batch: Callable[[int, int], object] | None = None
    ) -> list[Any]:
        """Return the `example_scores` of examples, encoded and run as in the run's own evaluation.

        Raises:
            FloatingPointError: see `example_scores`.
        """
        return example_scores(
            self.model, self.inputs(), examples, batch_size=batch_size, autocast=self.autocast, on_batch=on_batch
        )

    def evaluate(
        self, data: Mapping[str, Sequence[Example]], batch_size: int, *, progress: bool = False
    ) -> dict[str, LanguageEvaluation]:
        """Evaluate the model on each language of `data`, encoded and run as in the run's own evaluation.

        Raises:
            FloatingPointError: see `evaluate`.
        """
        return evaluate(
            self.model, self.inputs(), data, batch_size=batch_size, autocast=self.autocast, progress=progress
        )


def load_run(path: Path, task_name: str | None = None, max_length: int | None = None) -> SavedRun:
    """Load the model in `path`, on the GPU if there is one.

    Args:
        path: an output directory of `dlfa train`, or any directory from which transformers can load a model with the
            right head and labels.
        task_name: the task; needed only if `path` holds no run.json.
        max_length: tokens per sequence; None uses the run's, else the task's.

    Raises:
        ValueError: the model is missing, damaged or incomplete; run.json is invalid; the task is unknown or not the
            run's; the labels are not the task's; the encoder has too few positions for the length; or the backend
            cannot run.
    """
    directory = RunDirectory(path)
    directory.check_there()
    directory.check_one_run()
    config = directory.read_config() if directory.run_file.exists() else None
    if config is not None and task_name is not None and task_name != config.task:
        raise ValueError(f"--task must be {config.task}, which the run in {path} was trained for, got {task_name}")
    name = config.task if config is not None else task_name
    if name is None:
        raise ValueError(f"--task must be given: {path} has no run.json that tells it")
    task = get_task(name)
    if not (path / "config.json").exists():
        state = "there is no config.json"
        if directory.results_file.exists():
            state = "the run there was made by a sweep without --keep-models, or its model was removed"
        elif config is not None:
            state = "the run there is not complete; go on with dlfa train --resume"
        raise ValueError(f"no model in {path}: {state}")
    length = max_length or (config.max_length if config is not None else None) or task.preset.max_length
    tokenizer = load_tokenizer(str(path), length)
    try:
        model = load_whole(getattr(transformers, AUTO_CLASSES[task.model_class]), path, config=load_config(path))
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"the model in {path} cannot be loaded for task {task.name}: {first_line(error)}") from error
    _check_labels(task, model, path)
    check_length(model.base_model, str(path), length)
    device = default_device()
    backend_of(model, device, None if config is None else config.autocast)  # raises where AIF could not run
    return SavedRun(task, model.to(device).eval(), tokenizer, config, length)


def recorded_by_run(path: Path, config: RunConfig | None, **changed: Any) -> dict[str, Any]:
    """Return the fields that an evaluation's results.json copies from the run in `path`: model name and training.

    The name of an encoder's directory depends on where the command runs; the run's results.json has the original.

    Args:
        path: directory of the run.
        config: configuration of the run; None if unknown.
        **changed: fields of the configuration that the evaluation changed.
    """
    if config is None:
        return {}
    results = RunDirectory(path).results_file
    told = read_object(results) if results.exists() else {}
    fields: dict[str, Any] = {name: told[name] for name in ("model", "encoder_sha256", "intermediate") if name in told}
    return {**fields, "config": {**(told.get("config") or recorded_config(config)), **changed}}


def _check_labels(task: Task, model: PreTrainedModel, path: Path) -> None:
    if not task.labels:
        return
    labels: dict[int, str] = {int(index): label for index, label in (model.config.id2label or {}).items()}
    names = tuple(labels[index] for index in sorted(labels))
    if names != task.labels:
        raise ValueError(
            f"the model in {path} has the labels {', '.join(names)}, task {task.name} has {', '.join(task.labels)}"
        )
