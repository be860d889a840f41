"""Uncertainty of a mean over both languages and seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .significance import CONFIDENCE, Interval, all_same, t_interval


def crossed_interval(differences: Sequence[Sequence[float]]) -> Interval | None:
    """Compute a confidence interval of the mean difference that treats seeds and languages as random samples.

    Seeds and languages are crossed random effects, like subjects and items in Clark (1973). With mean squares MS of
    seeds (S of them), languages (L) and their interaction e, the mean's variance is (MS_S + MS_L - MS_e) / (S L), with
    Satterthwaite's (1946) degrees of freedom; the test against 0 is Clark's quasi-F. An effect with a negative
    variance estimate is dropped. With a single seed or language, the result is the t interval over the other.

    Args:
        differences: (S, L) differences of paired runs: one list per seed, with the languages in the same order.

    Returns:
        The interval at `CONFIDENCE` with the p-value of "no difference"; None for a single number. p is None if
        nothing varies.
    """
    from scipy.stats import t as student

    values = np.asarray(differences, dtype=float)
    seeds, languages = values.shape
    if seeds == 1 or languages == 1:
        return t_interval(values.ravel().tolist())
    if all_same(values.ravel().tolist()):
        return Interval(float(values[0, 0]), float(values[0, 0]), None)
    mean, by_seed, by_language = values.mean(), values.mean(axis=1), values.mean(axis=0)
    residual = values - by_seed[:, None] - by_language[None, :] + mean
    interaction = float((residual**2).sum()), (seeds - 1) * (languages - 1)
    terms = [(interaction[0] / interaction[1], 1.0, interaction[1])]
    for square, freedom in (
        (languages * float(((by_seed - mean) ** 2).sum()) / (seeds - 1), seeds - 1),
        (seeds * float(((by_language - mean) ** 2).sum()) / (languages - 1), languages - 1),
    ):
        if square > interaction[0] / interaction[1]:
            terms.append((square, 1.0, freedom))
    if len(terms) > 1:
        # Subtract the interaction (effects - 1) times, because every mean square contains it.
        terms[0] = (terms[0][0], 2.0 - len(terms), interaction[1])
    variance = sum(sign * square for square, sign, _ in terms)
    spread = sum((sign * square) ** 2 / freedom for square, sign, freedom in terms)
    if variance <= 0 or spread <= 0:
        return Interval(float(mean), float(mean), None)
    freedom = variance**2 / spread
    error = math.sqrt(variance / values.size)
    half = float(student.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    p = 2 * float(student.sf(abs(mean) / error, freedom))
    return Interval(float(mean) - half, float(mean) + half, p)
