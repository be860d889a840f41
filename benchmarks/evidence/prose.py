"""findings.md: what people have written about the results, one section a group of the plan, and some of general use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

# Sections beside those of groups, and where RESULTS.md puts them.
SUMMARY, PROTOCOL, UNDERSTANDING, LIMITS = "summary", "protocol", "understanding", "limits"
_GENERAL = (SUMMARY, PROTOCOL, UNDERSTANDING, LIMITS)


def read_prose(path: Path, groups: Iterable[str]) -> dict[str, str]:
    """The sections of findings.md by their `## ` headings; what stands before the first is for its writers alone.

    Raises:
        ValueError: a section that has no place in RESULTS.md, or one that is there twice.
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
