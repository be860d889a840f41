"""Strict reading of text files: numbered lines of valid UTF-8, tab-separated columns."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from .examples import DataError

# Stands for standard input. Opened by this name a file would be read from its beginning again, and a socket not at all.
STANDARD_INPUT = Path("/dev/stdin")


def read_bytes(path: Path) -> bytes:
    """The content of a file, or what is left of standard input for `STANDARD_INPUT`.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return sys.stdin.buffer.read() if path == STANDARD_INPUT else path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 file with their numbers from 1, without their ends (LF or CRLF) and without a byte order mark.

    Only LF ends a line: other separators of Unicode may be part of a word.

    Raises:
        DataError: a file that cannot be opened, or bytes that are no UTF-8 or NUL, of which no text has any.
    """
    lines = read_bytes(path).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if b"\0" in line:  # UTF-16, or what a crash left of a file
            raise DataError(f"{path}:{number}: byte {line.index(0) + 1} of the line is NUL; needed is a text in UTF-8")
        try:
            yield number, line.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}:{number}: byte {error.start + 1} of the line, 0x{line[error.start]:02x}, is no valid UTF-8"
            ) from error


def example_lines(path: Path) -> Iterator[tuple[int, str]]:
    """`numbered_lines` of a file of one example a line: blank lines at its end are none."""
    blank: list[tuple[int, str]] = []
    for number, line in numbered_lines(path):
        blank.append((number, line))
        if line.strip(" "):
            yield from blank
            blank.clear()


def columns(
    path: Path, number: int, line: str, names: tuple[str, ...], hint: str = "", *, optional: str | None = None
) -> list[str]:
    """The line's tab-separated columns, none of them blank: as many as `names`, and `optional` where it is there.

    A column of other white space, such as a no-break space, is a word like others.

    Raises:
        DataError: another number of columns, or a blank one; `hint` ends the message where there are too few.
    """
    fields = line.split("\t")
    needed, layout, most = str(len(names)), "<TAB>".join(names), names
    if optional is not None:
        needed, layout, most = f"{needed} or {len(names) + 1}", f"{layout}[<TAB>{optional}]", (*names, optional)
    if not len(names) <= len(fields) <= len(most):
        raise DataError(
            f"{path}:{number}: expected {needed} tab-separated columns ({layout}), got {len(fields)}: "
            f"{_shown(line)}{hint if line and len(fields) < len(names) else ''}"
        )
    for name, field in zip(most, fields, strict=False):
        if not field.strip(" "):
            raise DataError(f"{path}:{number}: the {name} is empty: {_shown(line)}")
    return fields


def known_label(path: Path, number: int, label: str, labels: tuple[str, ...], what: str) -> str:
    """`label` itself.

    Raises:
        DataError: a label outside `labels`, which are listed.
    """
    if label not in labels:
        raise DataError(f"{path}:{number}: unknown {what} {label!r}; valid are {', '.join(labels)}")
    return label


def _shown(line: str) -> str:
    return repr(line if len(line) <= 60 else line[:57] + "...")
