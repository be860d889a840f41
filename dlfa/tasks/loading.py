"""Loading all data of a run; everything is read and checked before any other work."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ..data.examples import DataError, Example, digest
from .base import Task
from .hub import read_hub
from .layout import find_file, languages_on_disk

T = TypeVar("T")


@dataclass(frozen=True)
class TaskData:
    """The examples of a task: training and development data in its training language, test data by language."""

    train: list[Example] = field(default_factory=list)
    dev: list[Example] = field(default_factory=list)
    test: dict[str, list[Example]] = field(default_factory=dict)

    @property
    def parts(self) -> list[tuple[list[Example], bool]]:
        """Every list of examples, with whether it is for training."""
        return [(self.train, True), (self.dev, False), *((examples, False) for examples in self.test.values())]

    @functools.cached_property
    def sha256(self) -> str:
        """The hexadecimal SHA-256 of splits, languages and examples, to compare the data of two runs."""
        parts = {"train": self.train, "dev": self.dev, **{f"test-{code}": part for code, part in self.test.items()}}
        told = "".join(f"{name} {digest(examples)}\n" for name, examples in parts.items())
        return hashlib.sha256(told.encode()).hexdigest()


def read_split(task: Task, data_dir: Path | None, split: str, language: str) -> list[Example]:
    """Read one split in one language, from files below `data_dir`, or from the Hub if it is None.

    Raises:
        DataError: see `dlfa.tasks.layout.find_file`, `Task.read_file` and `dlfa.tasks.hub.read_hub`.
    """
    if data_dir is None:
        return read_hub(task, split, language)
    return task.read_file(find_file(task, data_dir, split, language))


def choose_languages(task: Task, data_dir: Path | None, languages: Sequence[str] | None, split: str) -> list[str]:
    """Return the languages to evaluate: `languages`, else all that have data.

    Raises:
        DataError: a language has no data (the message lists the valid ones) or is given twice.
    """
    valid = list(task.languages) if data_dir is None else languages_on_disk(task, data_dir, split)
    if languages is None:
        if not valid and data_dir is not None:
            name = task.file_patterns[split][0].format(split=split, lang="XX")
            raise DataError(f"{data_dir}: no {split} files ({name}) for task {task.name}")
        return valid
    for language in languages:
        if language not in valid:
            where = f"{data_dir} (no {split} file)" if data_dir is not None else f"task {task.name}"
            raise DataError(f"language {language!r} is not in {where}; valid are {', '.join(valid) or 'none'}")
    if len(set(languages)) < len(languages):
        raise DataError(f"--languages names a language twice: {','.join(languages)}")
    return list(languages)


def load_task_data(
    task: Task,
    data_dir: Path | None = None,
    languages: Sequence[str] | None = None,
    *,
    max_train_examples: int | None = None,
    max_eval_examples: int | None = None,
) -> TaskData:
    """Read all data of a training run: train and dev in the training language, test in `languages`.

    Args:
        task: the task.
        data_dir: data in XTREME's layout; None loads from the Hub.
        languages: languages to test on; None uses all that have data.
        max_train_examples: size of the training set; see `subset`.
        max_eval_examples: size of the dev set and of each test set; see `subset`.

    Raises:
        DataError: the data are invalid; every file is read before anything is returned.
    """
    chosen = choose_languages(task, data_dir, languages, "test")
    train = read_split(task, data_dir, "train", task.train_language)
    # A task whose last model counts has no use for development data.
    dev = read_split(task, data_dir, "dev", task.train_language) if task.preset.select_best else []
    test = read_languages(task, data_dir, "test", chosen, max_eval_examples)
    return TaskData(subset(train, max_train_examples), subset(dev, max_eval_examples), test)


def read_languages(
    task: Task, data_dir: Path | None, split: str, languages: Sequence[str], size: int | None
) -> dict[str, list[Example]]:
    """Read one split of several languages with `read_split`, reduced to `size` examples each by `subset`.

    Raises:
        DataError: the data are invalid.
    """
    return {language: subset(read_split(task, data_dir, split, language), size) for language in languages}


def subset(examples: Sequence[T], size: int | None) -> list[T]:
    """Return a fixed random subset of `size` examples in their order; smaller subsets are contained in larger ones.

    The first examples would be a biased choice, since many corpora are ordered by genre. The subset does not depend on
    a run's seed, so runs with different seeds see the same data.

    Raises:
        ValueError: `size` is negative.
    """
    if size is not None and size < 0:
        raise ValueError(f"a subset must have a size that is not negative, got {size}")
    if size is None or size >= len(examples):
        return list(examples)
    order = list(range(len(examples)))
    random.Random(0).shuffle(order)
    return [examples[index] for index in sorted(order[:size])]
