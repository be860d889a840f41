"""DLFA models over the small random encoders."""

from typing import Any

import torch
from tiny_encoders import tiny_encoder

from dlfa import DLFAForQuestionAnswering, DLFAForSequenceClassification, DLFAForTokenClassification, DLFAModel

HEADS = [DLFAModel, DLFAForTokenClassification, DLFAForSequenceClassification, DLFAForQuestionAnswering]


def build(head: type = DLFAForTokenClassification, family: str = "bert", **fields: Any) -> Any:
    """A model in evaluation mode, by default with AIF over layer 1 and 5 labels; the same weights at every call."""
    torch.manual_seed(1)
    fields = {"fusion_layer": 1, "num_labels": 5, **fields}
    return head.from_encoder(tiny_encoder(family), **fields).eval()
