"""Sections of README.md from committed results, between `<!-- NAME:begin -->` and `<!-- NAME:end -->`."""

from __future__ import annotations

PERFORMANCE, EVIDENCE = "performance", "evidence"


def markers(name: str) -> tuple[str, str]:
    """Return the lines before and after a section."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def replace_section(text: str, name: str, new: str) -> str:
    """Return `text` with the section `name` between its markers replaced by `new`, which ends in a newline.

    Raises:
        ValueError: the text does not have exactly one line of each marker, in order.
    """
    lines = text.splitlines(keepends=True)
    first, last = markers(name)
    begin, end = ([i for i, line in enumerate(lines) if line.strip() == marker] for marker in (first, last))
    if len(begin) != 1 or len(end) != 1 or end[0] < begin[0]:
        raise ValueError(f"must have the line {first} once, and below it the line {last} once")
    return "".join([*lines[: begin[0] + 1], new, *lines[end[0] :]])
