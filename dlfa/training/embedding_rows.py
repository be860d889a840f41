"""Train only the rows of the embedding table that the training data use.

Most of a multilingual encoder's parameters are its embedding table (192 of XLM-R base's 278 million), and English data
use a few thousand of its 250,000 rows. The gradient of the other rows is zero at every step. Without weight decay,
AdamW's update of them is also zero: m = v = 0 and 0 / (0 + eps). Gradients, moments and updates of these rows are
therefore neither stored nor computed; the trained model is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from ..models.embedding_table import embedding_table


class RowEmbedding(nn.Module):
    """An embedding table with only some trainable rows; maps (...) ids to (..., E) like `nn.Embedding`.

    Args:
        table: (V, E); the row of its `padding_idx` is never trained. Its weight becomes part of this module, gets no
            gradients, and keeps the old values of the trained rows until `merged`.
        rows: (R,) int64, distinct and ascending, the rows to train.
    """

    row_of: Tensor

    def __init__(self, table: nn.Embedding, rows: Tensor) -> None:
        super().__init__()
        self.num_embeddings, self.padding_idx = table.num_embeddings, table.padding_idx
        self.weight = nn.Parameter(table.weight.detach(), requires_grad=False)
        self.trained = nn.Parameter(self.weight[rows].clone())
        row_of = torch.full((len(self.weight),), -1, dtype=torch.int32, device=self.weight.device)
        row_of[rows] = torch.arange(len(rows), dtype=torch.int32, device=self.weight.device)
        self.register_buffer("row_of", row_of, persistent=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the embeddings, (B, T, E) for int64 `input_ids` (B, T), or any other shape (..., E)."""
        rows = self.row_of[input_ids]
        trained = functional.embedding(rows.clamp(min=0), self.trained)
        return torch.where((rows >= 0)[..., None], trained, functional.embedding(input_ids, self.weight))

    @torch.no_grad()
    def merged(self) -> nn.Embedding:
        """Return an ordinary `nn.Embedding` that includes the trained rows."""
        self.weight[self.row_of >= 0] = self.trained
        dim = self.weight.shape[1]
        return nn.Embedding(self.num_embeddings, dim, self.padding_idx, _weight=self.weight.requires_grad_())


def train_rows(model: PreTrainedModel, inputs: Iterable[Sequence[int]]) -> None:
    """Replace the embedding table of a DLFA model's encoder by a `RowEmbedding` for the ids in `inputs`.

    Use it only without weight decay. A table that is frozen, shared, or not a plain `nn.Embedding` is left unchanged.

    Args:
        model: its `encoder` is changed in place, until `merge_rows`.
        inputs: the input_ids of every training sequence.
    """
    table = embedding_table(model.encoder)  # type: ignore[arg-type]
    if type(table) is not nn.Embedding or not table.weight.requires_grad:
        return
    if table.max_norm is not None or table.scale_grad_by_freq or table.sparse:
        return
    modules = (module for _, module in model.named_modules(remove_duplicate=False))
    if sum(getattr(module, "weight", None) is table.weight for module in modules) > 1:
        return
    ids = {int(index) for sequence in inputs for index in sequence} - {table.padding_idx}
    rows = torch.tensor(sorted(ids), dtype=torch.long, device=table.weight.device)
    model.encoder.set_input_embeddings(RowEmbedding(table, rows))  # type: ignore[operator,union-attr]


def merge_rows(model: PreTrainedModel) -> None:
    """Undo `train_rows`, keeping the trained values; models that it left unchanged stay unchanged."""
    table = embedding_table(model.encoder)  # type: ignore[arg-type]
    if isinstance(table, RowEmbedding):
        model.encoder.set_input_embeddings(table.merged())  # type: ignore[operator,union-attr]
