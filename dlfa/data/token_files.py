"""Token files: `token<TAB>tag` lines, with a blank line after each sentence (udpos, panx and similar)."""

from __future__ import annotations

from pathlib import Path

from .examples import DataError, TaggedSentence
from .lines import columns, known_label, numbered_lines

_HINT = " (XTREME's own test files carry no tags; they can be predicted, not scored)"


def read_token_file(path: Path, tags: tuple[str, ...]) -> list[TaggedSentence]:
    """Read a token file.

    Args:
        path: a UTF-8 file with LF or CRLF; the last newline and blank line are optional. Blank lines may have spaces.
        tags: the valid tags.

    Raises:
        DataError: a line without exactly two columns, an empty token or tag, a tag outside `tags`, invalid UTF-8, or no
            sentence; the message names file, line and what was expected.
    """
    sentences: list[TaggedSentence] = []
    words: list[str] = []
    sentence_tags: list[str] = []
    for number, line in (*numbered_lines(path), (0, "")):
        if line.strip(" "):
            word, tag = columns(path, number, line, ("token", "tag"), _HINT)
            words.append(word)
            sentence_tags.append(known_label(path, number, tag, tags, "tag"))
        elif words:
            sentences.append(TaggedSentence(tuple(words), tuple(sentence_tags)))
            words, sentence_tags = [], []
    if not sentences:
        raise DataError(f"{path}: the file is empty; expected token<TAB>tag lines, a blank line after each sentence")
    return sentences
