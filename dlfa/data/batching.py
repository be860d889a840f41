"""Pad features to the longest in their batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .ignored_label import IGNORED


class PaddingCollator:
    """Collates model inputs of different lengths into a batch of int64 tensors, padded on the right.

    Lists are padded with values that the model ignores (labels -100, word_index -1); plain ints become a vector.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.padding = {
            "input_ids": int(tokenizer.pad_token_id) if tokenizer.pad_token_id is not None else 0,
            "token_type_ids": int(tokenizer.pad_token_type_id),
            "labels": IGNORED,
            "word_index": -1,
        }

    def __call__(self, inputs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Collate `inputs`, which have the same names, into int64 tensors (B,) or (B, longest)."""
        return {name: self._column(name, [item[name] for item in inputs]) for name in inputs[0]}

    def _column(self, name: str, values: list[Any]) -> Tensor:
        if not isinstance(values[0], list):
            return torch.tensor(values)
        longest = max(map(len, values))
        padding = self.padding.get(name, 0)
        return torch.tensor([value + [padding] * (longest - len(value)) for value in values])


def by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Return indices in batches of similar length, the longest first, so that memory, if too small, runs out early."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
