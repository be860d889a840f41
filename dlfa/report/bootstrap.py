"""The paired bootstrap over sentences: how much a difference depends on the choice of test sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.examples import Example
from ..evaluation.prediction_files import prediction_name, read_predictions
from ..tasks import TASKS, Task
from ..tasks.loading import read_split, subset
from .comparison import Comparison
from .language_groups import LanguageGroup
from .runs import Run
from .sentence_counts import CountedMetric, Counts, counted_metric
from .significance import CONFIDENCE, Interval
from .variants import Variant

_BATCH = 200  # resamples at a time
_TOLERANCE = 1e-6  # between a run's recorded score and the one computed from its predictions


def paired_bootstrap(
    comparison: Comparison,
    groups: Sequence[LanguageGroup],
    *,
    resamples: int,
    data_dir: Path | None = None,
    on_language: Callable[[str], None] | None = None,
) -> dict[tuple[Variant, LanguageGroup], Interval]:
    """Compute percentile intervals of differences to the baseline, averaged over seeds and each group of languages.

    Each resample draws every language's sentences with replacement, the same draw for both variants and all seeds. The
    languages are fixed. The interval therefore covers the choice of sentences, not of seeds. Macro averages are biased
    when a rare label is not drawn, so each language's distribution is recentred on the observed difference. A language
    with a single sentence cannot be resampled; its observed difference is used in the means.

    Args:
        comparison: the runs; their predictions must be next to their results.
        groups: groups of languages.
        resamples: number of resamples, at least 1.
        data_dir: the gold labels, in XTREME's layout; None uses the folder or Hub data set that the runs read.
        on_language: called after the resampling of each language.

    Returns:
        Intervals by variant and group. p is twice the smaller share of resamples on one side of zero, at most 1. Groups
        in which every language has a single sentence are omitted.

    Raises:
        ValueError: data or predictions are missing, or do not reproduce the scores in the results, so they are not
            those that the run was scored on.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    if comparison.task not in TASKS:
        raise ValueError(f"{comparison.task} is no task of this package, so its gold labels are not known")
    task = TASKS[comparison.task]
    drawn = {}
    for language in comparison.languages:
        drawn[language] = _language_differences(comparison, task, language, resamples, data_dir)
        if on_language is not None:
            on_language(language)
    intervals = {}
    tails = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
    for group in groups:
        # Languages are resampled independently, so averaging their r-th resamples gives the r-th resample of the mean.
        mean = np.mean(np.broadcast_arrays(*(drawn[language] for language in group.languages)), axis=0)
        if mean.shape[1] < resamples:
            continue
        sides = np.minimum((mean <= 0).sum(axis=1), (mean >= 0).sum(axis=1))
        for row, (variant, _) in enumerate(comparison.pairs):
            low, high = np.quantile(mean[row], tails)
            p = min(1.0, 2 * (int(sides[row]) + 1) / (resamples + 1))
            intervals[variant, group] = Interval(float(low), float(high), p)
    return intervals


def _language_differences(
    comparison: Comparison, task: Task, language: str, resamples: int, data_dir: Path | None
) -> NDArray[np.float64]:
    """Return one language's differences, averaged over seeds: (pairs, resamples), or (pairs, 1) for one sentence."""
    from scipy.stats import bootstrap

    runs = [run for members in comparison.runs.values() for run in members]
    examples = _gold(task, runs, comparison.split, language, data_dir)
    metric = counted_metric(task, comparison.metric, language, examples)
    # All runs side by side, (sentences, runs * k), as one matrix product is faster than one a run with its few columns.
    counts = np.concatenate([_run_counts(task, run, comparison, language, examples, metric) for run in runs], axis=1)
    contrasts = _contrasts(comparison)

    def differences(drawn: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
        """Map (resamples, sentences) sentence indices to (pairs, resamples) differences."""
        times = np.stack([np.bincount(row, minlength=len(examples)) for row in drawn]).astype(np.float32)
        totals = (times @ counts).astype(np.float64).reshape(len(drawn), len(runs), -1)
        return contrasts @ metric.score(totals).T

    own = differences(np.arange(len(examples))[None], -1)
    if len(examples) == 1:
        return own
    # Drawing indices keeps all runs paired, and makes the sums of counts a matrix product.
    result = bootstrap(
        (np.arange(len(examples)),), differences, n_resamples=resamples, batch=_BATCH, vectorized=True, axis=-1,
        method="percentile", rng=np.random.default_rng([0, *language.encode()]),
    )  # fmt: skip
    resampled = result.bootstrap_distribution
    return resampled + (own - resampled.mean(axis=1, keepdims=True))


def _contrasts(comparison: Comparison) -> NDArray[np.float64]:
    """Return (pairs, runs) weights: each variant's mean over seeds minus its baseline's."""
    members = [variant for variant in comparison.runs for _ in comparison.seeds]
    rows = [
        [(member == variant) - float(member == baseline) for member in members]
        for variant, baseline in comparison.pairs
    ]
    return np.array(rows) / len(comparison.seeds)


def _gold(task: Task, runs: Sequence[Run], split: str, language: str, data_dir: Path | None) -> list[Example]:
    """Return the examples that the runs were evaluated on; their number determines the subset."""
    folder = data_dir
    if folder is None:
        known = [run for run in runs if run.has_run_file]
        if not known:
            raise ValueError("no run tells where its data are; give --data-dir")
        folder = known[0].data_dir
    if folder is not None and not folder.is_dir():
        raise ValueError(f"the data folder {folder} is not there; give --data-dir")
    return subset(read_split(task, folder, split, language), runs[0].examples[language])


def _run_counts(
    task: Task, run: Run, comparison: Comparison, language: str, examples: Sequence[Example], metric: CountedMetric
) -> Counts:
    path = run.predictions / prediction_name(task, language, comparison.split)
    counts = metric.counts(read_predictions(task, path, examples))
    counted, told = float(metric.score(counts.sum(axis=0, dtype=np.float64))), run.scores[language][comparison.metric]
    if abs(counted - told) > _TOLERANCE:
        raise ValueError(
            f"{path} gives {comparison.metric} {counted:.4f} on these data, {run.path} says {told:.4f}: "
            "predictions or data are not those that were scored"
        )
    return counts
