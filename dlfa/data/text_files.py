"""Files of labelled texts with `first<TAB>second<TAB>label` lines (xnli, paws-x and similar)."""

from __future__ import annotations

from pathlib import Path

from .examples import DataError, LabelledText
from .lines import columns, example_lines, known_label

_HINT = " (XTREME's own test files carry no labels; they can be predicted, not scored)"


def read_text_file(path: Path, names: tuple[str, ...], labels: tuple[str, ...]) -> list[LabelledText]:
    """Read a file of labelled texts.

    Args:
        path: a UTF-8 file with LF or CRLF; the last newline is optional, and blank lines may follow.
        names: the text columns, such as ("premise", "hypothesis").
        labels: the valid labels.

    Raises:
        DataError: a wrong number of columns, an empty column, a label outside `labels`, invalid UTF-8, or an empty
            file; the message names file, line and what was expected.
    """
    examples = []
    for number, line in example_lines(path):
        *texts, label = columns(path, number, line, (*names, "label"), _HINT)
        known_label(path, number, label, labels, "label")
        examples.append(LabelledText(tuple(map(unquoted, texts)), label))
    if not examples:
        raise DataError(f"{path}: the file is empty; expected {'<TAB>'.join((*names, 'label'))} lines")
    return examples


def unquoted(text: str) -> str:
    """Undo csv quoting, which XTREME's scripts use for texts with quotes (doubled inside)."""
    inner = text[1:-1]
    quoted = len(text) > 3 and text[0] == text[-1] == '"' and '""' in inner and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if quoted else text
