"""Linear probes on frozen states: the information of a layer about labels, across languages, and about the language."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.examples import Example
from ..tasks import Task
from .states import LanguageStates

FOLDS = 5
STRENGTH = 0.01  # C of the probes; 0.1 and 1 fit the training language better but transferred worse on every layer
_ITERATIONS = 300


def make_probe() -> Any:
    """Return scikit-learn's L2-regularised multinomial logistic regression on standardised features, C = `STRENGTH`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=_ITERATIONS, tol=1e-3))


@dataclass(frozen=True)
class LabelProbes:
    """Label probes, one per layer, trained on one language."""

    probes: list[Any]
    majority: str

    def predict(self, states: LanguageStates) -> list[list[str]]:
        """Return a label for each unit, by layer."""
        return [list(probe.predict(layer)) for probe, layer in zip(self.probes, states.units, strict=True)]


def train_label_probes(states: LanguageStates) -> LabelProbes:
    """Train a label probe on every layer.

    Raises:
        ValueError: there are fewer than two different labels.
    """
    labels = np.array(states.labels)
    names, counts = np.unique(labels, return_counts=True)
    if len(names) < 2:
        raise ValueError(f"a probe needs at least two different labels in its training data, got {', '.join(names)}")
    with _impatient():
        probes = [make_probe().fit(layer, labels) for layer in states.units]
    return LabelProbes(probes, str(names[counts.argmax()]))


def score_label_probes(
    probes: LabelProbes, states: LanguageStates, examples: Sequence[Example], task: Task, language: str
) -> dict[str, list[float]]:
    """Return the task's metrics by layer, and under "majority" the accuracy of the training data's commonest label."""
    scores: dict[str, list[float]] = {}
    for labels in probes.predict(states):
        predictions = _by_example(labels, states.lengths, tagged=task.kind == "token")
        for name, value in task.score(examples, predictions, language).items():
            scores.setdefault(name, []).append(float(value))
    return {**scores, "majority": [float(np.mean([label == probes.majority for label in states.labels]))]}


def language_probe(sentences: Mapping[str, NDArray[np.float32]]) -> dict[str, Any]:
    """Predict the language of a sentence from the mean of its tokens' states, layer by layer.

    Args:
        sentences: by language, (layers, S, E).

    Returns:
        By layer: "accuracy", cross-validated over `FOLDS` folds, with equal weight for each language; its "deviation"
        over folds; "log_loss" of held-out sentences in nats, which distinguishes layers even if the accuracy is near 1;
        "between_language_variance", the share of the sentences' variance that is between the languages' means. Also
        "chance", the accuracy of guessing.

    Raises:
        ValueError: there are fewer than two languages, or one has fewer than `FOLDS` sentences.
    """
    from sklearn.metrics import make_scorer, recall_score
    from sklearn.model_selection import StratifiedKFold, cross_validate

    if len(sentences) < 2:
        raise ValueError(f"a language probe needs at least two languages, got {', '.join(sentences) or 'none'}")
    for language, states in sentences.items():
        if (count := states.shape[1]) < FOLDS:
            raise ValueError(f"a language probe needs at least {FOLDS} sentences a language, {language} has {count}")
    # Numeric labels, because for two string classes scikit-learn would need to know which one is positive.
    labels = np.repeat(np.arange(len(sentences)), [states.shape[1] for states in sentences.values()])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    scoring = {"accuracy": make_scorer(recall_score, average="macro"), "log_loss": "neg_log_loss"}
    result: dict[str, Any] = {
        "chance": 1 / len(sentences), "accuracy": [], "deviation": [], "log_loss": [], "between_language_variance": [],
    }  # fmt: skip
    for layer in np.concatenate(list(sentences.values()), axis=1):
        with _impatient():
            scores = cross_validate(make_probe(), layer, labels, cv=folds, scoring=scoring)
        result["accuracy"].append(float(scores["test_accuracy"].mean()))
        result["deviation"].append(float(scores["test_accuracy"].std(ddof=1)))
        result["log_loss"].append(-float(scores["test_log_loss"].mean()))
        result["between_language_variance"].append(_between(layer, labels))
    return result


def _between(layer: NDArray[np.float32], labels: NDArray[Any]) -> float:
    """Return the share of variance between groups; channels are scaled to variance 1 first, for equal weight."""
    values = (layer - layer.mean(0)) / np.maximum(layer.std(0), 1e-6)
    means = {label: values[labels == label].mean(0) for label in np.unique(labels)}
    return float(np.mean([np.square(means[label]).mean() for label in labels]))


def _by_example(labels: Sequence[str], lengths: Sequence[int], *, tagged: bool) -> list[Any]:
    """Return one prediction per example: a tuple of tags, or a label."""
    if not tagged:
        return list(labels)
    starts = np.cumsum([0, *lengths])
    return [tuple(labels[start : start + length]) for start, length in zip(starts, lengths, strict=False)]


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Silence convergence warnings; a probe that has not fully converged is good enough to compare layers."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
