"""Metrics against figures worked out by hand."""

import pytest

from dlfa.tasks.metrics import average, class_metrics, span_f1, span_metrics, token_metrics

GOLD = [["NOUN", "VERB", "NOUN", "ADJ"], ["NOUN"]]
GUESS = [["NOUN", "NOUN", "NOUN", "X"], ["VERB"]]


def test_token_figures_by_hand():
    # NOUN: 2 of 3 found, 2 of 3 right -> 2/3. VERB: 0. ADJ: 0. X is not in gold and has no F1 of its own.
    scores = token_metrics(GOLD, GUESS)
    assert scores["accuracy"] == pytest.approx(2 / 5)
    assert scores["f1"] == pytest.approx((2 / 3 + 0 + 0) / 3)


def test_perfect_and_wrong():
    assert token_metrics(GOLD, GOLD) == {"accuracy": 1.0, "f1": 1.0}
    assert token_metrics([["A", "B"]], [["B", "A"]]) == {"accuracy": 0.0, "f1": 0.0}


def test_macro_average_does_not_weigh_by_frequency():
    gold = [["NOUN"] * 99 + ["VERB"]]
    guess = [["NOUN"] * 100]
    assert token_metrics(gold, guess)["accuracy"] == pytest.approx(0.99)
    assert token_metrics(gold, guess)["f1"] == pytest.approx((2 * 99 / 199 + 0) / 2)


def test_xtreme_span_figure_merges_equal_neighbours():
    # NOUN NOUN | VERB is two spans; a wrong second NOUN breaks the first span too: 1 of 2 found, 1 of 3 right.
    gold, guess = [["NOUN", "NOUN", "VERB"]], [["NOUN", "ADJ", "VERB"]]
    assert span_f1(gold, guess) == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    # The same tags apart are spans of their own.
    assert span_f1([["NOUN", "VERB", "NOUN"]], [["NOUN", "VERB", "ADJ"]]) == pytest.approx(2 / 3)


def test_xtreme_span_figure_reads_the_first_letter_as_a_mark():
    # S means a span of one token: SYM SYM are two spans, NOUN NOUN are one.
    assert span_f1([["SYM", "SYM"]], [["SYM", "NOUN"]]) == pytest.approx(1 / 2)
    assert span_f1([["NOUN", "NOUN"]], [["NOUN", "SYM"]]) == 0.0


def test_spans_by_hand():
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-ORG"]]
    guess = [["B-PER", "I-PER", "O", "O"], ["B-ORG", "B-ORG"]]
    scores = span_metrics(gold, guess)
    assert scores == pytest.approx({"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "accuracy": 4 / 6})


def test_no_entity_anywhere_is_zero_not_nan():
    assert span_metrics([["O", "O"]], [["O", "O"]]) == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "accuracy": 1.0}


def test_nothing_is_warned_of(recwarn):
    span_f1(GOLD, GUESS)
    span_metrics([["O", "O"]], [["O", "O"]])
    assert not recwarn


def test_class_figures():
    scores = class_metrics(["a", "a", "b", "c"], ["a", "b", "b", "c"])
    assert scores["accuracy"] == 0.75
    assert scores["f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)


@pytest.mark.parametrize("metric", [token_metrics, span_metrics])
def test_lengths_that_differ_are_refused(metric):
    with pytest.raises(ValueError, match="one tag for every word"):
        metric([["O", "O"]], [["O"]])
    with pytest.raises(ValueError, match="one tag for every word"):
        metric([["O"], ["O", "O"]], [["O", "O"], ["O"]])
    with pytest.raises(ValueError, match="at least one word"):
        metric([[]], [[]])


def test_averages_are_unweighted():
    languages = {
        "en": {"f1": 0.9, "examples": 1000},
        "de": {"f1": 0.5, "examples": 10},
        "zh": {"f1": 0.1, "examples": 10},
    }
    assert average(languages, "f1") == pytest.approx(0.5)
    assert average(languages, "f1", "en") == pytest.approx(0.3)
    assert average({"en": {"f1": 0.9}}, "f1", "en") is None
    assert average({}, "f1") is None
