"""Extractive question answering: find the span of a passage that answers a question."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..data.examples import Question
from ..data.squad_files import read_squad_file
from .answer_metrics import answer_metrics, mlqa_tokens, squad_tokens
from .base import Encoding, Feature, Task, decides

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

# The values of XTREME's scripts; all but the last two in tokens.
WINDOW_STEP = 128
LONGEST_QUESTION = 64
LONGEST_ANSWER = 30
CANDIDATES = 20  # number of starts, ends and spans considered


class Span(NamedTuple):
    """A candidate answer: the sum of its start and end logits, and its character positions in the passage."""

    score: float
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class QuestionAnsweringTask(Task[Question]):
    """Prediction of the best span of the passage for each question.

    A passage that does not fit into one sequence with its question is split into windows that start every 128 tokens
    (or half a window, if that is less). The answer is the span with the highest score over all windows.

    Attributes:
        mlqa_words: compare answers as MLQA does, by the articles and words of each language; else as SQuAD 1.1.
    """

    mlqa_words: bool = False

    kind = "qa"
    model_class = "DLFAForQuestionAnswering"
    prediction_suffix = ".json"

    def read_file(self, path: Path) -> list[Question]:
        """See `dlfa.data.squad_files.read_squad_file`."""
        return read_squad_file(path)

    def from_hub(self, row: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> Question:
        """Read SQuAD's columns."""
        answers = zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)
        return Question(row["id"], row["question"], row["context"], tuple(answers))

    def encode(
        self, examples: Sequence[Question], tokenizer: PreTrainedTokenizerBase, encoding: Encoding, *, training: bool
    ) -> list[Feature]:
        """Return one feature per window; `target` is the first passage token's position, and the tokens' characters.

        The latter are (passage tokens, 2) int32, where each token begins and ends in the passage. In training, the
        label of a window without the answer is its first token. Questions whose answer is blank, or does not occur in
        their passage, have no feature.
        """
        import numpy as np

        spans = [_answer_span(example) if training else None for example in examples]
        usable = [index for index, span in enumerate(spans) if span is not None or not training]
        if not usable:
            return []
        questions = _shortened(tokenizer, [examples[index].question.lstrip() for index in usable])
        passages = [examples[index].context for index in usable]
        encoded = tokenizer(questions, passages, return_offsets_mapping=True, verbose=False)
        offsets = encoded.pop("offset_mapping")
        features = []
        for row, index in enumerate(usable):
            passage = [place for place, side in enumerate(encoded.sequence_ids(row)) if side == 1]
            first, after = (passage[0], passage[-1] + 1) if passage else (len(offsets[row]),) * 2
            room = encoding.max_length - first - (len(offsets[row]) - after)
            for start, stop in _windows(first, after, room):
                inputs: dict[str, Any] = {
                    name: [*values[row][:first], *values[row][start:stop], *values[row][after:]]
                    for name, values in encoded.items()
                }
                characters = [_without_spaces(examples[index].context, *place) for place in offsets[row][start:stop]]
                answer = spans[index]
                if answer is not None:
                    places = _token_span(characters, answer)
                    begin, end = (0, 0) if places is None else (first + places[0], first + places[1])
                    inputs |= {"start_positions": begin, "end_positions": end}
                positions = np.array(characters, dtype=np.int32).reshape(-1, 2)
                features.append(Feature(inputs, index, (first, positions)))
        return features

    def feature_scores(self, feature: Feature, outputs: Mapping[str, np.ndarray], row: int) -> list[Span] | None:
        """Return the best spans of one window, best first."""
        first, characters = feature.target[0], feature.target[1].tolist()
        starts = outputs["start_logits"][row][first : first + len(characters)]
        ends = outputs["end_logits"][row][first : first + len(characters)]
        if not (decides(starts) and decides(ends)):
            return None
        spans = [
            Span(float(starts[begin] + ends[end]), characters[begin][0], characters[end][1])
            for begin in starts.argsort()[::-1][:CANDIDATES]
            for end in ends.argsort()[::-1][:CANDIDATES]
            if begin <= end < begin + LONGEST_ANSWER and characters[begin][0] < characters[end][1]
        ]
        return sorted(spans, reverse=True)[:CANDIDATES]

    def example_scores(
        self, examples: Sequence[Question], features: Sequence[Feature], scores: Sequence[list[Span]]
    ) -> list[list[Span]]:
        """Return the best spans of each question over its windows, best first."""
        joined: list[list[Span]] = [[] for _ in examples]
        for feature, spans in zip(features, scores, strict=True):
            joined[feature.example] += spans
        return [sorted(set(spans), reverse=True)[:CANDIDATES] for spans in joined]

    def decide(self, examples: Sequence[Question], scores: Sequence[list[Span]]) -> list[str]:
        """Return the text of each question's best span; "" if there is none."""
        return [
            example.context[spans[0].start : spans[0].stop].strip() if spans else ""
            for example, spans in zip(examples, scores, strict=True)
        ]

    def score(self, examples: Sequence[Question], predictions: Sequence[str], language: str) -> dict[str, float]:
        """Return F1 over words, and exact match."""
        normalise = functools.partial(mlqa_tokens, language=language) if self.mlqa_words else squad_tokens
        gold = [[text for text, _ in example.answers] for example in examples]
        return answer_metrics(gold, predictions, normalise)

    def prediction_text(self, examples: Sequence[Question], predictions: Sequence[str]) -> str:
        """Return a JSON object of answers by question id."""
        answers = {example.id: answer for example, answer in zip(examples, predictions, strict=True)}
        return json.dumps(answers, ensure_ascii=False, indent=1) + "\n"


def _without_spaces(context: str, begin: int, end: int) -> tuple[int, int]:
    """Return a token's character positions without surrounding spaces, which SentencePiece includes.

    This makes positions comparable between tokenizers, because ensembles match answers by their positions.
    """
    while begin < end and context[begin].isspace():
        begin += 1
    while begin < end and context[end - 1].isspace():
        end -= 1
    return begin, end


def _windows(first: int, stop: int, room: int) -> Iterator[tuple[int, int]]:
    """Yield the passage's tokens first..stop-1 in windows of `room`, WINDOW_STEP (at most half a window) apart."""
    if room < 1:
        raise ValueError(f"max_length must leave room for the passage beside the question, got {room} to spare")
    start = first
    while True:
        yield start, min(start + room, stop)
        if start + room >= stop:
            return
        start += min(WINDOW_STEP, max(1, room // 2))


def _shortened(tokenizer: PreTrainedTokenizerBase, questions: list[str]) -> list[str]:
    """Return the questions, truncated to LONGEST_QUESTION tokens."""
    encoded = tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return [
        question if len(offsets) <= LONGEST_QUESTION else question[: offsets[LONGEST_QUESTION - 1][1]]
        for question, offsets in zip(questions, encoded["offset_mapping"], strict=True)
    ]


def _answer_span(example: Question) -> tuple[int, int] | None:
    """Return the first answer's (start, end), of its nearest occurrence if misplaced; None if blank or not there."""
    text, start = example.answers[0]
    if not text.strip():
        return None
    if example.context[start : start + len(text)] != text:
        places = [place for place in range(len(example.context)) if example.context.startswith(text, place)]
        if not places:
            return None
        start = min(places, key=lambda place: abs(place - start))
    return _without_spaces(example.context, start, start + len(text))


def _token_span(characters: Sequence[tuple[int, int]], answer: tuple[int, int]) -> tuple[int, int] | None:
    """Return the first and last token of the answer in a window; None unless it is entirely inside."""
    if not characters or characters[0][0] > answer[0] or characters[-1][1] < answer[1]:
        return None
    inside = [place for place, (start, stop) in enumerate(characters) if start < answer[1] and stop > answer[0]]
    return (inside[0], inside[-1]) if inside else None
