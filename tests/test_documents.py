"""The documents: every link and picture leads somewhere, and every picture is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from markdown_links import broken_links, links, target_of

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    assert broken_links(path) == []


def test_every_picture_is_shown():
    shown = {target_of(path, link) for path in DOCUMENTS for link in links(path)}
    assert set((ROOT / "docs" / "images").rglob("*.png")) - shown == set()


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "other.md").write_text("# Of *two* words\n\n```\n# no heading\n```\n")
    path = tmp_path / "a.md"
    path.write_text(
        "# Here\n[a](other.md) [b](other.md#of-two-words) [c](#here) [d](https://a.example/x) `[e](code.md)`\n"
        "[f](none.md) ![g](none.png) [h](other.md#no-heading) [i](#there)\n"
    )
    assert broken_links(path) == ["none.md", "none.png", "other.md#no-heading", "#there"]
