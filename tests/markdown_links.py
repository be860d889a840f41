"""The links and pictures of Markdown files, and those of them that lead nowhere."""

from __future__ import annotations

import re
from pathlib import Path

_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def links(path: Path) -> list[str]:
    """The targets of a file's links and pictures that are not on the web."""
    found = _LINK.findall(_CODE.sub("", path.read_text(encoding="utf-8")))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def target_of(path: Path, link: str) -> Path:
    """The file that a link of `path` leads to."""
    return (path.parent / link.partition("#")[0]).resolve() if link.partition("#")[0] else path


def broken_links(path: Path) -> list[str]:
    """The links of a file whose file is not there, or has no heading of that anchor."""
    broken = []
    for link in links(path):
        target, anchor = target_of(path, link), link.partition("#")[2]
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    return broken


def _anchors(path: Path) -> set[str]:
    headings = _HEADING.findall(re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
