"""Convert examples to model inputs: features, computed once per list of examples, and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ..data.batching import PaddingCollator
from ..data.examples import Example
from .base import Encoding, Feature, Task

# Maps indices in a list of features to the model's arguments.
Batches = Callable[[Sequence[int]], dict[str, Tensor]]


class ModelInputs:
    """Features and batches of token ids for a task.

    Args:
        task: encodes the examples.
        tokenizer: the model's tokenizer.
        encoding: the maximum length, and the sub-words that carry a word's label.
    """

    def __init__(self, task: Task, tokenizer: PreTrainedTokenizerBase, encoding: Encoding) -> None:
        self.task = task
        self.tokenizer = tokenizer
        self.encoding = encoding
        # Keep the examples with their features: the key is their id(), which must not be reused.
        self._features: dict[tuple[int, bool], tuple[Sequence[Example], list[Feature]]] = {}

    def features(self, examples: Sequence[Example], *, training: bool) -> list[Feature]:
        """Return the features of `examples`; the same list is encoded only once."""
        key = (id(examples), training)
        if key not in self._features:
            encoded = self.task.encode(examples, self.tokenizer, self.encoding, training=training)
            self._features[key] = (examples, encoded)
        return self._features[key][1]

    def batches(self, features: Sequence[Feature], config: PreTrainedConfig) -> Batches:
        """Return a function from indices in `features` to a padded batch, for a model with `config`."""
        collate = PaddingCollator(self.tokenizer)
        return lambda places: collate([features[place].inputs for place in places])
