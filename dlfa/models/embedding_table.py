"""An encoder's table of token embeddings."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel


def embedding_table(encoder: PreTrainedModel) -> nn.Module | None:
    """Return the module that embeds `input_ids`; None if the encoder has no single one, as CANINE, which hashes ids."""
    try:
        return encoder.get_input_embeddings()
    except NotImplementedError:
        return None
