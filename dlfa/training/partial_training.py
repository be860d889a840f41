"""Training part of an encoder: its upper blocks, or adapters added to its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ..error_lines import first_line
from ..models.encoder_states import encoder_blocks


def freeze_layers(model: PreTrainedModel, count: int) -> None:
    """Freeze the embeddings and the first `count` blocks of a DLFA model's encoder, and the parameters they use.

    Raises:
        ValueError: the encoder has fewer blocks, or its blocks cannot be identified.
    """
    encoder: Any = model.encoder
    read: Any = model.encoder_states
    depth = model.config.num_hidden_layers
    if not 0 <= count <= depth:
        raise ValueError(f"freeze_layers must be in 0..{depth} for an encoder of {depth} layers, got {count}")
    blocks = encoder_blocks(encoder, depth)
    if blocks is None:
        raise ValueError(f"freeze_layers: the blocks of a {type(encoder).__name__} cannot be told apart")
    # What the first block to be trained gets depends on more than blocks and embedding tables: on their projection, on
    # position embeddings or a convolution that blocks share. Autograd knows; two tokens are enough to ask it.
    tokens = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    with torch.enable_grad():
        states = read(tokens, torch.ones_like(tokens), layers=(min(count, depth - 1),))
    below = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    reached = torch.autograd.grad(states.lowers[0].float().sum(), below, allow_unused=True)
    for parameter, gradient in zip(below, reached, strict=True):
        if gradient is not None:
            parameter.requires_grad_(False)
    for block in blocks[:count]:
        block.requires_grad_(False)


def add_adapters(model: PreTrainedModel, rank: int, alpha: int | None, targets: Sequence[str] | None) -> None:
    """Add LoRA adapters to a DLFA model's encoder and freeze the encoder's own weights.

    Args:
        model: the model; its fusion and head stay trainable.
        rank: rank of the adapters, at most the encoder's hidden size.
        alpha: the adapters are scaled by alpha / rank; None uses twice the rank.
        targets: names of linear layers; None uses all of the encoder's.

    Raises:
        ValueError: peft is not installed, the rank is too high, no layer has a given name, or a named layer does not
            support adapters.
    """
    try:
        import peft
    except ImportError as error:
        raise ValueError("lora_rank needs the package peft: pip install dlfa[lora]") from error
    if rank > (width := model.config.hidden_size):  # the weights that are adapted have no higher rank themselves
        raise ValueError(f"lora_rank must be at most {width}, the encoder's hidden size, got {rank}")
    encoder: Any = model.encoder
    for target in targets or ():
        if not any(f".{name}".endswith(f".{target}") for name, _ in encoder.named_modules()):
            linear = {name.rpartition(".")[2] for name, each in encoder.named_modules() if isinstance(each, nn.Linear)}
            raise ValueError(
                f"lora_targets must name linear layers of the encoder, which are {', '.join(sorted(linear))}; got "
                f"{target!r}"
            )
    names = list(targets) if targets is not None else "all-linear"
    config = peft.LoraConfig(r=rank, lora_alpha=alpha or 2 * rank, target_modules=names)
    try:
        model.encoder = peft.get_peft_model(encoder, config)
    except ValueError as error:
        raise ValueError(f"lora_targets {', '.join(targets or ())}: {first_line(error)}") from error


def merge_adapters(model: PreTrainedModel) -> None:
    """Merge the adapters of `add_adapters` into the weights, so that the model is an ordinary one again."""
    encoder: Any = model.encoder
    model.encoder = encoder.merge_and_unload()
