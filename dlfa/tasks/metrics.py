"""Metrics as fractions in 0..1. Averages over languages are unweighted."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Mapping, Sequence
from itertools import chain

Tags = Sequence[Sequence[str]]  # one sequence of tags a sentence


def token_metrics(gold: Tags, predicted: Tags) -> dict[str, float]:
    """Return accuracy and F1 over all words of all sentences.

    "f1" is the macro average: the unweighted mean of the F1 of each tag that occurs in `gold`. A tag that a treebank
    never uses has no F1 there; predicting it lowers the recall of other tags.

    Raises:
        ValueError: the numbers of sentences or words differ, or there is no word.
    """
    from sklearn.metrics import accuracy_score, f1_score

    true, guess = _flat(gold, predicted)
    present = sorted(set(true))
    return {
        "accuracy": float(accuracy_score(true, guess)),
        "f1": float(f1_score(true, guess, labels=present, average="macro", zero_division=0)),
    }


def span_metrics(gold: Tags, predicted: Tags) -> dict[str, float]:
    """Return entity-level precision, recall and micro F1 of IOB2 tags by seqeval (conlleval), and token accuracy.

    Raises:
        ValueError: see `token_metrics`.
    """
    from sklearn.metrics import accuracy_score

    true, guess = _flat(gold, predicted)
    precision, recall, f1 = _span_figures(gold, predicted)
    return {"f1": f1, "precision": precision, "recall": recall, "accuracy": float(accuracy_score(true, guess))}


def span_f1(gold: Tags, predicted: Tags) -> float:
    """Return the micro F1 of spans, by seqeval on the unchanged tags.

    On IOB2 tags this is the F1 of entities. On parts of speech it is XTREME's published "F1": the scorer reads a tag's
    first letter as its BIO mark and the rest as the type. Equal neighbours (NOUN NOUN) are therefore one span, except
    if the letter is S, which makes every word a span (SCONJ, SYM), or B or E.
    """
    return _span_figures(gold, predicted)[2]


def class_metrics(gold: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Return accuracy and macro F1 over the classes that occur in `gold`.

    Raises:
        ValueError: the lengths differ, or there is no example.
    """
    return token_metrics([gold], [predicted])


def average(languages: Mapping[str, Mapping[str, float]], metric: str, leave_out: str | None = None) -> float | None:
    """Return the mean of `metric` over languages except `leave_out`; None if no language is left."""
    values = [scores[metric] for language, scores in languages.items() if language != leave_out]
    return statistics.fmean(values) if values else None


def _span_figures(gold: Tags, predicted: Tags) -> tuple[float, float, float]:
    """seqeval's micro precision, recall and F1; 0 where there is no span."""
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval warns of tags that are not BIO, and of sets without a span
        figures = precision_recall_fscore_support(list(map(list, gold)), list(map(list, predicted)), average="micro")
    precision, recall, f1 = map(float, figures[:3])
    return precision, recall, f1


def _flat(gold: Tags, predicted: Tags) -> tuple[list[str], list[str]]:
    if list(map(len, gold)) != list(map(len, predicted)):
        raise ValueError("predicted must have one tag for every word of gold")
    true, guess = list(chain.from_iterable(gold)), list(chain.from_iterable(predicted))
    if not true:
        raise ValueError("gold must hold at least one word, got none")
    return true, guess
