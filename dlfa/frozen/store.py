"""The hidden states of a frozen encoder, stored on disk and computed when missing."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ..data.batching import PaddingCollator, by_length
from ..models.modeling import DLFAModel
from ..processes import process_state
from ..runs.run_config import EVAL_BATCH_SIZE, STATES_DTYPES
from ..tasks import Feature
from .fingerprints import encoder_fingerprint, sequences_fingerprint, weights_fingerprint
from .layer_files import open_layer, remove_abandoned, write_layers

LAST = -1  # index of the encoder's last_hidden_state among the layers


@dataclass(frozen=True)
class SequenceStates:
    """States of several sequences: a memory-mapped (tokens, E) array per layer, and where each sequence starts."""

    layers: dict[int, np.ndarray]
    starts: np.ndarray
    lengths: np.ndarray

    def padded(self, layer: int, places: Sequence[int]) -> torch.Tensor:
        """Return (B, longest, E) float32 states of the sequences at `places`, zero at padding."""
        states = self.layers[layer]
        batch = torch.zeros(len(places), int(self.lengths[list(places)].max()), states.shape[1])
        rows = batch.numpy()
        for row, place in enumerate(places):
            start, length = self.starts[place], self.lengths[place]
            rows[row, :length] = states[start : start + length]
        return batch


class StateStore:
    """Hidden states of one encoder.

    Files are stored in `folder/<encoder>/<sequences>-<dtype>/`, one per layer. <encoder> is a hash of the encoder's
    configuration, weights and precision and of the versions of torch and transformers. <sequences> is a hash of the
    token ids. Runs that differ only in labels, heads, fusions and seeds therefore share files, and a run that needs
    more layers computes only those. Sequences are computed and stored in the order of their length. All files may be
    deleted; they are then computed again.

    Args:
        encoder: a model without fusion around the encoder, on the device to run on.
        tokenizer: pads the batches.
        folder: folder of the files.
        dtype: "float32", which stores the states unchanged, or "float16", in half the space.
        batch_size: sequences per encoder batch. With an evaluation's batch size and float32, cached states reproduce
            that evaluation's results bit for bit.
        autocast: bfloat16 or float16 for autocast; None runs in the encoder's own dtype.

    Raises:
        ValueError: an unknown dtype.
    """

    def __init__(
        self,
        encoder: DLFAModel,
        tokenizer: PreTrainedTokenizerBase,
        folder: Path,
        *,
        dtype: str = "float32",
        batch_size: int = EVAL_BATCH_SIZE,
        autocast: torch.dtype | None = None,
    ) -> None:
        if dtype not in STATES_DTYPES:
            raise ValueError(f"states_dtype must be one of {', '.join(STATES_DTYPES)}, got {dtype!r}")
        self.encoder = encoder
        self.dtype = np.dtype(dtype)
        self.batch_size = batch_size
        self.autocast = autocast
        self.weights_sha256 = weights_fingerprint(encoder.encoder)  # also recorded in results.json
        self.folder = folder / encoder_fingerprint(encoder.encoder, self.weights_sha256, autocast)[:20]
        self._collate = PaddingCollator(tokenizer)
        # Keep the features with their states: the key is their id(), which must not be reused.
        self._opened: dict[int, tuple[Sequence[Feature], SequenceStates, Path]] = {}

    def missing_bytes(self, lists: Iterable[Sequence[Feature]], layers: Sequence[int]) -> int:
        """Return the size of those states of `lists`, of the last layer and the lower `layers`, not yet on disk."""
        sizes: dict[Path, int] = {}  # by file: lists of the same sequences share theirs
        for features in lists:
            _, states, folder = self._open(features)
            shape = self._shape(states)
            for layer in {LAST, *layers}.difference(states.layers):
                if open_layer(_file(folder, layer), shape, self.dtype) is None:
                    sizes[_file(folder, layer)] = shape[0] * shape[1] * self.dtype.itemsize
        return sum(sizes.values())

    def states(
        self,
        features: Sequence[Feature],
        layers: Sequence[int],
        *,
        on_stored: Callable[[int], object] | None = None,
    ) -> SequenceStates:
        """Return the states of the last layer and the lower `layers`, computing those that are not on disk.

        With several processes, one per machine computes.

        Args:
            features: the sequences.
            layers: numbers of lower layers.
            on_stored: called with a number of bytes whenever that many more have been written.

        Raises:
            ValueError: `dtype` cannot represent the states, the folder cannot be created, or the disk is full.
            OSError: a file cannot be written, or cannot be read after writing.
        """
        features_, states, folder = self._open(features)
        missing = [layer for layer in dict.fromkeys((LAST, *layers)) if layer not in states.layers]
        if missing:
            shape = self._shape(states)
            with process_state().local_main_process_first():
                found = {layer: open_layer(_file(folder, layer), shape, self.dtype) for layer in missing}
                absent = [layer for layer, rows in found.items() if rows is None]
                if absent:
                    self._compute(features_, states, absent, folder, on_stored)
                    found |= {layer: open_layer(_file(folder, layer), shape, self.dtype) for layer in absent}
            for layer, rows in found.items():
                if rows is None:
                    raise OSError(f"{_file(folder, layer)} was written and cannot be read")
                states.layers[layer] = rows
        return states

    def make_room(self, needed: int) -> None:
        """Make the folder of the states, remove what killed processes left, and check that `needed` bytes are free.

        Raises:
            ValueError: it cannot be made, or fewer are free.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"the hidden states cannot be kept in {self.folder}: {error.strerror}; choose another --states-cache"
            ) from error
        remove_abandoned(self.folder.parent)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise ValueError(
                f"the hidden states need {needed / 1e9:.1f} GB in {self.folder.parent}, where {free / 1e9:.1f} GB are "
                "free; choose another --states-cache, or --states-dtype float16"
            )

    def _shape(self, states: SequenceStates) -> tuple[int, int]:
        return int(states.lengths.sum()), self.encoder.config.hidden_size

    def _open(self, features: Sequence[Feature]) -> tuple[Sequence[Feature], SequenceStates, Path]:
        if id(features) not in self._opened:
            lengths = np.array([len(feature.inputs["input_ids"]) for feature in features], dtype=np.int64)
            order = np.concatenate([np.array(part) for part in by_length(lengths.tolist(), self.batch_size)])
            starts = np.empty_like(lengths)
            starts[order] = np.concatenate([[0], np.cumsum(lengths[order])[:-1]])
            folder = self.folder / f"{sequences_fingerprint(features)[:20]}-{self.dtype}"
            self._opened[id(features)] = (features, SequenceStates({}, starts, lengths), folder)
        return self._opened[id(features)]

    def _compute(
        self,
        features: Sequence[Feature],
        states: SequenceStates,
        layers: Sequence[int],
        folder: Path,
        on_stored: Callable[[int], object] | None,
    ) -> None:
        shape = self._shape(states)
        bytes_per_token = len(layers) * shape[1] * self.dtype.itemsize
        self.make_room(shape[0] * bytes_per_token)
        model, device = self.encoder.eval(), self.encoder.device
        lower = [layer for layer in layers if layer != LAST]
        batches = by_length(states.lengths.tolist(), self.batch_size)
        casting = torch.autocast(device.type, self.autocast) if self.autocast else contextlib.nullcontext()
        with (
            torch.inference_mode(),
            casting,
            write_layers([_file(folder, layer) for layer in layers], shape, self.dtype) as writer,
        ):
            for batch in batches:
                names = ("input_ids", "attention_mask", "token_type_ids")
                inputs = [{n: features[i].inputs[n] for n in names if n in features[i].inputs} for i in batch]
                tensors = {name: values.to(device) for name, values in self._collate(inputs).items()}
                found = model.encoder_states(**tensors, layers=lower)
                real = tensors["attention_mask"].bool()
                by_layer = dict(zip((*lower, LAST), (*found.lowers, found.last), strict=True))
                writer.append([by_layer[layer][real].float().cpu().numpy() for layer in layers])
                if on_stored is not None:
                    on_stored(int(real.sum()) * bytes_per_token)


def _file(folder: Path, layer: int) -> Path:
    return folder / ("last.npy" if layer == LAST else f"layer-{layer}.npy")
