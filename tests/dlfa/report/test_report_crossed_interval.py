"""The interval over languages and seeds: against its formula, and by how often it holds the truth."""

import numpy as np
import pytest
from scipy import stats

from dlfa.report.crossed_interval import crossed_interval
from dlfa.report.significance import t_interval


def test_both_effects_by_hand():
    values = np.array([[1.0, 2.0, 4.0], [3.0, 4.0, 9.0]])
    grand, rows, columns = values.mean(), values.mean(1), values.mean(0)
    seeds = 3 * ((rows - grand) ** 2).sum() / 1
    languages = 2 * ((columns - grand) ** 2).sum() / 2
    rest = ((values - rows[:, None] - columns + grand) ** 2).sum() / 2
    variance = seeds + languages - rest
    freedom = variance**2 / (seeds**2 / 1 + languages**2 / 2 + rest**2 / 2)
    error = np.sqrt(variance / 6)
    found = crossed_interval(values.tolist())
    assert found.low == pytest.approx(grand - stats.t.ppf(0.975, freedom) * error)
    assert found.high == pytest.approx(grand + stats.t.ppf(0.975, freedom) * error)
    assert found.p == pytest.approx(2 * stats.t.sf(grand / error, freedom))


def test_without_an_effect_of_seeds_it_is_the_t_interval_over_languages():
    by_language = [0.1, 0.4, -0.2, 0.3]
    noise = np.array([[1, -1, 1, -1], [-1, 1, -1, 1]]) * 0.01
    found = crossed_interval((np.array([by_language, by_language]) + noise).tolist())
    expected = t_interval(by_language)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("values", [[[0.1, 0.2, 0.4]], [[0.1], [0.2], [0.4]]])
def test_one_seed_or_one_language_leaves_the_other(values):
    assert crossed_interval(values) == t_interval([0.1, 0.2, 0.4])


def test_nothing_to_tell():
    assert crossed_interval([[0.3]]) is None
    constant = crossed_interval([[0.3, 0.3], [0.3, 0.3]])
    assert (constant.low, constant.high, constant.p) == (0.3, 0.3, None)
    rounded = crossed_interval([[0.3 - 0.2, 0.4 - 0.3], [0.5 - 0.4, 0.7 - 0.6]])  # 0.1 but for the last bits
    assert rounded.p is None
    assert (rounded.low, rounded.high) == pytest.approx((0.1, 0.1))


def test_it_holds_the_truth_nineteen_times_of_twenty():
    draw = np.random.default_rng(0)
    held = 0
    for _ in range(600):
        seeds, languages = draw.normal(0, 0.4, (3, 1)), draw.normal(0, 1, (1, 12))
        found = crossed_interval((2 + seeds + languages + draw.normal(0, 0.5, (3, 12))).tolist())
        held += found.low <= 2 <= found.high
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
    assert 0.92 <= held / 600 <= 0.98
