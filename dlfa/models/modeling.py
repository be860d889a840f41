"""The DLFA models: any transformers encoder, a fusion of its last layer with lower ones, and a task head."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)
from transformers.utils.generic import can_return_tuple

from .configuration import DLFAConfig
from .heads import DLFAForQuestionAnswering, DLFAForSequenceClassification, DLFAForTokenClassification
from .outputs import DLFAModelOutput
from .pretrained import DLFAPreTrainedModel

__all__ = [
    "DLFAForQuestionAnswering",
    "DLFAForSequenceClassification",
    "DLFAForTokenClassification",
    "DLFAModel",
    "DLFAPreTrainedModel",
]


class DLFAModel(DLFAPreTrainedModel):
    """Encoder and fusion without a head; `last_hidden_state` is the fused state."""

    def __init__(self, config: DLFAConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config, encoder)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        external_features: Tensor | None = None,
        output_gate: bool = False,
        **kwargs: Any,
    ) -> DLFAModelOutput:
        """Encode the input and fuse the layers.

        Args:
            input_ids: (B, T) int64.
            attention_mask: (B, T), bool or integer 0/1, true at real tokens; None means that all tokens are real.
            token_type_ids: (B, T) int64.
            inputs_embeds: (B, T, E), instead of `input_ids`.
            external_features: (B, T, E or feature_dim), an external second input that replaces the lower layer.
            output_gate: also return AIF's gates.
            **kwargs: `output_hidden_states`, `output_attentions`, `return_dict`, further arguments of the encoder.

        Returns:
            DLFAModelOutput: `last_hidden_state` (B, T, E); with fusion "aif" or "residual", zero at padding.

        Raises:
            ValueError, TypeError: an invalid argument.
        """
        return self._forward(
            input_ids, attention_mask, token_type_ids, inputs_embeds, external_features, kwargs, output_gate=output_gate
        )

    def _head(
        self,
        last: Tensor,
        lowers: tuple[Tensor, ...],
        mask: Tensor | None,
        *,
        output_gate: bool = False,
        **arguments: Any,
    ) -> DLFAModelOutput:
        gate = self._gates(last, lowers, mask) if output_gate else None
        return DLFAModelOutput(last_hidden_state=self.fusion(last, lowers, mask), gate=gate)


AutoModel.register(DLFAConfig, DLFAModel, exist_ok=True)
AutoModelForTokenClassification.register(DLFAConfig, DLFAForTokenClassification, exist_ok=True)
AutoModelForSequenceClassification.register(DLFAConfig, DLFAForSequenceClassification, exist_ok=True)
AutoModelForQuestionAnswering.register(DLFAConfig, DLFAForQuestionAnswering, exist_ok=True)
