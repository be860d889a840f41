"""What a task is: its languages, labels, metric and sources, and how its examples meet a model."""

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
    """XTREME's hyper-parameters of a task; AdamW with eps 1e-8, linear decay and clipping at 1.0 go with all."""

    learning_rate: float = 2e-5
    batch_size: int = 8
    gradient_accumulation: int = 4
    epochs: float = 10
    max_length: int = 128
    warmup_steps: int = 0
    select_best: bool = True  # keep the checkpoint that is best on the training language's dev data; else the last one


@dataclass(frozen=True)
class HubSource:
    """Where a split of a task lies on the Hub.

    `config` may hold `{lang}`, which stands for `names[lang]` where there is one, else for the language itself. In data
    sets that mix languages, `id_prefix` maps a language to the beginning of its examples' ids.
    """

    path: str
    config: str | None = None
    splits: Mapping[str, str] = field(default_factory=lambda: {"train": "train", "dev": "validation", "test": "test"})
    names: Mapping[str, str] = field(default_factory=dict)
    id_prefix: Mapping[str, str] = field(default_factory=dict)

    def config_of(self, language: str) -> str | None:
        """The data set's configuration for `language`."""
        return None if self.config is None else self.config.format(lang=self.names.get(language, language))


@dataclass(frozen=True)
class Feature:
    """One sequence as a model sees it.

    `inputs` are the model's arguments without padding, `example` the index of the example it was made from, `target`
    what the task needs to bring the model's output back to the example.
    """

    inputs: dict[str, Any]
    example: int
    target: Any = None


@dataclass(frozen=True)
class Encoding:
    """How examples become features: the longest sequence, special tokens included, and where a word's label sits."""

    max_length: int
    label_subword: str = "first"


@dataclass(frozen=True, kw_only=True)
class Task(ABC, Generic[E]):
    """A task; the subclasses are its kinds.

    Attributes:
        name: as on the command line.
        title: one line for people.
        languages: of the test sets, in XTREME's order where it is one of its tasks.
        labels: in the order of the model's classes; empty for question answering.
        metric: of record, one of the keys that `score` returns.
        preset: XTREME's hyper-parameters.
        hub: sources by split ("train", "dev", "test"); a split without one can be had from files only.
        train_language: of the training and development data.
        file_patterns: names of a split's file below --data-dir, tried in turn, with `{split}` and `{lang}`.
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
        """Read and check one file of the on-disk layout; DataError names file and line."""

    @abstractmethod
    def from_hub(self, row: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> E:
        """One row of the Hub data set as an example; `names` gives the class names of the integer label columns."""

    @abstractmethod
    def encode(
        self, examples: Sequence[E], tokenizer: PreTrainedTokenizerBase, encoding: Encoding, *, training: bool
    ) -> list[Feature]:
        """Turn examples into features; `training` adds what the loss needs."""

    @abstractmethod
    def feature_scores(self, feature: Feature, outputs: Mapping[str, np.ndarray], row: int) -> Any:
        """The model's scores for one feature, cut from row `row` of a batch's outputs (float32 arrays).

        None where nothing can be decided by them: see `decides`.
        """

    @abstractmethod
    def example_scores(self, examples: Sequence[E], features: Sequence[Feature], scores: Sequence[Any]) -> list[Any]:
        """The scores of each example, joined from those of its features."""

    @abstractmethod
    def decide(self, examples: Sequence[E], scores: Sequence[Any]) -> list[Any]:
        """The prediction for each example from its scores; the scores of several models may be averaged before."""

    @abstractmethod
    def score(self, examples: Sequence[E], predictions: Sequence[Any], language: str) -> dict[str, float]:
        """The metrics, fractions in 0..1, `metric` among them."""

    @abstractmethod
    def prediction_text(self, examples: Sequence[E], predictions: Sequence[Any]) -> str:
        """The predictions as XTREME's scorer reads them, one file a language."""


def decides(scores: np.ndarray) -> bool:
    """Whether `scores` (..., candidates) single out a candidate each time: the best one is a finite number.

    A candidate may be ruled out by -inf; one NaN or +inf among them leaves nothing to compare.
    """
    import numpy as np

    return not scores.size or bool(np.isfinite(scores.max(axis=-1)).all())


def label_name(value: int | str, names: Sequence[str] | None, labels: Sequence[str]) -> str:
    """A label of the Hub, a name or a class number, as its name.

    Raises:
        DataError: it is none of `labels`, which are listed.
    """
    name = str(value)
    if names is not None and not isinstance(value, str) and 0 <= value < len(names):
        name = names[value]
    if name not in labels:
        raise DataError(f"unknown label {name!r}; valid are {', '.join(labels)}")
    return name
