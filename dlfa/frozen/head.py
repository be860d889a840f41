"""The trainable part of a model with a frozen encoder, as a separate module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..models.configuration import DLFAConfig
from ..models.pretrained import DLFAPreTrainedModel


class StatesHead(nn.Module):
    """Fusion and head of a model, called with the encoder's states; it shares the model's submodules and their names.

    Training it trains the model. Its state_dict, and so its checkpoints, do not contain the encoder.
    """

    def __init__(self, model: DLFAPreTrainedModel) -> None:
        super().__init__()
        for name, module in model.named_children():
            if name != "encoder":
                self.add_module(name, module)
        # Not a submodule, which would include the encoder.
        self.__dict__["model"] = model

    @property
    def config(self) -> DLFAConfig:
        """Return the model's configuration."""
        return self.__dict__["model"].config

    @property
    def device(self) -> torch.device:
        """Return the device of the parameters."""
        return next(self.parameters()).device

    def forward(self, last: Tensor, attention_mask: Tensor, **arguments: Any) -> Any:
        """Return the model's output for given states.

        Args:
            last: (B, T, E), the last layer.
            attention_mask: (B, T), bool or integer 0/1, true at real tokens.
            **arguments: `lower_0`, `lower_1`, ... (B, T, E), the lower layers in the order of fusion, and other
                arguments of `DLFAPreTrainedModel.head_from_states`.
        """
        count = len(self.config.lower_layers)
        lowers = [arguments.pop(f"lower_{number}") for number in range(count)]
        return self.__dict__["model"].head_from_states(last, lowers, attention_mask, **arguments)
