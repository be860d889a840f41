"""Documents that tell which files were written with them."""

from pathlib import Path

import pytest

from dlfa.files.markdown_documents import write_document, written_with


def test_a_document_names_what_was_written_with_it(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    write_document(path, "# Results\n\n![Scores](scores.png)\n\nSee [runs](runs.csv).\n", ["runs.csv"])
    assert written_with(path) == {"report.md", "runs.csv", "scores.png"}
    assert path.read_text().startswith("# Results\n")
    write_document(path, "# Results\n\n![Gains](gains.png)\n")  # the files of the one before are still there
    assert written_with(path) == {"report.md", "runs.csv", "scores.png", "gains.png"}


@pytest.mark.parametrize("content", [None, b"", b"# Results\n", b"\xff"])
def test_other_documents_name_nothing(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "report.md"
    if content is not None:
        path.write_bytes(content)
    assert written_with(path) == set()


def test_a_document_continued_by_hand_is_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    write_document(path, "# Results\n")
    with path.open("a") as file:
        file.write("My notes.\n")
    assert written_with(path) == set()
