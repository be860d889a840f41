"""The example classes of each kind of task, which all readers return."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass


class DataError(ValueError):
    """Invalid data; the message names the file and line (or the data set) and what is needed."""


@dataclass(frozen=True, slots=True)
class TaggedSentence:
    """A sentence with one tag per word; `tags` is empty if unknown."""

    words: tuple[str, ...]
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelledText:
    """One text, or a pair, in `texts`, with its label, or None if unknown."""

    texts: tuple[str, ...]
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its passage; `answers` pairs each answer with the position of its first character."""

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...] = ()


Example = TaggedSentence | LabelledText | Question


def digest(examples: Iterable[Example]) -> str:
    """Return the hexadecimal SHA-256 of examples in order; it does not depend on the data's location."""
    state = hashlib.sha256()
    for example in examples:
        state.update(repr(example).encode("utf-8", "surrogatepass"))
    return state.hexdigest()


def gold_labels(example: Example) -> tuple[str, ...]:
    """Return an example's labels: one per word of a tagged sentence, one for a labelled text, none for a question."""
    if isinstance(example, TaggedSentence):
        return example.tags
    return (str(example.label),) if isinstance(example, LabelledText) else ()
