"""Batches of cached hidden states in place of token ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.progress import DownloadColumn, Progress
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ..data.batching import PaddingCollator
from ..data.examples import Example
from ..processes import process_state
from ..progress import progress_bar
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

    def compute(
        self, examples: Iterable[tuple[Sequence[Example], bool]], layers: Sequence[int], *, progress: bool = False
    ) -> None:
        """Compute and store the states of lists of examples, given with "is for training", in one pass per list.

        Args:
            examples: the lists.
            layers: numbers of the lower layers.
            progress: show a bar on standard error.

        Raises:
            ValueError, OSError: the states of all lists together do not fit on the disk; see also `StateStore.states`.
        """
        lists = [self.features(part, training=training) for part, training in examples]
        lists = [features for features in lists if features]
        missing = self.store.missing_bytes(lists, layers)
        if missing:
            self.store.make_room(missing)
        process_state().wait_for_everyone()  # what one has written would be missing from the room that another sees
        with progress_bar(*Progress.get_default_columns(), DownloadColumn(), shown=progress and missing > 0) as bar:
            todo = bar.add_task("hidden states", total=missing)
            for features in lists:
                self.store.states(features, layers, on_stored=lambda count: bar.advance(todo, count))

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
