"""Batches of cached hidden states in place of token ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ..data.batching import PaddingCollator
from ..data.examples import Example
from ..tasks import Encoding, Feature, Task
from ..tasks.model_inputs import Batches, ModelInputs
from .store import LAST, StateStore

_OF_THE_ENCODER = ("input_ids", "token_type_ids")


class StateInputs(ModelInputs):
    """`ModelInputs` whose batches hold cached states, the arguments of `StatesHead`.

    Args:
        task, tokenizer, encoding: see `ModelInputs`.
        store: the source of the states.
    """

    def __init__(self, task: Task, tokenizer: PreTrainedTokenizerBase, encoding: Encoding, store: StateStore) -> None:
        super().__init__(task, tokenizer, encoding)
        self.store = store

    def compute(self, examples: Iterable[tuple[Sequence[Example], bool]], layers: Sequence[int]) -> None:
        """Compute and store the states of lists of examples, given with "is for training", in one pass per list."""
        for part, training in examples:
            if part:
                self.store.states(self.features(part, training=training), layers)

    def batches(self, features: Sequence[Feature], config: PreTrainedConfig) -> Batches:
        """Return batches with `last`, `lower_0`, `lower_1`, ... (B, T, E) float32 instead of the token ids."""
        collate = PaddingCollator(self.tokenizer)
        lowers: tuple[int, ...] = config.lower_layers
        layers = (LAST, *lowers)
        states = self.store.states(features, lowers)
        names = ("last", *(f"lower_{number}" for number in range(len(lowers))))

        def batch(places: Sequence[int]) -> dict[str, Tensor]:
            kept = [
                {name: value for name, value in features[place].inputs.items() if name not in _OF_THE_ENCODER}
                for place in places
            ]
            return collate(kept) | {n: states.padded(la, places) for n, la in zip(names, layers, strict=True)}

        return batch
