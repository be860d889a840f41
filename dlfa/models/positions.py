"""The longest sequence that an encoder's positions allow."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel


def position_table(encoder: PreTrainedModel) -> nn.Embedding | None:
    """Return the encoder's table of learned position embeddings; None if positions are relative or rotary.

    GPT-2 and similar encoders call it `wpe`.
    """
    for name, module in encoder.named_modules():
        if name.endswith(("position_embeddings", "wpe")) and isinstance(module, nn.Embedding):
            return module
    return None


def longest_sequence(encoder: PreTrainedModel) -> int | None:
    """Return the largest number of tokens that `encoder` accepts; None if its configuration has no limit.

    RoBERTa and similar encoders count positions from the one after the padding position, so tokens never use the first
    rows of their table.
    """
    positions: int | None = getattr(encoder.config.get_text_config(), "max_position_embeddings", None)
    if positions is None or positions < 1:  # XLNet says -1
        return None
    table = position_table(encoder)
    if table is not None and table.padding_idx is not None:
        return table.num_embeddings - table.padding_idx - 1
    return positions


def check_length(encoder: PreTrainedModel, name: str, max_length: int) -> None:
    """Raise ValueError if `encoder`, called `name`, cannot take sequences of `max_length` tokens."""
    longest = longest_sequence(encoder)
    if longest is not None and max_length > longest:
        raise ValueError(f"max_length must be at most {longest} for {name!r}, got {max_length}")
