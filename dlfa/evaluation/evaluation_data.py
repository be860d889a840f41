"""The data that saved runs are evaluated on: by default, the data that the runs themselves were evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..data.examples import Example
from ..runs.run_config import RunConfig
from ..tasks import Task
from ..tasks.loading import choose_languages, read_languages


def data_dir_of(runs: Sequence[RunConfig], given: Path | None) -> Path | None:
    """Return the data folder: `given`, else the first run's; None for the Hub.

    Raises:
        ValueError: the run's folder does not exist.
    """
    if given is not None or not runs or runs[0].data_dir is None:
        return given
    if not runs[0].data_dir.is_dir():
        raise ValueError(
            f"{runs[0].data_dir}: no such folder, where the run in {runs[0].output_dir} had its data; give --data-dir"
        )
    return runs[0].data_dir


def examples_of_each(runs: Sequence[RunConfig], given: int | None) -> int | None:
    """Return the number of examples per language: `given` (0 for all), else the first run's; None means all."""
    if given is None and runs:
        given = runs[0].max_eval_examples
    return given or None


def evaluation_data(
    task: Task,
    runs: Sequence[RunConfig],
    *,
    data_dir: Path | None,
    languages: Sequence[str] | None,
    split: str,
    max_eval_examples: int | None,
) -> dict[str, list[Example]]:
    """Read the data that runs of one task are evaluated on.

    Args:
        task: the task of the runs.
        runs: their configurations, as far as known.
        data_dir: data in XTREME's layout; None uses the first run's.
        languages: None uses those that all runs were tested on, or if there are none, or `data_dir` is not the first
            run's, all that have data; for development data, only the training language.
        split: "test" or "dev".
        max_eval_examples: size of a fixed random subset of each language; 0 uses all, None the first run's size.

    Returns:
        Examples by language.

    Raises:
        ValueError: no such folder, a language without data, a malformed line.
    """
    own_data = bool(runs) and (data_dir is None or _same_folder(data_dir, runs[0].data_dir))
    data_dir = data_dir_of(runs, data_dir)
    if languages is None and split == "dev":
        languages = (task.train_language,)
    elif languages is None and own_data:
        first, *others = (run.languages or () for run in runs)
        languages = [language for language in first if all(language in other for other in others)] or None
    chosen = choose_languages(task, data_dir, languages, split)
    return read_languages(task, data_dir, split, chosen, examples_of_each(runs, max_eval_examples))


def _same_folder(one: Path, other: Path | None) -> bool:
    return other is not None and one.resolve() == other.resolve()
