"""Question answering in SQuAD's JSON format (tydiqa gold passage, xquad, mlqa)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .examples import DataError, Question
from .lines import read_bytes


def read_squad_file(path: Path, need_answers: bool = True) -> list[Question]:
    """Read a SQuAD file: data -> paragraphs -> context, qas -> id, question, answers -> text, answer_start.

    Args:
        path: a UTF-8 file.
        need_answers: raise an error for a question without an answer.

    Returns:
        The questions. An answer's text need not be at its `answer_start`: in data sets that were cleaned after
        annotation, it can be some characters off.

    Raises:
        DataError: invalid JSON (the message names file and line), a missing or ill-typed field or an answer that starts
            outside its passage (it names the place), a repeated question id, or no question.
    """
    content = read_bytes(path).removeprefix(b"\xef\xbb\xbf")
    try:
        parsed = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: byte 0x{error.object[error.start]:02x} is no valid UTF-8") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: no valid JSON: {error.msg}") from error
    except RecursionError as error:
        raise DataError(f"{path}: no SQuAD file: JSON nested too deeply to be read") from error
    questions: dict[str, Question] = {}
    for place, article in _items(path, "", parsed, "data"):
        for paragraph_place, paragraph in _items(path, place, article, "paragraphs"):
            context = _field(path, paragraph_place, paragraph, "context", str)
            for qa_place, qa in _items(path, paragraph_place, paragraph, "qas"):
                question = _question(path, qa_place, qa, context)
                if need_answers and not question.answers:
                    raise DataError(f"{path}: {qa_place}: the question has no answers; it can be predicted, not scored")
                if question.id in questions:
                    raise DataError(f"{path}: {qa_place}: question id {question.id!r} comes twice")
                questions[question.id] = question
    if not questions:
        raise DataError(f"{path}: the file holds no question")
    return list(questions.values())


def _question(path: Path, place: str, qa: Any, context: str) -> Question:
    identifier = _field(path, place, qa, "id", str)
    text = _field(path, place, qa, "question", str)
    answers = []
    for answer_place, answer in _items(path, place, qa, "answers") if "answers" in qa else ():
        start = _field(path, answer_place, answer, "answer_start", int)
        if not 0 <= start < len(context):
            raise DataError(
                f"{path}: {answer_place}: answer_start must lie in the passage, which has {len(context)} characters, "
                f"got {start}"
            )
        answers.append((_field(path, answer_place, answer, "text", str), start))
    return Question(identifier, text, context, tuple(answers))


def _field(path: Path, place: str, item: Any, name: str, kind: type) -> Any:
    where = f"{path}: {place or 'the file'}"
    if not isinstance(item, dict) or name not in item:
        raise DataError(f"{where}: missing field {name!r}")
    if not isinstance(item[name], kind) or isinstance(item[name], bool):
        raise DataError(f"{where}: {name} must be {kind.__name__}, got {item[name]!r}"[:300])
    if kind is str:
        _check_text(where, name, item[name])
    return item[name]


def _check_text(where: str, name: str, text: str) -> None:
    """Raise DataError for a lone surrogate, which JSON can contain but UTF-8 files and tokenizers cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: {name} holds {text[error.start]!a} at character {error.start}, half of a surrogate pair"
        ) from error


def _items(path: Path, place: str, item: Any, name: str) -> list[tuple[str, Any]]:
    values = _field(path, place, item, name, list)
    prefix = f"{place}.{name}" if place else name
    return [(f"{prefix}[{index}]", value) for index, value in enumerate(values)]
