"""One example of each kind of task; every reader yields these, whatever the source."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass


class DataError(ValueError):
    """Data that cannot be used; the message names the file and line (or the data set) and what is needed."""


@dataclass(frozen=True, slots=True)
class TaggedSentence:
    """A sentence with one tag a word; `tags` is empty where none are known."""

    words: tuple[str, ...]
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelledText:
    """One text, or a pair in `texts`, with its label; None where it is not known."""

    texts: tuple[str, ...]
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A question with the passage that holds its answer; `answers` pairs each answer with its first character."""

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...] = ()


Example = TaggedSentence | LabelledText | Question


def digest(examples: Iterable[Example]) -> str:
    """SHA-256 over examples in order, in hexadecimal: equal for equal data, wherever they lie."""
    state = hashlib.sha256()
    for example in examples:
        state.update(repr(example).encode("utf-8", "surrogatepass"))
    return state.hexdigest()


def gold_labels(example: Example) -> tuple[str, ...]:
    """The labels of a tagged sentence, one a word, or of a labelled text, the one; a question has none."""
    if isinstance(example, TaggedSentence):
        return example.tags
    return (str(example.label),) if isinstance(example, LabelledText) else ()
