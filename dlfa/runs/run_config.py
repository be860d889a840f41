"""The configuration of a training run: everything that has a say in its result."""

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
    """What say a field of `RunConfig` has in a run's result, and where results.json tells it."""

    IDENTITY = "which run it is; results.json tells it outside of its `config`"
    VARIANT = "what runs are compared in"
    PROTOCOL = "the rest that has a say: runs that differ in it are not compared"
    PLACE = "none: where things lie on this machine"
    SPEED = "none: time and memory alone"


_IDENTITY, _VARIANT, _PLACE, _SPEED = ({"role": role} for role in (Role.IDENTITY, Role.VARIANT, Role.PLACE, Role.SPEED))


@dataclass(frozen=True)
class RunConfig:
    """What `train` needs. A hyper-parameter that is None takes the task's preset, XTREME's for its tasks.

    A field's metadata tell its `Role`; one without is part of the protocol.

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
        batch_size: sequences a batch and process; a process trains on one GPU, whatever it sees.
        gradient_accumulation: batches an optimiser step.
        max_length: tokens a sequence, special ones included.
        weight_decay: of weights, not of biases and norms.
        warmup_steps: optimiser steps of linear warm-up.
        seed: of initialisation, data order and dropout.
        max_train_examples: a fixed random subset of the training data; None takes all.
        max_eval_examples: likewise of the development set and of each test set.
        save_steps: optimiser steps between checkpoints; None saves after each epoch. For tasks that select their model
            on it (`Preset.select_best`), the development set is evaluated at every checkpoint.
        eval_batch_size: sequences a batch of evaluation.
        bf16: train and evaluate under bfloat16 autocast.
        fp16: train and evaluate under float16 autocast, with loss scaling; needs a GPU.
        gradient_checkpointing: recompute activations in the backward pass.
        group_by_length: batches of sequences of like length, in random order: less padding.
        freeze_encoder: train fusion and head alone, on hidden states that are computed once; without dropout in the
            encoder. `learning_rate` is then 1e-3 where it is None, and a step is one batch where neither `batch_size`
            nor `gradient_accumulation` is given.
        freeze_layers: N keeps the embeddings and the first N blocks of the encoder as they are.
        lora_rank: train adapters of this rank (peft's LoRA) in place of the encoder's weights; they are merged into
            the weights when the model is saved. `learning_rate` is then 2e-4 where it is None.
        lora_alpha: the adapters are scaled by `lora_alpha / lora_rank`; None takes twice the rank.
        lora_targets: names of the encoder's linear layers that get adapters, such as query and value; None takes all.
        states_dtype: of the hidden states kept on disk, "float32" or "float16".
        states_cache: where they are kept; None takes `dlfa.files.cache_directory.cache_directory()`.
        intermediate: tasks to train on before, in order, as TASK or TASK:DATA_DIR; encoder and fusion are handed on.

    Raises:
        ValueError: a value out of its range; the message names it.
        TypeError: a value of another type than its field's; a list is taken for a tuple, an int for a float.
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
        """The task itself."""
        return get_task(self.task)

    @property
    def autocast(self) -> torch.dtype | None:
        """The dtype that training and evaluation are cast to; None for the model's own."""
        import torch  # takes long, and the command line reads options first

        return torch.bfloat16 if self.bf16 else torch.float16 if self.fp16 else None

    def with_presets(self) -> CompleteRunConfig:
        """The same run with XTREME's values in place of None."""
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
        """As plain JSON values; `output_dir` is left out, as a run may be moved.

        Paths are absolute, so that they mean the same wherever the run is gone on with or evaluated: `model` and the
        data of `intermediate` too where they are directories.
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
        """The run that `to_json` described.

        Raises:
            ValueError: fields that are missing, unknown or out of their range.
            TypeError: fields of another type.
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
    """A run's configuration of which every hyper-parameter with a preset is known, as `with_presets` gives it."""

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
    """The fields of a configuration, as `RunConfig.to_json` gives it, that have one of `roles`.

    Fields that are not known, as another release may have them, count as protocol.
    """
    return {name: value for name, value in values.items() if _ROLES.get(name, Role.PROTOCOL) in roles}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The fields in which two configurations, as `to_json` gives them, would lead to different results.

    Directories are compared by what they are: a path may lead over links, or be relative, as in files of older
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
