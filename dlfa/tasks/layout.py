"""XTREME's layout on disk: one folder with one file per split and language."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..data.examples import DataError
from .base import Task

_CODE = "[A-Za-z0-9]+(?:[-_][A-Za-z0-9]+)*"  # de, zh-Hans, pt_br


def find_file(task: Task, data_dir: Path, split: str, language: str) -> Path:
    """Return the file of `split` in `language`.

    Raises:
        DataError: there is no such file (the message lists the languages that have one), or the path is not a file.
    """
    names = [pattern.format(split=split, lang=language) for pattern in task.file_patterns[split]]
    for name in names:
        if (data_dir / name).is_file():
            return data_dir / name
    for name in names:
        if os.path.lexists(data_dir / name):
            raise DataError(f"{data_dir / name}: must be a file, and is a directory, a device or a link to nothing")
    there = ", ".join(languages_on_disk(task, data_dir, split)) or "none"
    raise DataError(f"{data_dir}: no {' or '.join(names)}; languages with a {split} file here: {there}")


def languages_on_disk(task: Task, data_dir: Path, split: str) -> list[str]:
    """Return the languages that have a file of `split`: first the task's in their order, then others sorted by name.

    Raises:
        DataError: `data_dir` is not a folder.
    """
    if not data_dir.is_dir():
        raise DataError(f"{data_dir}: no such folder; --data-dir must hold {', '.join(_examples(task))}")
    found: set[str] = set()
    for pattern in task.file_patterns[split]:
        if "{lang}" not in pattern:
            if (data_dir / pattern).is_file():
                found.add(task.train_language)
            continue
        head, *rest = pattern.format(split=split, lang="\0").split("\0")
        # A pattern may name the language twice, as MLQA's files do.
        name = re.compile(re.escape(head) + rf"({_CODE})" + r"\1".join(map(re.escape, rest)))
        for path in data_dir.glob(pattern.format(split=split, lang="*")):
            match = name.fullmatch(path.relative_to(data_dir).as_posix())
            if match:
                found.add(match[1])
    known = [language for language in task.languages if language in found]
    return known + sorted(found.difference(known))


def data_files(task: Task, data_dir: Path | None) -> list[Path]:
    """Return all files of `task` below `data_dir`; none if `data_dir` is None or not a folder."""
    if data_dir is None or not data_dir.is_dir():
        return []
    named = {
        data_dir / pattern.format(split=split, lang=language)
        for split, patterns in task.file_patterns.items()
        for pattern in patterns
        for language in languages_on_disk(task, data_dir, split)
    }
    return sorted(path for path in named if os.path.lexists(path))


def _examples(task: Task) -> list[str]:
    return [
        task.file_patterns[split][0].format(split=split, lang=task.train_language if split != "test" else "XX")
        for split in ("train", "dev", "test")
    ]
