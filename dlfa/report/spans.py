"""Spans of tags as seqeval (conlleval) finds them, in all sentences at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

_OUTSIDE = "O"


class SpanFinder:
    """Finds the spans that seqeval's `get_entities` finds in a list of sentences.

    Whether a span starts or ends depends on a tag and the one before it alone, so seqeval's rules are asked once for
    each pair of tags. seqeval itself goes word by word in Python, which took most of the time of a large report.

    Args:
        tags: every tag that can occur.
    """

    def __init__(self, tags: Iterable[str]) -> None:
        from seqeval.metrics.sequence_labeling import end_of_chunk, start_of_chunk

        self._codes = {tag: code for code, tag in enumerate(dict.fromkeys((_OUTSIDE, *tags)))}
        # As get_entities takes tags apart.
        parts = [(tag[0], tag[1:].split("-", maxsplit=1)[-1] or "_") for tag in self._codes]

        def table(rule: Callable[[str, str, str, str], bool]) -> NDArray[np.bool_]:
            """Return (tags, tags): the answer of `rule` about each tag before each other."""
            return np.array(
                [[rule(before, mark, its_type, type_) for mark, type_ in parts] for before, its_type in parts]
            )

        self._starts, self._ends = table(start_of_chunk), table(end_of_chunk)
        types = [type_ for _, type_ in parts]
        self._types = np.array([types.index(type_) for type_ in types])

    def find(self, sentences: Sequence[Sequence[str]]) -> NDArray[np.int64]:
        """Return (words + sentences,) numbers: which span, if any, ends before each word and after each sentence.

        0 is none. Any other number tells the span's start and type, so that two taggings of the same sentences have the
        same span where they have the same number.

        Raises:
            KeyError: a tag is none of `tags`.
        """
        # As in seqeval, an O stands after every sentence. The next word need not be a start: a tag of one letter, such
        # as X, has O's type, so that its span begins at the last start, even if that is in the sentence before.
        codes = np.fromiter(
            (self._codes[tag] for sentence in ((), *sentences) for tag in (*sentence, _OUTSIDE)), dtype=np.int64
        )
        before, here = codes[:-1], codes[1:]
        last_start = np.maximum.accumulate(np.where(self._starts[before, here], np.arange(len(here)), 0))
        # A span that ends before a word started before it. At the first word, where roll is wrong, none ends.
        spans = 1 + np.roll(last_start, 1) * len(self._types) + self._types[before]
        return np.where(self._ends[before, here], spans, 0)


def compare_spans(gold: NDArray[np.int64], predicted: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return (n, 3): where a gold, a predicted and a correct span ends, from the (n,) of `SpanFinder.find` for both."""
    return np.stack([gold > 0, predicted > 0, (gold == predicted) & (gold > 0)], axis=1)
