"""How long a sequence an encoder's positions allow."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel


def position_table(encoder: PreTrainedModel) -> nn.Embedding | None:
    """The table of an encoder that learns a vector for each position; None where positions are relative or rotary.

    GPT-2 and its kin call it `wpe`.
    """
    for name, module in encoder.named_modules():
        if name.endswith(("position_embeddings", "wpe")) and isinstance(module, nn.Embedding):
            return module
    return None


def longest_sequence(encoder: PreTrainedModel) -> int | None:
    """Tokens of the longest sequence that `encoder` takes; None where its configuration names no limit.

    RoBERTa and its kin count positions from the one behind that of padding, so the first rows of their table are never
    a token's.
    """
    positions: int | None = getattr(encoder.config.get_text_config(), "max_position_embeddings", None)
    if positions is None or positions < 1:  # XLNet says -1
        return None
    table = position_table(encoder)
    if table is not None and table.padding_idx is not None:
        return table.num_embeddings - table.padding_idx - 1
    return positions


def check_length(encoder: PreTrainedModel, name: str, max_length: int) -> None:
    """Raise ValueError where `encoder`, called `name`, cannot take sequences of `max_length` tokens."""
    longest = longest_sequence(encoder)
    if longest is not None and max_length > longest:
        raise ValueError(f"max_length must be at most {longest} for {name!r}, got {max_length}")
