"""Prediction for new text with a saved model."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

from ..data.examples import DataError, Example, LabelledText, TaggedSentence
from ..data.lines import columns, example_lines, numbered_lines
from ..data.squad_files import read_squad_file
from ..data.text_files import unquoted
from ..progress import advance_by_share, progress_bar
from ..runs.run_config import EVAL_BATCH_SIZE
from ..tasks import PairTask, Task
from .saved_runs import SavedRun

FORMATS = ("auto", "text", "tokens")

# Examples labelled at a time. Those of a batch are of similar length, for which some hundred batches suffice, while the
# scores of a million sentences take gigabytes.
BLOCK = 10_000


def read_input(task: Task, path: Path, input_format: str = "auto") -> list[Example]:
    """Read the input of a prediction.

    Args:
        task: tagging reads text (one sentence per line, words separated by spaces) or tokens (one per line, a blank
            line after each sentence, further columns ignored). Classification reads the task's columns, with or
            without a label. Question answering reads SQuAD's JSON, with or without answers.
        path: a UTF-8 file.
        input_format: for tagging: "text", "tokens" or "auto". "auto" means tokens if every line contains a tab or is a
            single word, and the file contains tabs or has blank lines between others.

    Raises:
        DataError: a line cannot be read (the message has file and line), the file has no example, or with "auto" it is
            neither text nor tokens.
        ValueError: an unknown format, or one for a task that is not tagging.
    """
    if input_format not in FORMATS:
        raise ValueError(f"input format must be one of {', '.join(FORMATS)}, got {input_format!r}")
    if input_format != "auto" and task.kind != "token":
        raise ValueError(f"--input-format is for tagging, got the task {task.name}")
    if task.kind == "qa":
        return list(read_squad_file(path, need_answers=False))
    examples: list[Example]
    if isinstance(task, PairTask):
        examples = list(_read_pairs(task, path))
    else:
        examples = list(_read_sentences(path, input_format))
    if not examples:
        raise DataError(f"{path}: the file holds nothing to predict")
    return examples


def _read_pairs(task: PairTask, path: Path) -> list[LabelledText]:
    examples = []
    for number, line in example_lines(path):
        fields = columns(path, number, line, task.columns, optional="label")
        examples.append(LabelledText(tuple(map(unquoted, fields[: len(task.columns)]))))
    return examples


def _read_sentences(path: Path, input_format: str) -> list[TaggedSentence]:
    lines = list(numbered_lines(path))
    if input_format == "auto":
        input_format = _told_format(path, lines)
    if input_format == "text":
        return [TaggedSentence(tuple(line.split())) for _, line in lines if line.strip()]
    sentences: list[TaggedSentence] = []
    words: list[str] = []
    for number, line in (*lines, (0, "")):
        if line.strip(" "):
            words.append(columns(path, number, line.split("\t")[0], ("token",))[0])
        elif words:
            sentences.append(TaggedSentence(tuple(words)))
            words = []
    return sentences


def _told_format(path: Path, lines: Sequence[tuple[int, str]]) -> str:
    """Which of text and tokens a tagger's input is.

    Raises:
        DataError: some lines are as tokens have them, others as text does.
    """
    filled = [(number, line) for number, line in lines if line.strip()]
    tabs = [number for number, line in filled if "\t" in line]
    several = [number for number, line in filled if "\t" not in line and len(line.split()) > 1]
    if tabs and several:
        raise DataError(
            f"{path}: line {tabs[0]} holds a tab, as tokens do, and line {several[0]} words without one, as text does; "
            "give --input-format tokens or text"
        )
    blank_between = any(not line.strip(" ") for _, line in lines[:-1])
    return "tokens" if tabs or (blank_between and not several) else "text"


def predict(
    run: SavedRun, examples: Sequence[Example], batch_size: int = EVAL_BATCH_SIZE, *, progress: bool = False
) -> Generator[str, None, None]:
    """Predict block by block, and yield the output text of each.

    Args:
        run: the model.
        examples: the examples.
        batch_size: sequences per batch.
        progress: show a bar on standard error.

    Yields:
        Tagging: `token<TAB>tag` lines with a blank line after each sentence. Classification: the input's columns
        followed by the label. Question answering: a JSON object of answers by question id, at the end.

    Raises:
        FloatingPointError: see `dlfa.evaluation.evaluate.example_scores`.
    """
    task = run.task
    answers: list[str] = []
    with progress_bar(shown=progress, transient=True) as bar:
        todo = bar.add_task("predict", total=len(examples))
        for start in range(0, len(examples), BLOCK):
            block = examples[start : start + BLOCK]
            show = advance_by_share(bar, todo, start, len(block))
            predictions = task.decide(block, run.scores(block, batch_size, show))
            if task.kind == "qa":
                answers += predictions
            else:
                yield "".join(map(_with_labels, block, predictions))
    if task.kind == "qa":
        yield task.prediction_text(examples, answers)


def _with_labels(example: Example, prediction: str | tuple[str, ...]) -> str:
    """Return the lines of one example, each word or pair of texts with its label as the last column."""
    if isinstance(example, TaggedSentence):
        return "".join(f"{word}\t{tag}\n" for word, tag in zip(example.words, prediction, strict=True)) + "\n"
    return "\t".join((*example.texts, prediction)) + "\n"  # type: ignore[union-attr, arg-type]
