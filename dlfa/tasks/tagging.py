"""Tagging: one label per word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.alignment import special_tokens, windows, word_pieces
from ..data.examples import TaggedSentence
from ..data.ignored_label import IGNORED
from ..data.token_files import read_token_file
from . import metrics
from .base import Encoding, Feature, Task, decides, label_name

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class TaggingTask(Task[TaggedSentence]):
    """Prediction of a tag for every word of a sentence.

    A sentence longer than the limit is split at word boundaries and the parts are run separately. Their scores are
    joined per word before predictions and metrics are computed.

    Attributes:
        spans: whether the tags are IOB2 and the metric of record is the F1 of spans; otherwise it is the F1 of tokens.
        tag_column: the column of tags on the Hub.
    """

    spans: bool
    tag_column: str

    kind = "token"
    model_class = "DLFAForTokenClassification"

    def read_file(self, path: Path) -> list[TaggedSentence]:
        """See `dlfa.data.token_files.read_token_file`."""
        return read_token_file(path, self.labels)

    def from_hub(self, row: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> TaggedSentence:
        """Read the columns `tokens` and `tag_column`."""
        tags = tuple(label_name(tag, names.get(self.tag_column), self.labels) for tag in row[self.tag_column])
        return TaggedSentence(tuple(row["tokens"]), tags)

    def encode(
        self,
        examples: Sequence[TaggedSentence],
        tokenizer: PreTrainedTokenizerBase,
        encoding: Encoding,
        *,
        training: bool,
    ) -> list[Feature]:
        """Return one feature per window; `target` is (first word, positions of the words in the model's logits)."""
        before, after = special_tokens(tokenizer)
        room = encoding.max_length - len(before) - len(after)
        ids = {label: index for index, label in enumerate(self.labels)}
        features = []
        for index, (example, pieces) in enumerate(
            zip(examples, word_pieces(tokenizer, [example.words for example in examples]), strict=True)
        ):
            for start, stop in windows(pieces, room):
                kept = [word[:room] for word in pieces[start:stop]]
                labels = [ids[tag] for tag in example.tags[start:stop]] if training else None
                inputs, positions = _window(kept, before, after, labels, encoding.label_subword)
                features.append(Feature(inputs, index, (start, positions)))
        return features

    def feature_scores(self, feature: Feature, outputs: Mapping[str, np.ndarray], row: int) -> np.ndarray | None:
        """Return (words of the window, labels) float32 logits."""
        logits = outputs["logits"][row][feature.target[1]]
        return logits if decides(logits) else None

    def example_scores(
        self,
        examples: Sequence[TaggedSentence],
        features: Sequence[Feature],
        scores: Sequence[np.ndarray],
    ) -> list[np.ndarray]:
        """Return (words, labels) float32 log probabilities of each sentence."""
        import numpy as np
        from scipy.special import log_softmax

        joined = [np.zeros((len(example.words), len(self.labels)), dtype=np.float32) for example in examples]
        for feature, logits in zip(features, scores, strict=True):
            start, positions = feature.target
            joined[feature.example][start : start + len(positions)] = log_softmax(logits, axis=-1)
        return joined

    def decide(self, examples: Sequence[TaggedSentence], scores: Sequence[np.ndarray]) -> list[tuple[str, ...]]:
        """Return the best tag of each word."""
        return [tuple(self.labels[best] for best in sentence.argmax(axis=-1)) for sentence in scores]

    def score(
        self, examples: Sequence[TaggedSentence], predictions: Sequence[Sequence[str]], language: str
    ) -> dict[str, float]:
        """See `dlfa.tasks.metrics`; token metrics are accompanied by XTREME's, as "xtreme_span_f1"."""
        gold = [example.tags for example in examples]
        if self.spans:
            return metrics.span_metrics(gold, predictions)
        return {**metrics.token_metrics(gold, predictions), "xtreme_span_f1": metrics.span_f1(gold, predictions)}

    def prediction_text(self, examples: Sequence[TaggedSentence], predictions: Sequence[Sequence[str]]) -> str:
        """Return one tag per line, with a blank line after each sentence."""
        return "".join("".join(f"{tag}\n" for tag in tags) + "\n" for tags in predictions)


def _window(
    pieces: list[list[int]], before: list[int], after: list[int], labels: list[int] | None, label_subword: str
) -> tuple[dict[str, list[int]], list[int]]:
    """Return the model's inputs for one window, and the position of each word in its logits."""
    input_ids, word_index = list(before), [-1] * len(before)
    first, last = [], []
    for word, ids in enumerate(pieces):
        first.append(len(input_ids))
        input_ids += ids
        word_index += [word] * len(ids)
        last.append(len(input_ids) - 1)
    input_ids += after
    inputs = {"input_ids": input_ids, "attention_mask": [1] * len(input_ids)}
    if label_subword == "mean":
        inputs["word_index"] = word_index + [-1] * len(after)
        if labels is not None:
            inputs["labels"] = labels
        return inputs, list(range(len(pieces)))
    positions = first if label_subword == "first" else last
    if labels is not None:
        inputs["labels"] = [IGNORED] * len(input_ids)
        for position, label in zip(positions, labels, strict=True):
            inputs["labels"][position] = label
    return inputs, positions
