"""The models' checks of tokens, attention mask and labels, before the encoder runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dlfa_kernels.checks import check_mask, check_tensor, values_can_be_read

from ..data.ignored_label import IGNORED
from .embedding_table import embedding_table
from .positions import longest_sequence, position_table


def values_can_be_asserted(tensor: Tensor) -> bool:
    """Return whether `torch._assert_async` may check the values of `tensor`, where reading them is a host sync.

    Yes on a GPU. Compiled, exported and vectorised (`torch.func`) code is left as it is.
    """
    return (
        not torch.compiler.is_compiling()
        and tensor.is_cuda
        and type(tensor) is Tensor  # no fake one, nor one that is spread over devices
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    )


def check_tokens(input_ids: Tensor | None, inputs_embeds: Tensor | None, attention_mask: Tensor | None) -> torch.Size:
    """Check the encoder's inputs.

    Args:
        input_ids: (B, T) int64 or int32.
        inputs_embeds: (B, T, E), instead of `input_ids`.
        attention_mask: (B, T), bool or integer 0/1, or None.

    Returns:
        (B, T).

    Raises:
        TypeError: an argument is not a tensor or has an invalid dtype.
        ValueError: both or neither of `input_ids` and `inputs_embeds` are given, or a shape or device is invalid.
    """
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("exactly one of input_ids and inputs_embeds must be given")
    if input_ids is not None:
        check_tensor("input_ids", input_ids)
        if input_ids.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"input_ids must be int64 or int32, got {input_ids.dtype}")
        if input_ids.dim() != 2:
            raise ValueError(f"input_ids must have shape (B, T), got {tuple(input_ids.shape)}")
        tokens = input_ids
    if inputs_embeds is not None:
        check_tensor("inputs_embeds", inputs_embeds)
        if not inputs_embeds.is_floating_point():
            raise TypeError(f"inputs_embeds must be floating point, got {inputs_embeds.dtype}")
        if inputs_embeds.dim() != 3:
            raise ValueError(f"inputs_embeds must have shape (B, T, E), got {tuple(inputs_embeds.shape)}")
        tokens = inputs_embeds
    shape = tokens.shape[:2]
    if attention_mask is not None:
        check_mask("attention_mask", attention_mask, shape, tokens.device)
    return shape


def check_vocabulary(input_ids: Tensor, encoder: PreTrainedModel) -> None:
    """Raise ValueError unless `input_ids` (B, T) are rows of the embedding table of `encoder`, if it has one.

    Values are checked on the CPU, and on a GPU only under DLFA_VALIDATE=1, since reading them is a host sync there. An
    unchecked invalid id makes the GPU unusable for the process.
    """
    if not values_can_be_read(input_ids):
        return
    # not by the weight, which may be sharded
    rows = getattr(embedding_table(encoder), "num_embeddings", None)
    if rows is not None:
        _check_rows("input_ids", input_ids, rows, "vocabulary")


def check_embeds(inputs_embeds: Tensor, encoder: PreTrainedModel) -> None:
    """Raise ValueError unless `inputs_embeds` (B, T, E) are as wide as the embedding table of `encoder`, if it has one.

    That is not the hidden size everywhere: ALBERT's table is narrower.
    """
    width = getattr(embedding_table(encoder), "embedding_dim", None)
    if width is not None and inputs_embeds.shape[2] != width:
        raise ValueError(f"inputs_embeds must have shape (B, T, {width}), got {tuple(inputs_embeds.shape)}")


def check_one_sequence_a_row(encoder_arguments: Mapping[str, object], attention_mask: Tensor | None) -> None:
    """Raise ValueError for padding-free batches, several sequences in a row, as `DataCollatorWithFlattening` makes.

    An encoder that knows them keeps them apart, but fusion and head would take the row for one sequence.

    Args:
        encoder_arguments: may hold "cu_seq_lens_q", or "position_ids" (B, T), which are 0 again where a sequence
            starts. Values are read on the CPU, and on a GPU only under DLFA_VALIDATE=1.
        attention_mask: (B, T), bool or integer 0/1, or None; positions of padding may be anything.
    """
    positions = encoder_arguments.get("position_ids")
    several = encoder_arguments.get("cu_seq_lens_q") is not None
    if isinstance(positions, Tensor) and positions.dim() == 2 and values_can_be_read(positions):
        starts = positions[:, 1:] == 0
        if attention_mask is not None and attention_mask.shape == positions.shape:
            real = attention_mask != 0
            starts = starts & real[:, 1:] & real[:, :-1]
        several = several or bool(starts.any())
    if several:
        raise ValueError(
            "a row must hold one sequence, got cu_seq_lens_q or position_ids that are 0 again within a row"
        )


def check_token_types(token_type_ids: Tensor, shape: torch.Size, encoder: PreTrainedModel) -> None:
    """Check token types, (B, T) int64 or int32, against sequences of `shape` (B, T) and the table of `encoder`.

    Values are checked on the CPU, and on a GPU only under DLFA_VALIDATE=1.

    Raises:
        TypeError: not a tensor, or an invalid dtype.
        ValueError: an invalid shape, or a type that is not in the encoder's table, if it has one.
    """
    check_tensor("token_type_ids", token_type_ids)
    if token_type_ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"token_type_ids must be int64 or int32, got {token_type_ids.dtype}")
    if token_type_ids.shape != shape:
        raise ValueError(f"token_type_ids must have shape (B, T) = {tuple(shape)}, got {tuple(token_type_ids.shape)}")
    if not values_can_be_read(token_type_ids):
        return
    tables = [getattr(part, "token_type_embeddings", None) for part in encoder.children()]
    types = next((table.num_embeddings for table in tables if isinstance(table, nn.Embedding)), None)
    if types is not None:
        _check_rows("token_type_ids", token_type_ids, types, "token types")


def _check_rows(name: str, ids: Tensor, rows: int, what: str) -> None:
    """Raise ValueError unless all `ids` are rows of a table of the encoder's."""
    wrong = (ids < 0) | (ids >= rows)
    if bool(wrong.any()):
        raise ValueError(f"{name} must be in 0..{rows - 1}, the encoder's {what}, got {int(ids[wrong][0])}")


def check_positions(input_ids: Tensor | None, shape: torch.Size, encoder: PreTrainedModel) -> None:
    """Raise ValueError if sequences of `shape` (B, T) are longer than the position table of `encoder` allows.

    In RoBERTa and similar encoders padding takes no position. For these, the check reads `input_ids` (B, T) on the CPU,
    and on a GPU only under DLFA_VALIDATE=1. If `input_ids` is None, every embedding takes a position.
    """
    table, longest = position_table(encoder), longest_sequence(encoder)
    if table is None or longest is None:
        return
    length = shape[1]
    if input_ids is not None and table.padding_idx is not None:
        if not values_can_be_read(input_ids):
            return
        length = max((input_ids != table.padding_idx).sum(dim=1).tolist(), default=0)
    if length > longest:
        name = "inputs_embeds" if input_ids is None else "input_ids"
        raise ValueError(f"{name} must hold at most {longest} tokens a sequence, the encoder's positions, got {length}")


def check_keywords(names: Iterable[str], known: Collection[str]) -> None:
    """Raise TypeError for a name that is close to one of `known`, but not equal.

    Most encoders accept any keyword, since transformers passes some on to attention, and ignore unknown ones. A mask
    with a misspelt name would be ignored silently.
    """
    for name in names:
        if name not in known and (near := get_close_matches(name, known, n=1, cutoff=0.82)):
            raise TypeError(f"unknown keyword {name!r}; did you mean {near[0]!r}?")


def check_classes(labels: Tensor, num_labels: int) -> None:
    """Raise TypeError or ValueError unless `labels`, int64 of any shape, hold classes 0..C-1, or -100 to be ignored.

    Values are checked on the CPU, and on a GPU only under DLFA_VALIDATE=1.
    """
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must be int64, got {labels.dtype}")
    if not values_can_be_read(labels):
        return
    wrong = (labels != IGNORED) & ((labels < 0) | (labels >= num_labels))
    if bool(wrong.any()):
        raise ValueError(f"labels must be in 0..{num_labels - 1}, or {IGNORED} for none, got {int(labels[wrong][0])}")
