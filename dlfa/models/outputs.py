"""What the models return: transformers' outputs with the gate beside them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.modeling_outputs import (
    BaseModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)


@dataclass
class DLFAModelOutput(BaseModelOutput):
    """As BaseModelOutput, where `last_hidden_state` (B, T, E) is the fused one.

    `gate`, with `output_gate=True` only, is a tuple of one tensor a lower input, in the order of fusion: the gate in
    (0, 1), zero at padding, (B, T, E).
    """

    gate: tuple[Tensor, ...] | None = None


@dataclass
class DLFATokenClassifierOutput(TokenClassifierOutput):
    """As TokenClassifierOutput; `logits` are (B, T, C), or (B, W, C) where words were given.

    `gate` as in DLFAModelOutput.
    """

    gate: tuple[Tensor, ...] | None = None


@dataclass
class DLFASequenceClassifierOutput(SequenceClassifierOutput):
    """As SequenceClassifierOutput; `logits` (B, C).

    `gate` as in DLFAModelOutput, but (B, E), of the first token, where that alone is classified.
    """

    gate: tuple[Tensor, ...] | None = None


@dataclass
class DLFAQuestionAnsweringOutput(QuestionAnsweringModelOutput):
    """As QuestionAnsweringModelOutput; `start_logits` and `end_logits` (B, T). `gate` as in DLFAModelOutput."""

    gate: tuple[Tensor, ...] | None = None
