"""What learns over a frozen encoder, as a module of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..models.configuration import DLFAConfig
from ..models.pretrained import DLFAPreTrainedModel


class StatesHead(nn.Module):
    """Fusion and head of a model, called with the encoder's states; the modules are the model's own, under its names.

    Training it trains the model, and its state_dict, hence a checkpoint of it, holds no encoder.
    """

    def __init__(self, model: DLFAPreTrainedModel) -> None:
        super().__init__()
        for name, module in model.named_children():
            if name != "encoder":
                self.add_module(name, module)
        # Not as a submodule, which would bring the encoder with it.
        self.__dict__["model"] = model

    @property
    def config(self) -> DLFAConfig:
        """The model's."""
        return self.__dict__["model"].config

    @property
    def device(self) -> torch.device:
        """Of the parameters."""
        return next(self.parameters()).device

    def forward(self, last: Tensor, attention_mask: Tensor, **arguments: Any) -> Any:
        """The model's output on given states.

        Args:
            last: (B, T, E), the last layer.
            attention_mask: (B, T), bool or integer 0/1, true at real tokens.
            **arguments: `lower_0`, `lower_1`, ... (B, T, E), the lower layers in the order of fusion, and what
                `DLFAPreTrainedModel.head_from_states` takes beside.
        """
        count = len(self.config.lower_layers)
        lowers = [arguments.pop(f"lower_{number}") for number in range(count)]
        return self.__dict__["model"].head_from_states(last, lowers, attention_mask, **arguments)
