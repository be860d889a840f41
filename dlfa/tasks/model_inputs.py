"""From examples to what a model is called with: features, made once for each list of examples, and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ..data.batching import PaddingCollator
from ..data.examples import Example
from .base import Encoding, Feature, Task

# From places in a list of features to the model's arguments.
Batches = Callable[[Sequence[int]], dict[str, Tensor]]


class ModelInputs:
    """Features and batches of token ids for a task.

    Args:
        task: encodes the examples.
        tokenizer: the model's.
        encoding: the longest sequence, and where a word's label sits.
    """

    def __init__(self, task: Task, tokenizer: PreTrainedTokenizerBase, encoding: Encoding) -> None:
        self.task = task
        self.tokenizer = tokenizer
        self.encoding = encoding
        # The examples are kept beside their features: their identity is the key, which may not be used again.
        self._features: dict[tuple[int, bool], tuple[Sequence[Example], list[Feature]]] = {}

    def features(self, examples: Sequence[Example], *, training: bool) -> list[Feature]:
        """The features of `examples`; the same list of examples is encoded once."""
        key = (id(examples), training)
        if key not in self._features:
            encoded = self.task.encode(examples, self.tokenizer, self.encoding, training=training)
            self._features[key] = (examples, encoded)
        return self._features[key][1]

    def batches(self, features: Sequence[Feature], config: PreTrainedConfig) -> Batches:
        """What makes a padded batch from places in `features`, for a model of `config`."""
        collate = PaddingCollator(self.tokenizer)
        return lambda places: collate([features[place].inputs for place in places])
