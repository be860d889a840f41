"""The definition of a task: languages, labels, metric, sources, and the encoding and scoring of examples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from ..data.examples import DataError, Example

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

SPLITS = ("train", "dev", "test")
E = TypeVar("E", bound=Example)  # the examples of a kind of task


@dataclass(frozen=True)
class Preset:
    """The hyper-parameters of a task: XTREME's for XTREME's tasks.

    All tasks use AdamW with eps 1e-8, linear decay and clipping at 1.0.
    """

    learning_rate: float = 2e-5
    batch_size: int = 8
    gradient_accumulation: int = 4
    epochs: float = 10
    max_length: int = 128
    warmup_steps: int = 0
    select_best: bool = True  # keep the checkpoint that is best on the training language's dev data; else the last one


@dataclass(frozen=True)
class HubSource:
    """The data set of a split on the Hub.

    `config` may contain `{lang}`, which stands for `names[lang]` if it exists, else for the language itself. For data
    sets that mix languages, `id_prefix` maps a language to the prefix of its examples' ids.
    """

    path: str
    config: str | None = None
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "dev": "validation", "test": "test"})
    names: Mapping[str, str] = field(default_factory=dict)
    id_prefix: Mapping[str, str] = field(default_factory=dict)

    def config_of(self, language: str) -> str | None:
        """Return the data set's configuration for `language`."""
        return None if self.config is None else self.config.format(lang=self.names.get(language, language))


@dataclass(frozen=True)
class Feature:
    """One input sequence of a model.

    `inputs` are the model's arguments without padding, `example` is the index of the example that the sequence comes
    from, and `target` holds what the task needs to map the model's output back to the example.
    """

    inputs: dict[str, Any]
    example: int
    target: Any = None


@dataclass(frozen=True)
class Encoding:
    """Settings for encoding: the maximum length, including special tokens, and the position of a word's label."""

    max_length: int
    label_subword: str = "first"


@dataclass(frozen=True, kw_only=True)
class Task(ABC, Generic[E]):
    """Base class of tasks; each subclass is a kind of task.

    Attributes:
        name: the name on the command line.
        title: a one-line description.
        languages: languages of the test sets, for XTREME's tasks in XTREME's order.
        labels: labels in the order of the model's classes; empty for question answering.
        metric: the main metric, one of the keys that `score` returns.
        preset: the default hyper-parameters.
        hub: sources by split ("train", "dev", "test"); a split without a source needs files.
        train_language: language of the training and development data.
        file_patterns: file names of each split below --data-dir, tried in order, with `{split}` and `{lang}`.
    """

    name: str
    title: str
    languages: tuple[str, ...]
    labels: tuple[str, ...]
    metric: str
    preset: Preset
    hub: Mapping[str, HubSource] = field(default_factory=dict)
    train_language: str = "en"
    file_patterns: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {split: (f"{split}-{{lang}}.tsv",) for split in SPLITS}
    )

    kind: ClassVar[str]  # "token", "pair" or "qa"
    model_class: ClassVar[str]  # the name of the DLFA model with the head for it
    prediction_suffix: ClassVar[str] = ".tsv"

    @abstractmethod
    def read_file(self, path: Path) -> list[E]:
        """Read and check one data file; a DataError names file and line."""

    @abstractmethod
    def from_hub(self, row: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> E:
        """Convert one row of the Hub data set; `names` holds the class names of the integer label columns."""

    @abstractmethod
    def encode(
        self, examples: Sequence[E], tokenizer: PreTrainedTokenizerBase, encoding: Encoding, *, training: bool
    ) -> list[Feature]:
        """Convert examples to features; `training` adds the inputs of the loss."""

    @abstractmethod
    def feature_scores(self, feature: Feature, outputs: Mapping[str, np.ndarray], row: int) -> Any:
        """Return the model's scores for one feature, from row `row` of a batch's outputs (float32 arrays).

        Return None if they allow no decision; see `decides`.
        """

    @abstractmethod
    def example_scores(self, examples: Sequence[E], features: Sequence[Feature], scores: Sequence[Any]) -> list[Any]:
        """Return the scores of each example, joined from those of its features."""

    @abstractmethod
    def decide(self, examples: Sequence[E], scores: Sequence[Any]) -> list[Any]:
        """Return the prediction for each example from its scores, which may be averages over several models."""

    @abstractmethod
    def score(self, examples: Sequence[E], predictions: Sequence[Any], language: str) -> dict[str, float]:
        """Return the metrics as fractions in 0..1, including `metric`."""

    @abstractmethod
    def prediction_text(self, examples: Sequence[E], predictions: Sequence[Any]) -> str:
        """Return the text of a language's prediction file, in the format of XTREME's scorer."""


def decides(scores: np.ndarray) -> bool:
    """Return whether `scores` (..., candidates) allow a decision: the maximum over the candidates is always finite.

    A score of -inf rules a candidate out; NaN or +inf makes the scores useless.
    """
    import numpy as np

    return not scores.size or bool(np.isfinite(scores.max(axis=-1)).all())


def label_name(value: int | str, names: Sequence[str] | None, labels: Sequence[str]) -> str:
    """Return the name of a label from the Hub, given as a name or a class number.

    Raises:
        DataError: the label is not in `labels`; the message lists them.
    """
    name = str(value)
    if names is not None and not isinstance(value, str) and 0 <= value < len(names):
        name = names[value]
    if name not in labels:
        raise DataError(f"unknown label {name!r}; valid are {', '.join(labels)}")
    return name
