"""Files of labelled texts: `first<TAB>second<TAB>label` a line (xnli, paws-x and their like)."""

from __future__ import annotations

from pathlib import Path

from .examples import DataError, LabelledText
from .lines import columns, example_lines, known_label

_HINT = " (XTREME's own test files carry no labels; they can be predicted, not scored)"


def read_text_file(path: Path, names: tuple[str, ...], labels: tuple[str, ...]) -> list[LabelledText]:
    """Read a file of labelled texts.

    Args:
        path: UTF-8; LF or CRLF; the last newline may be missing, and blank lines follow it.
        names: the text columns, such as ("premise", "hypothesis").
        labels: the valid labels.

    Raises:
        DataError: names file, line and what was expected: another number of columns, an empty one, a label outside
            `labels`, bytes that are no UTF-8, an empty file.
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
    """Undo csv quoting, which XTREME's scripts write around a text that holds a quote, then doubled."""
    inner = text[1:-1]
    quoted = len(text) > 3 and text[0] == text[-1] == '"' and '""' in inner and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if quoted else text
