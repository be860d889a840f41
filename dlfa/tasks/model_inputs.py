"""Convert examples to model inputs: features, computed once per list of examples, and batches of them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence

from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ..data.batching import PaddingCollator
from ..data.examples import Example
from ..processes import process_state
from .base import Encoding, Feature, Task

_log = logging.getLogger(__name__)

# Examples that the tokenizer is given at a time: its encodings take several times the memory of the features.
BLOCK = 1000

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

    def features(
        self,
        examples: Sequence[Example],
        *,
        training: bool,
        on_encoded: Callable[[int], object] | None = None,
    ) -> list[Feature]:
        """Return the features of `examples`; the same list is encoded only once.

        How many of the training examples have no feature is logged.

        Args:
            examples: the examples.
            training: add the inputs of the loss.
            on_encoded: called with a number of examples whenever that many more have been encoded.
        """
        key = (id(examples), training)
        if key not in self._features:
            found: list[Feature] = []
            for start in range(0, len(examples), BLOCK):
                block = examples[start : start + BLOCK]
                encoded = self.task.encode(block, self.tokenizer, self.encoding, training=training)
                found += [dataclasses.replace(feature, example=start + feature.example) for feature in encoded]
                if on_encoded is not None:
                    on_encoded(len(block))
            left_out = len(examples) - len({feature.example for feature in found})
            if left_out and training and process_state().is_main_process:
                _log.warning(
                    f"left out of training: {left_out} of {len(examples)} examples; a question needs an answer that "
                    "its passage holds"
                )
            self._features[key] = (examples, found)
        return self._features[key][1]

    def batches(self, features: Sequence[Feature], config: PreTrainedConfig) -> Batches:
        """Return a function from indices in `features` to a padded batch, for a model with `config`."""
        collate = PaddingCollator(self.tokenizer)
        return lambda places: collate([features[place].inputs for place in places])
