"""Loading task data from the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..data.examples import DataError, Example
from ..error_lines import first_line
from .base import Task


def load_rows(path: str, config: str | None, split: str) -> Any:
    """Load the rows of one split with `datasets.load_dataset`, whose exceptions are not caught here."""
    import datasets

    return datasets.load_dataset(path, config, split=split)


def read_hub(task: Task, split: str, language: str) -> list[Example]:
    """Load `split` of `task` in `language`.

    Raises:
        DataError: the task has no such data on the Hub, or they cannot be loaded. The message names the data set and
            the files that --data-dir needs instead.
    """
    alternative = f"give --data-dir DIR with {task.file_patterns[split][0].format(split=split, lang=language)}"
    source = task.hub.get(split)
    if source is None:
        raise DataError(f"task {task.name} has no {split} data on the Hub; {alternative}")
    config, hub_split = source.config_of(language), source.splits[split]
    name = f"{source.path}{f' ({config})' if config else ''}, split {hub_split}"
    try:
        rows = load_rows(source.path, config, hub_split)
    except Exception as error:  # the Hub's client, its cache and the readers below it raise dozens of types
        reason = first_line(error) or "no reason given"
        raise DataError(
            f"the data set {name}, could not be loaded from the Hub ({type(error).__name__}: {reason}); {alternative}"
        ) from error
    names = _class_names(rows)
    prefix = source.id_prefix.get(language)
    try:
        examples = [task.from_hub(row, names) for row in rows if prefix is None or row["id"].startswith(prefix)]
    except DataError as error:
        raise DataError(f"the data set {name}: {error}") from error
    except (KeyError, IndexError, TypeError) as error:
        raise DataError(f"the data set {name}, has not the columns that {task.name} needs: {error!r}") from error
    if not examples:
        raise DataError(f"the data set {name}, holds no example in {language!r}; {alternative}")
    return examples


def _class_names(rows: Any) -> Mapping[str, Sequence[str]]:
    """Names of the classes of every integer label column, plain or a list."""
    found = {}
    for column, feature in getattr(rows, "features", {}).items():
        names = getattr(getattr(feature, "feature", feature), "names", None)
        if names:
            found[column] = names
    return found
