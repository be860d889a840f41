"""Strict reading of text files: numbered lines of valid UTF-8 and tab-separated columns."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from .examples import DataError

# Means standard input. Opening this path would read a redirected file from its start again, and fail for a socket.
STANDARD_INPUT = Path("/dev/stdin")


def read_bytes(path: Path) -> bytes:
    """Return the content of a file, or the rest of standard input for `STANDARD_INPUT`.

    Raises:
        DataError: it cannot be read.
    """
    if path == STANDARD_INPUT and sys.stdin is None:
        raise DataError(f"{path}: cannot be read: it is closed")
    try:
        return sys.stdin.buffer.read() if path == STANDARD_INPUT else path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 file with numbers from 1, without line ends (LF or CRLF) and byte order mark.

    Only LF ends a line, because other Unicode separators may be part of a word.

    Raises:
        DataError: the file cannot be opened, is not valid UTF-8, or contains a NUL byte.
    """
    lines = read_bytes(path).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if b"\0" in line:  # UTF-16, or a file damaged by a crash
            raise DataError(f"{path}:{number}: byte {line.index(0) + 1} of the line is NUL; needed is a text in UTF-8")
        try:
            yield number, line.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}:{number}: byte {error.start + 1} of the line, 0x{line[error.start]:02x}, is no valid UTF-8"
            ) from error


def example_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield `numbered_lines` of a file with one example per line, without blank lines at its end."""
    blank: list[tuple[int, str]] = []
    for number, line in numbered_lines(path):
        blank.append((number, line))
        if line.strip(" "):
            yield from blank
            blank.clear()


def columns(
    path: Path, number: int, line: str, names: tuple[str, ...], hint: str = "", *, optional: str | None = None
) -> list[str]:
    """Split a line into non-blank tab-separated columns: as many as `names`, and one more if `optional` is present.

    A column of other white space, such as a no-break space, is an ordinary word.

    Raises:
        DataError: the number of columns is wrong, or one is blank; with too few, `hint` ends the message.
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
    """Return `label` after checking it.

    Raises:
        DataError: `label` is not in `labels`; the message lists them.
    """
    if label not in labels:
        raise DataError(f"{path}:{number}: unknown {what} {label!r}; valid are {', '.join(labels)}")
    return label


def _shown(line: str) -> str:
    return repr(line if len(line) <= 60 else line[:57] + "...")
