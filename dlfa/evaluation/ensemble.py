"""Ensembles: several saved runs predict together, by mean probability or by vote, and are scored like one run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logsumexp, softmax

from ..data.examples import Example
from ..files import atomic
from ..processes import check_alone
from ..runs.directory_lock import exclusive
from ..runs.run_config import EVAL_BATCH_SIZE, RunConfig
from ..runs.run_directory import RunDirectory
from ..tasks import Task
from ..tasks.question_answering import Span
from .charts import bar_chart
from .evaluate import score_language
from .evaluation_data import evaluation_data
from .prediction_files import prediction_name, write_predictions
from .results import scores, summary
from .saved_runs import load_run, recorded_by_run

# What results.json tells of one model; of an ensemble where all of its runs agree.
_OF_A_MODEL = ("model", "fusion", "fusion_layer", "fuse", "label_subword", "classifier_pooling")


@dataclasses.dataclass(frozen=True)
class EnsembleConfig:
    """The configuration of an ensemble.

    Args:
        runs: at least two output directories of `dlfa train`, all of one task.
        output_dir: directory for results and predictions. It must not hold a run, nor files of the same names except
            an ensemble's. Other files there are kept.
        data_dir: data in XTREME's layout; None uses the first run's.
        languages: languages to test on; None uses those that all runs were tested on, or if there are none, or
            `data_dir` is not the first run's, all that have data.
        vote: let each run vote once per decision (a word's tag, a text's label, a question's answer); the mean
            probability breaks ties. Otherwise the mean probability alone decides.
        split: "test" or "dev".
        max_eval_examples: size of a fixed random subset of each language; 0 uses all, None the first run's size.
        batch_size: sequences per batch.

    Raises:
        ValueError: too few runs, a run given twice, or a value out of range.
    """

    runs: tuple[Path, ...]
    output_dir: Path
    data_dir: Path | None = None
    languages: tuple[str, ...] | None = None
    vote: bool = False
    split: str = "test"
    max_eval_examples: int | None = None
    batch_size: int = EVAL_BATCH_SIZE

    def __post_init__(self) -> None:
        if len(self.runs) < 2 or len({run.resolve() for run in self.runs}) < len(self.runs):
            raise ValueError(f"an ensemble needs at least two runs, none of them twice, got {_names(self.runs)}")
        if self.split not in ("test", "dev"):
            raise ValueError(f"split must be test or dev, got {self.split!r}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.max_eval_examples is not None and self.max_eval_examples < 0:
            raise ValueError(f"max_eval_examples must not be negative, got {self.max_eval_examples}")


def run_ensemble(config: EnsembleConfig, *, overwrite: bool = False, progress: bool = False) -> dict[str, Any]:
    """Evaluate an ensemble and write results.json, predictions and the chart to its `output_dir`.

    Only one model at a time is in memory.

    Args:
        config: the ensemble.
        overwrite: replace the results of an ensemble in `output_dir`.
        progress: show a bar for each run on standard error.

    Returns:
        The content of results.json: like a run's, with `ensemble` instead of the fields about training.

    Raises:
        ValueError: invalid input, or another process uses `output_dir`; raised before any model runs.
        FloatingPointError: a run's scores are NaN or infinite.
    """
    check_alone("an ensemble is evaluated by one process")
    with exclusive(config.output_dir):
        return _run_held(config, overwrite, progress)


def _run_held(config: EnsembleConfig, overwrite: bool, progress: bool) -> dict[str, Any]:
    """`run_ensemble`, in a directory that no other process works in."""
    directory = RunDirectory(config.output_dir)
    directory.check_for_ensemble(overwrite)
    configs = [_config_of(path) for path in config.runs]
    names = {run.task for run in configs}
    if len(names) > 1:
        raise ValueError(f"the runs must be of one task, got {', '.join(sorted(names))}")
    task = configs[0].task_object
    data = evaluation_data(
        task, configs, data_dir=config.data_dir, languages=config.languages, split=config.split,
        max_eval_examples=config.max_eval_examples,
    )  # fmt: skip
    recorded = [recorded_by_run(path, run) for path, run in zip(config.runs, configs, strict=True)]
    results_of: list[dict[str, Any]] = []
    scores_of: dict[str, list[list[Any]]] = {language: [] for language in data}
    for path, trained, fields in zip(config.runs, configs, recorded, strict=True):
        found, result = _member(path, trained, task, data, config, fields, progress)
        results_of.append(result)
        for language, several in scores_of.items():
            several.append(found[language])
    evaluations = {
        language: score_language(task, language, data[language], together(several, config.vote))
        for language, several in scores_of.items()
    }
    by = "vote" if config.vote else "mean probability"
    kept = (*_OF_A_MODEL, "seed", "average", "average_zero_shot")
    members = [
        {"run": name, **{key: result[key] for key in kept}}
        for name, result in zip(_short_names(config.runs), results_of, strict=True)
    ]
    environments = [result["environment"] for result in results_of]
    results = {
        "task": task.name,
        **{key: _common([member[key] for member in members]) for key in _OF_A_MODEL},
        "seed": None,
        "split": config.split,
        **scores(task, evaluations),
        "ensemble": {"by": by, "runs": members},
        "environment": {key: _common([each[key] for each in environments]) for key in environments[0]},
    }
    directory.clear_ensemble()
    files = [
        f"{directory.predictions.name}/{prediction_name(task, language, config.split)}" for language in evaluations
    ]
    runs = [member["run"] for member in members]
    atomic.write_json(directory.ensemble_file, {"by": by, "runs": runs, "files": files})
    write_predictions(directory.predictions, task, evaluations, config.split)
    bar_chart(results, directory.chart_file)
    atomic.write_json(directory.results_file, results)
    return results


def _member(
    path: Path,
    trained: RunConfig,
    task: Task,
    data: Mapping[str, list[Example]],
    config: EnsembleConfig,
    recorded: Mapping[str, Any],
    progress: bool,
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """One run's scores by language and what its results.json would hold; its model is gone afterwards."""
    run = load_run(path)
    evaluations = run.evaluate(data, config.batch_size, progress=progress)
    result = summary(
        task, run.model, trained.model, evaluations, seed=trained.seed, split=config.split, autocast=run.autocast,
        **recorded,
    )  # fmt: skip
    return {language: each.scores for language, each in evaluations.items()}, result


def together(several: Sequence[Sequence[Any]], vote: bool) -> list[Any]:
    """Combine the scores of an ensemble's members.

    Args:
        several: for each member, the output of `dlfa.evaluation.evaluate.example_scores`.
        vote: count each member's first choice instead of averaging the probabilities.

    Returns:
        One entry per example, from which the task decides as from one model's scores: log mean probabilities, or with
        `vote` the number of votes plus half the mean probability, which only breaks ties.
    """
    return [_example_together(members, vote) for members in zip(*several, strict=True)]


def _example_together(members: Sequence[Any], vote: bool) -> Any:
    if isinstance(members[0], list):
        return _spans_together(members, vote)
    stacked = np.stack(members)
    mean = logsumexp(stacked, axis=0) - np.log(len(members))
    if not vote:
        return mean
    votes = np.eye(stacked.shape[-1])[stacked.argmax(axis=-1)].sum(axis=0)
    return votes + np.exp(mean) / 2


def _spans_together(members: Sequence[list[Span]], vote: bool) -> list[Span]:
    """Candidate answers; a member's probabilities are the softmax over its own candidates."""
    totals: dict[tuple[int, int], float] = {}
    for spans in members:
        shares = softmax([span.score for span in spans]) if spans else []
        for rank, (span, share) in enumerate(zip(spans, shares, strict=True)):
            place, mean = (span.start, span.stop), float(share) / len(members)
            totals[place] = totals.get(place, 0.0) + ((rank == 0) + mean / 2 if vote else mean)
    return sorted((Span(total, *place) for place, total in totals.items()), reverse=True)


def _common(values: Sequence[Any]) -> Any:
    return values[0] if all(value == values[0] for value in values) else None


def _short_names(runs: Sequence[Path]) -> list[str]:
    """Of each directory as many of the last parts of its path as tell all of them apart, such as x/aif and y/aif."""
    paths = [Path(os.path.abspath(run)) for run in runs]
    for count in range(1, max(len(path.parts) for path in paths) + 1):
        names = [Path(*path.parts[-count:]).as_posix() for path in paths]
        if len(set(names)) == len(names):
            break
    return names


def _names(runs: Sequence[Path]) -> str:
    return ", ".join(map(str, runs)) or "none"


def _config_of(path: Path) -> RunConfig:
    """The configuration of a run, read without loading its model."""
    directory = RunDirectory(path)
    directory.check_there()
    if not directory.run_file.exists():
        raise ValueError(f"{path} has no run.json, so it is no run of dlfa train")
    if not (path / "config.json").exists():
        raise ValueError(f"no model in {path}: the run is not complete, or was made by a sweep without --keep-models")
    return directory.read_config()
