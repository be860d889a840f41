"""Per-sentence counts that determine a test set's metric, for the bootstrap over sentences."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.examples import Example, gold_labels
from ..tasks import Task
from .spans import SpanFinder, compare_spans

Counts = NDArray[np.float32]


class CountedMetric(ABC):
    """A metric of predictions for given examples that is a function of sums over sentences."""

    @abstractmethod
    def counts(self, predictions: Sequence[Any]) -> Counts:
        """Return (sentences, k) float32 counts of each sentence."""

    @abstractmethod
    def score(self, totals: NDArray[Any]) -> NDArray[np.float64]:
        """Map (..., k) sums over sentences to (...) scores."""


class LabelCounts(CountedMetric):
    """Accuracy or macro F1 of labels, one per word or per text.

    F1 is averaged over the labels that occur in the gold, as in `dlfa.tasks.metrics.token_metrics`; in a resample, over
    those that occur in it.
    """

    def __init__(self, labels: Sequence[str], metric: str, examples: Sequence[Example]) -> None:
        self.index = {label: position for position, label in enumerate(labels)}
        self.metric = metric
        gold = [gold_labels(example) for example in examples]
        self.gold = self._flat(gold)
        self.sentence, self.sentences = np.repeat(np.arange(len(gold)), [len(tags) for tags in gold]), len(gold)

    def counts(self, predictions: Sequence[Any]) -> Counts:
        """Return (sentences, 3 * labels): for each label the numbers of gold, predicted and correct occurrences."""
        size = len(self.index)
        guess = self._flat([(labels,) if isinstance(labels, str) else labels for labels in predictions])
        right = self.gold == guess

        def by_sentence(rows: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
            return np.bincount(rows * size + labels, minlength=self.sentences * size).reshape(-1, size)

        found = (
            by_sentence(self.sentence, self.gold),
            by_sentence(self.sentence, guess),
            by_sentence(self.sentence[right], guess[right]),
        )
        return np.concatenate(found, axis=1).astype(np.float32)

    def _flat(self, labels: Sequence[Sequence[str]]) -> NDArray[np.int64]:
        return np.fromiter((self.index[label] for sentence in labels for label in sentence), dtype=np.int64)

    def score(self, totals: NDArray[Any]) -> NDArray[np.float64]:
        """Accuracy or macro F1."""
        gold, guessed, right = np.moveaxis(totals.reshape(*totals.shape[:-1], 3, len(self.index)), -2, 0)
        if self.metric == "accuracy":
            return right.sum(-1) / gold.sum(-1)
        f1 = 2 * right / np.maximum(gold + guessed, 1)
        return np.where(gold > 0, f1, 0).sum(-1) / (gold > 0).sum(-1)


class SpanCounts(CountedMetric):
    """F1, precision or recall of spans as seqeval finds them, from numbers of gold, predicted and correct spans."""

    def __init__(self, labels: Sequence[str], metric: str, examples: Sequence[Example]) -> None:
        self.metric = metric
        gold = [gold_labels(example) for example in examples]
        self.finder = SpanFinder(labels)
        self.gold = self.finder.find(gold)
        self.first = np.cumsum([0, *(len(tags) + 1 for tags in gold)])[:-1]  # of each sentence, among the spans

    def counts(self, predictions: Sequence[Any]) -> Counts:
        """Return (sentences, 3): numbers of gold, predicted and correct spans."""
        found = compare_spans(self.gold, self.finder.find(predictions))
        return np.add.reduceat(found, self.first, axis=0, dtype=np.float32)

    def score(self, totals: NDArray[Any]) -> NDArray[np.float64]:
        """F1, precision or recall."""
        gold, guessed, right = np.moveaxis(totals, -1, 0)
        if self.metric == "precision":
            return right / np.maximum(guessed, 1)
        if self.metric == "recall":
            return right / np.maximum(gold, 1)
        return 2 * right / np.maximum(gold + guessed, 1)


class ExampleMean(CountedMetric):
    """A metric that is the mean of its values over examples, as in question answering."""

    def __init__(self, task: Task, language: str, metric: str, examples: Sequence[Example]) -> None:
        self.task, self.language, self.metric, self.examples = task, language, metric, examples

    def counts(self, predictions: Sequence[Any]) -> Counts:
        """Return (examples, 2): the value, and 1."""
        values = [
            self.task.score([example], [prediction], self.language)[self.metric]
            for example, prediction in zip(self.examples, predictions, strict=True)
        ]
        return np.stack([np.array(values), np.ones(len(values))], axis=1).astype(np.float32)

    def score(self, totals: NDArray[Any]) -> NDArray[np.float64]:
        """The mean."""
        return totals[..., 0] / totals[..., 1]


def counted_metric(task: Task, metric: str, language: str, examples: Sequence[Example]) -> CountedMetric:
    """Return the computation of `metric` of `task` from counts, for predictions for `examples`.

    Raises:
        ValueError: the metric is not computed from sums over sentences.
    """
    if task.kind == "qa":
        return ExampleMean(task, language, metric, examples)
    if metric == "accuracy" or (metric == "f1" and not getattr(task, "spans", False)):
        return LabelCounts(task.labels, metric, examples)
    if task.kind == "token" and metric in ("f1", "precision", "recall", "xtreme_span_f1"):
        return SpanCounts(task.labels, metric, examples)
    raise ValueError(f"{metric} of {task.name} is no sum over sentences")
