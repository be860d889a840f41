"""Training a part of the encoder: its upper blocks, or adapters beside its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from .encoder_states import encoder_blocks


def freeze_layers(model: PreTrainedModel, count: int) -> None:
    """Keep the embeddings and the first `count` blocks of a DLFA model's encoder as they are.

    Raises:
        ValueError: more blocks than the encoder has, or an encoder whose blocks cannot be told.
    """
    encoder: Any = model.encoder
    depth = model.config.num_hidden_layers
    if not 0 <= count <= depth:
        raise ValueError(f"freeze_layers must be in 0..{depth} for an encoder of {depth} layers, got {count}")
    blocks = encoder_blocks(encoder, depth)
    if blocks is None:
        raise ValueError(f"freeze_layers: the blocks of a {type(encoder).__name__} cannot be told apart")
    for block in blocks[:count]:
        block.requires_grad_(False)
    of_blocks = {id(parameter) for parameter in blocks.parameters()}
    for name, parameter in encoder.named_parameters():
        # Factorised embeddings have a projection beside their tables: embeddings_project, embedding_hidden_mapping_in.
        if id(parameter) not in of_blocks and any(part.startswith("embed") for part in name.split(".")):
            parameter.requires_grad_(False)


def add_adapters(model: PreTrainedModel, rank: int, alpha: int | None, targets: Sequence[str] | None) -> None:
    """Put LoRA adapters into a DLFA model's encoder, whose own weights are then kept as they are.

    Args:
        model: fusion and head go on being trained as a whole.
        rank: of the adapters.
        alpha: they are scaled by alpha / rank; None takes twice the rank.
        targets: names of linear layers; None takes all of the encoder.

    Raises:
        ValueError: peft is not installed, or no layer has such a name.
    """
    try:
        import peft
    except ImportError as error:
        raise ValueError("lora_rank needs the package peft: pip install dlfa[lora]") from error
    names = list(targets) if targets is not None else "all-linear"
    config = peft.LoraConfig(r=rank, lora_alpha=alpha or 2 * rank, target_modules=names)
    model.encoder = peft.get_peft_model(model.encoder, config)  # type: ignore[arg-type]


def merge_adapters(model: PreTrainedModel) -> None:
    """Add the adapters of `add_adapters` to the weights; the model is then an ordinary one."""
    encoder: Any = model.encoder
    model.encoder = encoder.merge_and_unload()
