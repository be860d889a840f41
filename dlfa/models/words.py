"""Mean states over the sub-words of each word, and over whole sequences."""

from __future__ import annotations

import torch
from torch import Tensor

from dlfa_kernels.checks import check_tensor, values_can_be_read

from ..data.ignored_label import IGNORED


def check_word_index(word_index: Tensor, shape: torch.Size, num_words: int | None) -> None:
    """Raise TypeError or ValueError unless `word_index` fits sequences of `shape` (B, T) and `num_words` words.

    Values are checked on the CPU, and on a GPU only under DLFA_VALIDATE=1.
    """
    check_tensor("word_index", word_index)
    if word_index.dtype != torch.int64:
        raise TypeError(f"word_index must be int64, got {word_index.dtype}")
    if word_index.shape != shape:
        raise ValueError(f"word_index must have shape (B, T) = {tuple(shape)}, got {tuple(word_index.shape)}")
    if word_index.numel() == 0 or not values_can_be_read(word_index):
        return
    lowest, highest = int(word_index.min()), int(word_index.max())
    if lowest < -1:
        raise ValueError(f"word_index must hold words numbered from 0, or -1 for no word, got {lowest}")
    if num_words is not None and highest >= num_words:
        raise ValueError(f"labels must have one column a word, {highest + 1} for this word_index, got {num_words}")


def check_labelled_words(labels: Tensor, word_index: Tensor) -> None:
    """Raise ValueError if one of `labels` (B, W), other than -100, is of a word that has no token in `word_index`.

    Such a word is behind the last one of its sequence, or was cut off. The arguments are valid by themselves, see
    `check_word_index`. Values are checked on the CPU, and on a GPU only under DLFA_VALIDATE=1.
    """
    if not (values_can_be_read(labels) and values_can_be_read(word_index)):
        return
    rows, words = labels.shape
    has_token = torch.zeros(rows, words + 1, dtype=torch.bool, device=labels.device)
    has_token.scatter_(1, torch.where(word_index < 0, words, word_index), True)
    wrong = (labels != IGNORED) & ~has_token[:, :words]
    if bool(wrong.any()):
        row, word = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"labels must be {IGNORED} for a word without a token in word_index, got {int(labels[row, word])} for word "
            f"{word} of sequence {row}"
        )


def mean_of_subwords(states: Tensor, word_index: Tensor, num_words: int | None = None) -> Tensor:
    """Return the mean state of each word's sub-words.

    Args:
        states: (B, T, E).
        word_index: (B, T) int64, the word of each token, numbered from 0 in each sequence, or -1 for no word; see
            `check_word_index`.
        num_words: W; None uses the highest index plus one, which on a GPU is a host sync.

    Returns:
        (B, W, E) in the dtype of `states`, summed in float32 or wider; zeros for a word without a sub-word. States of
        tokens without a word do not affect the result, even if they are NaN.
    """
    if num_words is None:
        num_words = int(word_index.max()) + 1 if word_index.numel() else 0
    wide = torch.promote_types(states.dtype, torch.float32)
    # A product with 0/1 memberships adds in a fixed order, where a scatter would use atomics on a GPU. As 0 * NaN is
    # NaN, it would spread one in the states of padding over every word.
    words = torch.arange(num_words, device=states.device)[:, None]
    word_index = word_index.to(states.device)  # a model may be spread over devices
    membership = (word_index[:, None, :] == words).to(wide)
    in_words = torch.where((word_index >= 0)[..., None], states.to(wide), 0.0)
    with torch.autocast(states.device.type, enabled=False):
        total = membership @ in_words
    return (total / membership.sum(-1, keepdim=True).clamp(min=1)).to(states.dtype)


def mean_of_tokens(states: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean (B, E) of states (B, T, E) over real tokens, summed in float32 or wider; 0 if there are none."""
    wide = states.to(torch.promote_types(states.dtype, torch.float32))
    if mask is None:
        return wide.mean(dim=1).to(states.dtype)
    real = (mask.to(states.device) != 0).unsqueeze(-1)
    total = torch.where(real, wide, 0.0).sum(dim=1)
    return (total / real.sum(dim=1).clamp(min=1)).to(states.dtype)
