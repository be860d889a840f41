"""findings.md: hand-written text about the results, one section a group of the plan, and some general sections."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

# General sections, besides those of groups; RESULTS.md has a place for each.
SUMMARY, PROTOCOL, UNDERSTANDING, BRANCHES, LIMITS = "summary", "protocol", "understanding", "branches", "limits"
_GENERAL = (SUMMARY, PROTOCOL, UNDERSTANDING, BRANCHES, LIMITS)


def read_prose(path: Path, groups: Iterable[str]) -> dict[str, str]:
    """Return the sections of findings.md by their `## ` headings; text before the first is only for its writers.

    Raises:
        ValueError: a section without a place in RESULTS.md, or a duplicate one.
    """
    if not path.exists():
        return {}
    names = (*_GENERAL, *groups)
    parts = re.split(r"^## +(.+?) *$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    sections: dict[str, str] = {}
    for heading, text in zip(parts[1::2], parts[2::2], strict=True):
        if heading not in names:
            raise ValueError(f"{path}: no place for a section {heading!r}; there are {', '.join(names)}")
        if heading in sections:
            raise ValueError(f"{path}: two sections {heading!r}")
        sections[heading] = text.strip()
    return sections
