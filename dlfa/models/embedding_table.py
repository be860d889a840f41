"""Where an encoder looks up its tokens."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel


def embedding_table(encoder: PreTrainedModel) -> nn.Module | None:
    """The module that looks up `input_ids`; None for an encoder that has no one such, as CANINE, which hashes them."""
    try:
        return encoder.get_input_embeddings()
    except NotImplementedError:
        return None
