"""Spans of tags, against seqeval's."""

import random
import warnings

import numpy as np
import pytest
from seqeval.metrics.sequence_labeling import get_entities

from dlfa.report.spans import SpanFinder, compare_spans

TAGS = {
    "IOB2": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
    "parts of speech": ["NOUN", "VERB", "ADJ", "X", "_", "SYM", "SCONJ", "INTJ", "EX", "BE", "OTHER"],
    "anything": ["O", "B", "I", "E", "S", ".", "_", "-", "B-A", "I-A", "E-A", ".-A", "B-A-B", "I-A-B", "OA", "X-A"],
}


def test_spans_by_hand():
    finder = SpanFinder(TAGS["IOB2"])
    found = finder.find([("B-PER", "I-PER", "O", "I-LOC", "B-LOC"), ("O",), ("I-PER",)])
    # They end before the third and fifth word of the first sentence, after it, and after the last one.
    assert np.flatnonzero(found).tolist() == [2, 4, 5, 9]
    assert len(found) == 7 + 3
    other = finder.find([("B-LOC", "I-LOC", "O", "B-LOC", "I-LOC"), ("O",), ("B-PER",)])
    assert np.flatnonzero(other).tolist() == [2, 5, 9]
    assert (found == other)[[2, 5, 9]].tolist() == [False, False, True]  # another type, another start, the same span


def test_there_may_be_no_sentence_and_no_word():
    finder = SpanFinder(("O", "B-PER"))
    assert finder.find([]).tolist() == []
    assert np.flatnonzero(finder.find([(), ("B-PER",), ()])).tolist() == [2]


def test_an_unknown_tag_is_an_error():
    with pytest.raises(KeyError, match="B-DOG"):
        SpanFinder(TAGS["IOB2"]).find([("B-DOG",)])


@pytest.mark.parametrize("kind", TAGS)
def test_spans_are_seqevals(kind):
    draw = random.Random(0)
    for _ in range(400):
        tags = draw.sample(TAGS[kind], draw.randint(1, len(TAGS[kind])))
        sentences = [[draw.choice(tags) for _ in range(draw.randint(0, 6))] for _ in range(draw.randint(1, 5))]
        others = [[draw.choice((tag, tag, draw.choice(tags))) for tag in sentence] for sentence in sentences]
        finder = SpanFinder(tags)
        found, found_there = finder.find(sentences), finder.find(others)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spans, spans_there = get_entities(sentences), get_entities(others)
        assert [end + 1 for *_, end in spans] == np.flatnonzero(found).tolist()
        counts = len(spans), len(spans_there), len(set(spans) & set(spans_there))
        assert tuple(compare_spans(found, found_there).sum(axis=0)) == counts
