"""Markdown documents that list the files written with them, so that other files are not replaced.

The names are in a comment on the last line, which Markdown renderers do not show.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from . import atomic

_MARK = re.compile(r"<!-- written by dlfa: (.+) -->")
_PICTURE = re.compile(r"^!\[.*\]\((.+)\)$", re.MULTILINE)


def write_document(path: Path, text: str, others: Iterable[str] = ()) -> None:
    """Write the document `text` to `path`.

    Args:
        path: the file; an existing one is replaced.
        text: its pictures, each on a line of its own, count as written with it.
        others: names of other files in its folder that were written with it.
    """
    names = sorted({path.name, *others, *_PICTURE.findall(text), *written_with(path)})
    atomic.write_text(path, f"{text.rstrip()}\n\n<!-- written by dlfa: {', '.join(names)} -->\n")


def written_with(path: Path) -> set[str]:
    """Return the names of the document at `path` and of all files written with it.

    The result is empty if `write_document` did not write the document, or if text was added at its end by hand.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return set()
    mark = _MARK.fullmatch(lines[-1]) if lines else None
    return set(mark[1].split(", ")) if mark else set()
