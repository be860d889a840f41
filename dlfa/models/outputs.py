"""The models' outputs: those of transformers with a field for the gate."""

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
    """BaseModelOutput whose `last_hidden_state` (B, T, E) is the fused state.

    `gate` is given only with `output_gate=True`. It is a tuple with one tensor (B, T, E) per lower input, in the order
    of fusion: the gate in (0, 1), zero at padding.
    """

    gate: tuple[Tensor, ...] | None = None


@dataclass
class DLFATokenClassifierOutput(TokenClassifierOutput):
    """TokenClassifierOutput with `logits` (B, T, C), or (B, W, C) with `word_index`.

    `gate` is as in DLFAModelOutput.
    """

    gate: tuple[Tensor, ...] | None = None


@dataclass
class DLFASequenceClassifierOutput(SequenceClassifierOutput):
    """SequenceClassifierOutput with `logits` (B, C).

    `gate` is as in DLFAModelOutput, but (B, E), for the first token, if only that token is classified.
    """

    gate: tuple[Tensor, ...] | None = None


@dataclass
class DLFAQuestionAnsweringOutput(QuestionAnsweringModelOutput):
    """QuestionAnsweringModelOutput with `start_logits` and `end_logits` (B, T). `gate` is as in DLFAModelOutput."""

    gate: tuple[Tensor, ...] | None = None
