"""Classification of text pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.examples import LabelledText
from ..data.text_files import read_text_file
from . import metrics
from .base import Encoding, Feature, Task, decides, label_name

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class PairTask(Task[LabelledText]):
    """Prediction of one label per text pair; a pair that is too long is truncated at the end of the longer text.

    Attributes:
        columns: names of the two text columns, on disk and on the Hub.
        label_column: the column of labels on the Hub.
    """

    columns: tuple[str, str]
    label_column: str = "label"

    kind = "pair"
    model_class = "DLFAForSequenceClassification"

    def read_file(self, path: Path) -> list[LabelledText]:
        """See `dlfa.data.text_files.read_text_file`."""
        return read_text_file(path, self.columns, self.labels)

    def from_hub(self, row: Mapping[str, Any], names: Mapping[str, Sequence[str]]) -> LabelledText:
        """Read the text columns and `label_column`."""
        label = label_name(row[self.label_column], names.get(self.label_column), self.labels)
        return LabelledText(tuple(row[column] for column in self.columns), label)

    def encode(
        self,
        examples: Sequence[LabelledText],
        tokenizer: PreTrainedTokenizerBase,
        encoding: Encoding,
        *,
        training: bool,
    ) -> list[Feature]:
        """Return one feature per example.

        Raises:
            ValueError: `max_length` has no room for a token of each text.
        """
        if not examples:
            return []
        needed = tokenizer.num_special_tokens_to_add(pair=True) + 2
        if encoding.max_length < needed:
            raise ValueError(
                f"max_length must be at least {needed}, to leave room for a token of each text beside the special "
                f"tokens, got {encoding.max_length}"
            )
        first, second = ([example.texts[side] for example in examples] for side in range(2))
        encoded = tokenizer(first, second, truncation=True, max_length=encoding.max_length)
        features = []
        for index, example in enumerate(examples):
            inputs = {name: values[index] for name, values in encoded.items()}
            if training:
                inputs["labels"] = self.labels.index(str(example.label))
            features.append(Feature(inputs, index))
        return features

    def feature_scores(self, feature: Feature, outputs: Mapping[str, np.ndarray], row: int) -> np.ndarray | None:
        """Return (labels,) float32 logits."""
        logits = outputs["logits"][row]
        return logits if decides(logits) else None

    def example_scores(
        self,
        examples: Sequence[LabelledText],
        features: Sequence[Feature],
        scores: Sequence[np.ndarray],
    ) -> list[np.ndarray]:
        """Return (labels,) float32 log probabilities of each example."""
        from scipy.special import log_softmax

        return [log_softmax(logits) for logits in scores]

    def decide(self, examples: Sequence[LabelledText], scores: Sequence[np.ndarray]) -> list[str]:
        """Return the best label of each example."""
        return [self.labels[int(values.argmax())] for values in scores]

    def score(self, examples: Sequence[LabelledText], predictions: Sequence[str], language: str) -> dict[str, float]:
        """Return accuracy, and F1 averaged over the labels that occur."""
        return metrics.class_metrics([str(example.label) for example in examples], predictions)

    def prediction_text(self, examples: Sequence[LabelledText], predictions: Sequence[str]) -> str:
        """Return one label per line."""
        return "".join(f"{label}\n" for label in predictions)
