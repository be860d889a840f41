"""results.json: the scores of a run or an evaluation, and its environment."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runs.run_config import Role, RunConfig, fields_of
from ..tasks.metrics import average
from .source import checkout_commit, installed_version

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from ..tasks import Task
    from .evaluate import LanguageEvaluation


def summary(
    task: Task,
    model: PreTrainedModel,
    model_name: str,
    evaluations: Mapping[str, LanguageEvaluation],
    /,  # `more` may bring its own "model"
    *,
    seed: int | None,
    split: str = "test",
    autocast: torch.dtype | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return the content of results.json.

    Args:
        task: the task.
        model: the model; its configuration determines fusion and labels, its device and dtype the backend.
        model_name: encoder or run, as the user named it; for a directory only the last part is kept.
        evaluations: evaluations by language.
        seed: seed of the training run, if known.
        split: "test" or "dev".
        autocast: autocast dtype of the evaluation; None for the model's dtype.
        more: further fields: `train`, `config`, `intermediate`, `encoder_sha256` (of the weights before training), and
            `model`, the name in a run's own results, which overrides `model_name`.
    """
    config = model.config
    return {
        "task": task.name,
        "model": directory_name(Path(model_name)) if Path(model_name).is_dir() else model_name,
        "fusion": getattr(config, "fusion", "last"),
        "fusion_layer": getattr(config, "fusion_layer", None),
        "fuse": getattr(config, "fuse", None),
        "label_subword": getattr(config, "label_subword", None) if task.kind == "token" else None,
        "classifier_pooling": getattr(config, "classifier_pooling", None) if task.kind == "pair" else None,
        "seed": seed,
        "split": split,
        **scores(task, evaluations),
        **more,
        "environment": environment(model, autocast),
    }


def directory_name(path: Path) -> str:
    """Return the name of the directory `path`, also if it is "."; for a link, the name of the link."""
    return Path(os.path.abspath(path)).name


def scores(task: Task, evaluations: Mapping[str, LanguageEvaluation]) -> dict[str, Any]:
    """Return the fields of results.json that hold scores, for a run, an evaluation or an ensemble.

    Scores are fractions in 0..1. `average` is the unweighted mean of the main metric over all languages.
    `average_zero_shot` leaves out the training language; it is null if there is no other. `averages` has both for every
    metric. `examples` counts original sentences, pairs or questions.
    """
    languages = {
        language: {**result.metrics, "examples": len(result.examples)} for language, result in evaluations.items()
    }
    names = list(next(iter(evaluations.values())).metrics) if evaluations else []
    averages = {
        name: {"all": average(languages, name), "zero_shot": average(languages, name, task.train_language)}
        for name in names
    }
    record = averages.get(task.metric, {"all": None, "zero_shot": None})
    return {
        "metric": task.metric,
        "train_language": task.train_language,
        "languages": languages,
        "average": record["all"],
        "average_zero_shot": record["zero_shot"],
        "averages": averages,
    }


def environment(model: PreTrainedModel, autocast: torch.dtype | None = None) -> dict[str, Any]:
    """Return versions, device, precision, and the backend of AIF (None if the model has no AIF)."""
    import torch

    device = model.device
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": metadata.version("transformers"),
        "triton": installed_version("triton"),
        "dlfa": installed_version("dlfa"),
        "commit": checkout_commit(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "dtype": str(autocast or model.dtype).removeprefix("torch."),
        "backend": backend_of(model, model.device, autocast),
    }


def backend_of(model: PreTrainedModel, device: torch.device, autocast: torch.dtype | None) -> str | None:
    """Return the backend of AIF, "triton" or "eager", for `model` on `device`; None if the model has no AIF.

    Raises:
        ValueError, TypeError: the backend of the model or of DLFA_BACKEND is unknown or cannot run there.
    """
    if getattr(model.config, "fusion", None) != "aif":
        return None
    import torch

    from dlfa_kernels.backends import resolve_backend

    states = torch.empty(0, device=device, dtype=autocast or model.dtype)
    try:
        return resolve_backend(model.config.aif_backend, states)
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def recorded_config(config: RunConfig) -> dict[str, Any]:
    """Return the configuration for results.json, without paths of this machine and fields recorded elsewhere in it."""
    told = fields_of(config.to_json(), Role.VARIANT, Role.PROTOCOL, Role.SPEED)
    del told["intermediate"]  # it names places, and the results tell its tasks, each with its configuration
    return told
