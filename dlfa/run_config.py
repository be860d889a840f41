"""The configuration of a training run: everything that has a say in its result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .tasks import Task, get_task

_COUNTS = (
    "batch_size", "gradient_accumulation", "max_length", "max_train_examples", "max_eval_examples", "save_steps",
    "eval_batch_size",
)  # fmt: skip
# What may be chosen anew when a run is resumed: it has no say in the result.
_FREE = ("eval_batch_size",)


@dataclass(frozen=True)
class RunConfig:
    """What `training.train` needs. A hyper-parameter that is None takes XTREME's value for the task.

    Args:
        task: a name of `dlfa.tasks.TASKS`.
        model: encoder, Hub id or directory.
        output_dir: where model, results and predictions are written.
        data_dir: data in XTREME's layout; None loads from the Hub.
        languages: to test on; None takes all that have data.
        model_options: keywords of the model's `from_encoder`: `fusion_layer`, `fusion`, `fuse`, `kernel_size`, ...
        learning_rate: peak, of AdamW.
        head_learning_rate: of the new parameters (fusion and head); None takes `learning_rate`.
        epochs: passes over the training data, fractions allowed.
        batch_size: sequences a step and process.
        gradient_accumulation: batches an optimiser step.
        max_length: tokens a sequence, special ones included.
        weight_decay: of weights, not of biases and norms.
        warmup_steps: optimiser steps of linear warm-up.
        seed: of initialisation, data order and dropout.
        max_train_examples: a fixed random subset of the training data; None takes all.
        max_eval_examples: likewise of the development set and of each test set.
        save_steps: optimiser steps between checkpoints; None saves after each epoch. The development set is evaluated
            at every checkpoint.
        eval_batch_size: sequences a batch of evaluation.
        bf16: train and evaluate under bfloat16 autocast.
        fp16: train and evaluate under float16 autocast, with loss scaling; needs a GPU.
        gradient_checkpointing: recompute activations in the backward pass.

    Raises:
        ValueError: a value out of its range; the message names it.
    """

    task: str
    model: str
    output_dir: Path
    data_dir: Path | None = None
    languages: tuple[str, ...] | None = None
    model_options: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float | None = None
    head_learning_rate: float | None = None
    epochs: float | None = None
    batch_size: int | None = None
    gradient_accumulation: int | None = None
    max_length: int | None = None
    weight_decay: float = 0.0
    warmup_steps: int | None = None
    seed: int = 1
    max_train_examples: int | None = None
    max_eval_examples: int | None = None
    save_steps: int | None = None
    eval_batch_size: int = 64
    bf16: bool = False
    fp16: bool = False
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        get_task(self.task)
        for name in ("learning_rate", "head_learning_rate", "epochs"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, got {value}")
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay}")
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must not be negative, got {self.warmup_steps}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in 0..2^32-1, got {self.seed}")
        if self.bf16 and self.fp16:
            raise ValueError("bf16 and fp16 cannot be given together")

    @property
    def task_object(self) -> Task:
        """The task itself."""
        return get_task(self.task)

    def with_presets(self) -> RunConfig:
        """The same run with XTREME's values in place of None."""
        preset = self.task_object.preset
        names = ("learning_rate", "epochs", "batch_size", "gradient_accumulation", "max_length", "warmup_steps")
        values = {name: getattr(preset, name) for name in names if getattr(self, name) is None}
        return dataclasses.replace(self, **values)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; `output_dir` is left out, as a run may be moved."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "output_dir"}
        values["data_dir"] = None if self.data_dir is None else str(self.data_dir)
        values["languages"] = None if self.languages is None else list(self.languages)
        values["model_options"] = dict(self.model_options)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any], output_dir: Path) -> RunConfig:
        """The run that `to_json` described.

        Raises:
            ValueError: fields that are missing or unknown.
        """
        known = {item.name for item in dataclasses.fields(cls)} - {"output_dir"}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"the run's configuration has unknown fields: {', '.join(unknown)}")
        if missing := sorted({"task", "model"} - set(values)):
            raise ValueError(f"the run's configuration lacks {', '.join(missing)}")
        fields = dict(values)
        fields["data_dir"] = None if fields.get("data_dir") is None else Path(fields["data_dir"])
        fields["languages"] = None if fields.get("languages") is None else tuple(fields["languages"])
        return cls(output_dir=output_dir, **fields)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The fields in which two configurations, as `to_json` gives them, would lead to different results."""
    names = [*before, *(name for name in now if name not in before)]
    return [name for name in names if name not in _FREE and before.get(name) != now.get(name)]
