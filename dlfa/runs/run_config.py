"""The configuration of a training run: everything that affects its result."""

from __future__ import annotations

import dataclasses
import enum
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from ..tasks import Task, get_task

if TYPE_CHECKING:
    import torch

STATES_DTYPES = ("float32", "float16")  # of hidden states kept on disk
# Sequences a batch where nothing is trained: one number for all, as states depend in their last bits on the batch.
EVAL_BATCH_SIZE = 64

_LARGEST = 2**31 - 1  # of counts
_PATHS = ("data_dir", "states_cache")
_TUPLES = ("languages", "lora_targets", "intermediate")
_COUNTS = (
    "batch_size", "gradient_accumulation", "max_length", "max_train_examples", "max_eval_examples", "save_steps",
    "eval_batch_size", "lora_rank", "lora_alpha",
)  # fmt: skip
# XTREME's learning rates are those of whole encoders; new parameters alone, or adapters, need higher ones.
_FROZEN_LEARNING_RATE = 1e-3
_LORA_LEARNING_RATE = 2e-4


class Role(enum.Enum):
    """How a field of `RunConfig` affects a run's result, and where results.json records it."""

    IDENTITY = "identifies the run; results.json records it outside of its `config`"
    VARIANT = "the setting that reports compare"
    PROTOCOL = "any other setting that affects the result; reports do not compare runs that differ in it"
    PLACE = "no effect on the result: a path on this machine"
    SPEED = "no effect on the result: changes time and memory only"


_IDENTITY, _VARIANT, _PLACE, _SPEED = ({"role": role} for role in (Role.IDENTITY, Role.VARIANT, Role.PLACE, Role.SPEED))


@dataclass(frozen=True)
class RunConfig:
    """The configuration of `train`.

    A hyper-parameter that is None uses the task's preset, which is XTREME's for XTREME's tasks. The metadata of a field
    hold its `Role`; fields without one are part of the protocol.

    Args:
        task: a name in `dlfa.tasks.TASKS`.
        model: the encoder, a Hub id or a directory.
        output_dir: directory for model, results and predictions.
        data_dir: data in XTREME's layout; None loads from the Hub.
        languages: languages to test on; None uses all that have data.
        model_options: keywords of the model's `from_encoder`: `fusion_layer`, `fusion`, `fuse`, `kernel_size`, ...
        learning_rate: peak learning rate of AdamW.
        head_learning_rate: learning rate of the new parameters (fusion and head); None uses `learning_rate`.
        epochs: passes over the training data; may be a fraction.
        batch_size: sequences per batch and process. Each process trains on one GPU, even if it sees several.
        gradient_accumulation: batches per optimiser step.
        max_length: tokens per sequence, including special tokens.
        weight_decay: weight decay of weights, not of biases and norms.
        warmup_steps: optimiser steps of linear warm-up.
        seed: random seed of initialisation, data order and dropout.
        max_train_examples: size of a fixed random subset of the training data; None uses all.
        max_eval_examples: the same for the development set and each test set.
        save_steps: optimiser steps between checkpoints; None saves after each epoch. For tasks that select the best
            checkpoint (`Preset.select_best`), the development set is evaluated at every checkpoint.
        eval_batch_size: sequences per batch in evaluation.
        bf16: train and evaluate under bfloat16 autocast.
        fp16: train and evaluate under float16 autocast, with loss scaling; needs a GPU.
        gradient_checkpointing: recompute activations in the backward pass.
        group_by_length: batch sequences of similar length, in random order, for less padding.
        freeze_encoder: train only fusion and head, on hidden states that are computed once, without dropout in the
            encoder. If `learning_rate` is None, it is 1e-3. If both `batch_size` and `gradient_accumulation` are None,
            a step is one batch.
        freeze_layers: freeze the embeddings and the first N blocks of the encoder.
        lora_rank: train LoRA adapters (peft) of this rank instead of the encoder's weights. They are merged into the
            weights before the model is evaluated and saved. If `learning_rate` is None, it is 2e-4.
        lora_alpha: the adapters are scaled by `lora_alpha / lora_rank`; None uses twice the rank.
        lora_targets: names of the encoder's linear layers that get adapters, such as query and value; None uses all.
        states_dtype: dtype of the hidden states on disk, "float32" or "float16".
        states_cache: directory of these states; None uses `dlfa.files.cache_directory.cache_directory()`.
        intermediate: tasks to train on first, in order, as TASK or TASK:DATA_DIR. Encoder and fusion are passed on to
            the next task.

    Raises:
        ValueError: a value is out of range; the message names it.
        TypeError: a value has an invalid type. A list is accepted for a tuple, an int for a float.
    """

    task: str = field(metadata=_IDENTITY)
    model: str = field(metadata=_IDENTITY)
    output_dir: Path = field(metadata=_PLACE)
    data_dir: Path | None = field(default=None, metadata=_PLACE)
    languages: tuple[str, ...] | None = field(default=None, metadata=_IDENTITY)
    model_options: Mapping[str, Any] = field(default_factory=dict, metadata=_VARIANT)
    learning_rate: float | None = None
    head_learning_rate: float | None = None
    epochs: float | None = None
    batch_size: int | None = None
    gradient_accumulation: int | None = None
    max_length: int | None = None
    weight_decay: float = 0.0
    warmup_steps: int | None = None
    seed: int = field(default=1, metadata=_IDENTITY)
    max_train_examples: int | None = None
    max_eval_examples: int | None = None
    save_steps: int | None = None
    eval_batch_size: int = field(default=EVAL_BATCH_SIZE, metadata=_SPEED)
    bf16: bool = False
    fp16: bool = False
    gradient_checkpointing: bool = field(default=False, metadata=_SPEED)
    group_by_length: bool = False
    freeze_encoder: bool = False
    freeze_layers: int | None = None
    lora_rank: int | None = None
    lora_alpha: int | None = None
    lora_targets: tuple[str, ...] | None = None
    states_dtype: str = "float32"
    states_cache: Path | None = field(default=None, metadata=_PLACE)
    intermediate: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_types()
        get_task(self.task)
        for name in ("learning_rate", "head_learning_rate", "epochs"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, got {value}")
        for name in (*_COUNTS, "epochs", "warmup_steps"):
            value = getattr(self, name)
            if value is not None and value > _LARGEST:
                raise ValueError(f"{name} must be at most {_LARGEST}, got {value}")
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
        if self.freeze_layers is not None and self.freeze_layers < 0:
            raise ValueError(f"freeze_layers must not be negative, got {self.freeze_layers}")
        if self.freeze_encoder:
            whole = {
                "freeze_layers": self.freeze_layers is not None,
                "lora_rank": self.lora_rank is not None,
                "gradient_checkpointing": self.gradient_checkpointing,
            }
            if clashing := [name for name, given in whole.items() if given]:
                raise ValueError(f"freeze_encoder cannot be given together with {', '.join(clashing)}")
        if self.lora_rank is None and (self.lora_alpha is not None or self.lora_targets is not None):
            raise ValueError("lora_alpha and lora_targets need a lora_rank")
        if self.lora_rank is not None and self.freeze_layers is not None:
            raise ValueError("lora_rank cannot be given together with freeze_layers")
        if self.states_dtype not in STATES_DTYPES:
            raise ValueError(f"states_dtype must be one of {', '.join(STATES_DTYPES)}, got {self.states_dtype!r}")
        for stage in self.intermediate:
            get_task(stage.partition(":")[0])

    def _check_types(self) -> None:
        kinds = get_type_hints(type(self))
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if not _fits(value, kinds[item.name]):
                raise TypeError(f"{item.name} must be of type {item.type}, got {value!r}")
            if isinstance(value, list):
                object.__setattr__(self, item.name, tuple(value))

    @property
    def task_object(self) -> Task:
        """The `Task` that `task` names."""
        return get_task(self.task)

    @property
    def autocast(self) -> torch.dtype | None:
        """The autocast dtype of training and evaluation; None for no autocast."""
        import torch  # takes long, and the command line reads options first

        return torch.bfloat16 if self.bf16 else torch.float16 if self.fp16 else None

    def with_presets(self) -> CompleteRunConfig:
        """Return the same run with the task's preset in place of None."""
        preset = self.task_object.preset
        values = {name: getattr(preset, name) for name in _PRESET if getattr(self, name) is None}
        if self.freeze_encoder and {"batch_size", "gradient_accumulation"} <= values.keys():
            # Without the encoder's activations there is room for a whole step's sequences at once.
            values |= {"batch_size": preset.batch_size * preset.gradient_accumulation, "gradient_accumulation": 1}
        if "learning_rate" in values and self.freeze_encoder:
            values["learning_rate"] = _FROZEN_LEARNING_RATE
        elif "learning_rate" in values and self.lora_rank is not None:
            values["learning_rate"] = _LORA_LEARNING_RATE
        fields = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return CompleteRunConfig(**(fields | values))

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as plain JSON values, without `output_dir`, since a run may be moved.

        Paths are absolute, so that the run can be resumed or evaluated from another directory. This includes `model`
        and the data of `intermediate` if they are directories.
        """
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "output_dir"}
        for name in _PATHS:
            values[name] = None if values[name] is None else str(values[name].absolute())
        for name in _TUPLES:
            values[name] = None if values[name] is None else list(values[name])
        values["model"] = _located(self.model, os.path.abspath)
        values["intermediate"] = [_stage_located(stage, os.path.abspath) for stage in self.intermediate]
        # Layers may be a tuple, which JSON gives back as a list: a run to go on with would not know them again.
        values["model_options"] = {
            name: list(value) if isinstance(value, tuple) else value for name, value in self.model_options.items()
        }
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any], output_dir: Path) -> RunConfig:
        """Build the configuration from the values that `to_json` returned.

        Raises:
            ValueError: a field is missing, unknown or out of range.
            TypeError: a field has an invalid type.
        """
        known = {item.name for item in dataclasses.fields(cls)} - {"output_dir"}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"the run's configuration has unknown fields: {', '.join(unknown)}")
        if missing := sorted({"task", "model"} - set(values)):
            raise ValueError(f"the run's configuration lacks {', '.join(missing)}")
        paths = {name: Path(values[name]) for name in _PATHS if isinstance(values.get(name), str)}
        return cls(output_dir=output_dir, **{**values, **paths})


@dataclass(frozen=True, kw_only=True)
class CompleteRunConfig(RunConfig):
    """The result of `RunConfig.with_presets`: a configuration in which every hyper-parameter with a preset is set."""

    learning_rate: float
    epochs: float
    batch_size: int
    gradient_accumulation: int
    max_length: int
    warmup_steps: int


_PRESET = tuple(CompleteRunConfig.__annotations__)


def _fits(value: Any, kind: Any) -> bool:
    """Whether `value` may be given for a field of type `kind`."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_fits(item, parts[0]) for item in value)
    if isinstance(value, bool):  # which Python counts among the integers
        return kind is bool
    return isinstance(value, int | float if kind is float else origin or kind)


_ROLES: Mapping[str, Role] = {
    item.name: item.metadata.get("role", Role.PROTOCOL) for item in dataclasses.fields(RunConfig)
}


def fields_of(values: Mapping[str, Any], *roles: Role) -> dict[str, Any]:
    """Return the fields of a configuration, in the form of `RunConfig.to_json`, that have one of `roles`.

    Unknown fields, which another release may have written, count as protocol.
    """
    return {name: value for name, value in values.items() if _ROLES.get(name, Role.PROTOCOL) in roles}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the fields that differ between two configurations, in the form of `to_json`, and affect the result.

    Directories are compared by their resolved paths: a path may contain links, or be relative in files of older
    releases.
    """
    left, right = (_resolved(fields_of(each, Role.IDENTITY, Role.VARIANT, Role.PROTOCOL)) for each in (before, now))
    return [name for name in {**left, **right} if left.get(name) != right.get(name)]


def _resolved(values: dict[str, Any]) -> dict[str, Any]:
    model, stages = values.get("model"), values.get("intermediate")
    if isinstance(model, str):
        values["model"] = _located(model, os.path.realpath)
    if isinstance(stages, list):
        values["intermediate"] = [
            _stage_located(stage, os.path.realpath) if isinstance(stage, str) else stage for stage in stages
        ]
    return values


def _located(name: str, locate: Callable[[str], str]) -> str:
    """`name` itself, as that of the Hub, or where it is a directory its place."""
    return locate(name) if os.path.isdir(name) else name


def _stage_located(stage: str, locate: Callable[[str], str]) -> str:
    """An entry TASK or TASK:DATA_DIR of `intermediate` with the place of its directory."""
    task, separator, folder = stage.partition(":")
    return f"{task}{separator}{_located(folder, locate)}"
