"""Exact match and F1 of extracted answers, as defined by SQuAD 1.1 and MLQA; fractions in 0..1."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

Normaliser = Callable[[str], list[str]]

_ENGLISH_ARTICLES = re.compile(r"\b(a|an|the)\b")
# MLQA's articles and, for Vietnamese, classifiers; Hindi and Chinese have none.
_MLQA_ARTICLES = {
    "en": _ENGLISH_ARTICLES,
    "es": re.compile(r"\b(un|una|unos|unas|el|la|los|las)\b"),
    "vi": re.compile(r"\b(của|là|cái|chiếc|những)\b"),
    "de": re.compile(r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b"),
    "ar": re.compile(r"\sال^|ال"),  # noqa: RUF001
}
_WORDS_OR_IDEOGRAMS = re.compile(r"[一-龥]|[^\s一-龥]+")


def squad_tokens(text: str) -> list[str]:
    """Return the words of an answer in lower case, without ASCII punctuation and English articles."""
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return _ENGLISH_ARTICLES.sub(" ", kept).split()


def mlqa_tokens(text: str, language: str) -> list[str]:
    """Return the words of an answer in lower case, without punctuation of any script and articles of `language`.

    In Chinese, every ideogram is a word.
    """
    kept = "".join(character for character in text.lower() if not _is_punctuation(character))
    if language in _MLQA_ARTICLES:
        kept = _MLQA_ARTICLES[language].sub(" ", kept)
    return _WORDS_OR_IDEOGRAMS.findall(kept) if language == "zh" else kept.split()


def answer_metrics(gold: Sequence[Sequence[str]], predicted: Sequence[str], normalise: Normaliser) -> dict[str, float]:
    """Compute exact match and F1: each question's maximum over its accepted answers, averaged over questions.

    Args:
        gold: accepted answers of each question, at least one.
        predicted: one answer per question; "" for none.
        normalise: splits an answer into the words to compare.

    Raises:
        ValueError: the lengths differ, there is no question, or a question has no accepted answer.
    """
    if len(gold) != len(predicted):
        raise ValueError(f"predicted must have {len(gold)} answers, got {len(predicted)}")
    if not gold or not all(gold):
        raise ValueError("gold must hold at least one question, each with at least one accepted answer")
    exact = f1 = 0.0
    for answers, guess in zip(gold, predicted, strict=True):
        words = normalise(guess)
        accepted = [normalise(answer) for answer in answers]
        exact += max(float(words == answer) for answer in accepted)
        f1 += max(_overlap(words, answer) for answer in accepted)
    return {"f1": f1 / len(gold), "exact_match": exact / len(gold)}


def _overlap(guess: list[str], answer: list[str]) -> float:
    common = sum((Counter(guess) & Counter(answer)).values())
    return 2 * common / (len(guess) + len(answer)) if common else 0.0


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")
