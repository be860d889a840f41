"""The states of every layer for a language's examples, as input to probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.batching import PaddingCollator, by_length
from ..data.examples import Example, gold_labels
from ..models.words import mean_of_subwords, mean_of_tokens
from ..tasks import Encoding, Feature
from .analyzed_model import AnalyzedModel
from .layer_contributions import FusionParts, fusion_parts

BATCH_SIZE = 32  # sequences


@dataclass(frozen=True)
class LanguageStates:
    """States of one language.

    Attributes:
        units: (layers, N, E) float32, one state per label: words in order, or for each text the state that is
            classified (first token, or mean of all). N is 0 for question answering.
        labels: N gold labels.
        lengths: number of units per example.
        sentences: (layers, S, E) float32, the mean over each sequence's tokens without special tokens.
    """

    units: NDArray[np.float32]
    labels: list[str]
    lengths: list[int]
    sentences: NDArray[np.float32]


# Called with each batch: the parts of the fusion's output, and the mask (B, T) bool of tokens where it is used.
Watcher = Callable[[FusionParts, Tensor], None]


def language_states(
    analyzed: AnalyzedModel, examples: Sequence[Example], watch: Watcher | None = None
) -> LanguageStates:
    """Run the encoder and the fusion over `examples` once and return the states of every layer that probes need.

    Args:
        analyzed: the model.
        examples: labelled examples of one language.
        watch: called with every batch's fusion.

    Returns:
        The states of the layers in the order of `analyzed.layer_names`.
    """
    task = analyzed.task
    # The encoding for "mean" maps every sub-word to its word, which also determines the first and last sub-words.
    features = task.encode(examples, analyzed.tokenizer, Encoding(analyzed.max_length, "mean"), training=False)
    collate = PaddingCollator(analyzed.tokenizer)
    units: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(features)
    sentences: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(features)
    for places in by_length([len(feature.inputs["input_ids"]) for feature in features], BATCH_SIZE):
        inputs = collate([features[place].inputs for place in places])
        inputs = {name: value.to(analyzed.model.device) for name, value in inputs.items()}
        layers, parts = _all_layers(analyzed, inputs)
        tokens = _real_tokens(analyzed, inputs)
        if watch is not None:
            watch(parts, _first_token(tokens) if _reads_first_token(analyzed) else tokens)
        means = torch.stack([mean_of_tokens(layer, tokens) for layer in layers]).cpu().numpy()
        vectors, counts = _units(analyzed, layers, inputs, [features[place] for place in places])
        for row, place in enumerate(places):
            sentences[place] = means[:, row]
            units[place] = vectors[:, row, : counts[row]]
    width = analyzed.model.config.hidden_size
    empty = np.zeros((len(analyzed.layer_names), 0, width), dtype=np.float32)
    lengths = [0] * len(examples)
    for feature, vector in zip(features, units, strict=True):
        lengths[feature.example] += vector.shape[1]
    return LanguageStates(
        np.concatenate([empty, *units], axis=1),
        [label for example in examples for label in gold_labels(example)],
        lengths,
        np.stack(sentences, axis=1) if sentences else empty,
    )


@torch.inference_mode()
def _all_layers(analyzed: AnalyzedModel, inputs: dict[str, Tensor]) -> tuple[list[Tensor], FusionParts]:
    """Return embeddings, every block's output and, with a fusion, the fused states, all (B, T, E) float32."""
    model, config = analyzed.model, analyzed.model.config
    given = {name: inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in inputs}
    states = model.encoder_states(**given, layers=range(config.num_hidden_layers))
    lowers = [states.lowers[layer] for layer in config.lower_layers]
    names = [str(layer) for layer in config.lower_layers]
    parts = fusion_parts(model.fusion, states.last, lowers, names, inputs["attention_mask"])
    layers = [*states.lowers, states.last]
    if config.fusion != "last":
        layers.append(torch.stack(list(parts.parts().values())).sum(0))
    return [layer.float() for layer in layers], parts


def _real_tokens(analyzed: AnalyzedModel, inputs: dict[str, Tensor]) -> Tensor:
    """Return a (B, T) bool mask that excludes padding and the special tokens around a text."""
    tokenizer = analyzed.tokenizer
    around = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id} - {None}
    special = torch.tensor(sorted(around), device=inputs["input_ids"].device, dtype=torch.long)
    return inputs["attention_mask"].bool() & ~torch.isin(inputs["input_ids"], special)


def _reads_first_token(analyzed: AnalyzedModel) -> bool:
    """Return whether the head uses only the first token of each sequence."""
    return analyzed.task.kind == "pair" and analyzed.model.config.classifier_pooling == "first"


def _first_token(tokens: Tensor) -> Tensor:
    """Return a (B, T) bool mask of the first token of each sequence."""
    first = torch.zeros_like(tokens)
    first[:, 0] = True
    return first


@torch.inference_mode()
def _units(
    analyzed: AnalyzedModel, layers: Sequence[Tensor], inputs: dict[str, Tensor], features: Sequence[Feature]
) -> tuple[NDArray[np.float32], list[int]]:
    """Return the (layers, B, W, E) states that a head would use, and the number of valid ones of each sequence."""
    kind = analyzed.task.kind
    if kind == "qa":
        return np.zeros((len(layers), len(features), 0, layers[0].shape[-1]), dtype=np.float32), [0] * len(features)
    if kind != "token":
        mask, first = inputs["attention_mask"], _reads_first_token(analyzed)
        vectors = [layer[:, 0] if first else mean_of_tokens(layer, mask) for layer in layers]
        return torch.stack(vectors).unsqueeze(2).cpu().numpy(), [1] * len(features)
    counts = [len(feature.target[1]) for feature in features]
    index = inputs["word_index"]
    if analyzed.label_subword != "mean":
        index = _one_subword(index, last=analyzed.label_subword == "last")
    return torch.stack([mean_of_subwords(layer, index, max(counts)) for layer in layers]).cpu().numpy(), counts


def _one_subword(index: Tensor, *, last: bool) -> Tensor:
    """Return `index` (B, T) with only the first or last sub-word of each word kept, and -1 elsewhere."""
    other = torch.full_like(index[:, :1], -1)
    neighbour = torch.cat([index[:, 1:], other], 1) if last else torch.cat([other, index[:, :-1]], 1)
    return torch.where(index != neighbour, index, -1)
