"""Split words into sub-words, and long sentences into windows, so that every word keeps exactly one position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

from .examples import DataError


def word_pieces(tokenizer: PreTrainedTokenizerBase, sentences: Sequence[Sequence[str]]) -> list[list[list[int]]]:
    """Return the sub-word ids of every word of every sentence.

    A word that the tokenizer maps to nothing (a lone zero-width or control character) becomes the unknown token, as in
    XTREME's preprocessing. It thus keeps its position, gets a prediction from its context and does not shift labels.

    Raises:
        DataError: there is such a word, and the tokenizer has neither an unknown nor a mask token.
        ValueError: the tokenizer is not a fast one.
    """
    if not tokenizer.is_fast:
        raise ValueError(f"tokenizer must be a fast one (tokenizers library), got {type(tokenizer).__name__}")
    if not sentences:
        return []
    space = " " if _needs_space(tokenizer) else ""
    encoded = tokenizer(
        [[space + word if place else word for place, word in enumerate(words)] for words in sentences],
        is_split_into_words=True, add_special_tokens=False, truncation=False, return_attention_mask=False,
        verbose=False,
    )  # fmt: skip
    pieces: list[list[list[int]]] = []
    for row, words in enumerate(sentences):
        sentence: list[list[int]] = [[] for _ in words]
        for piece, word in zip(encoded["input_ids"][row], encoded.word_ids(row), strict=True):
            sentence[word].append(piece)
        for word, ids in zip(words, sentence, strict=True):
            if not ids:
                ids.append(_stand_in(tokenizer, word))
        pieces.append(sentence)
    return pieces


def _needs_space(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether words after the first need a leading space to be tokenized as in running text.

    Byte-level BPE (RoBERTa, ModernBERT) and Gemma's tokenizer (mmBERT) need it; otherwise they treat each word as a
    continuation of the previous one.
    """

    def pieces(text: str | list[str]) -> list[int]:
        split = not isinstance(text, str)
        return list(tokenizer(text, is_split_into_words=split, add_special_tokens=False)["input_ids"])

    running = pieces("a a")
    return pieces(["a", "a"]) != running and pieces(["a", " a"]) == running


def _stand_in(tokenizer: PreTrainedTokenizerBase, word: str) -> int:
    for token in (tokenizer.unk_token_id, tokenizer.mask_token_id):
        if token is not None:
            return int(token)
    raise DataError(f"the tokenizer maps the word {word!r} to nothing and has no unknown token to stand for it")


def windows(pieces: Sequence[Sequence[int]], room: int) -> list[tuple[int, int]]:
    """Split a sentence greedily from the left into windows of whole words with at most `room` sub-words each.

    Args:
        pieces: sub-word ids by word, at least one per word.
        room: maximum number of sub-words, without special tokens.

    Returns:
        (first word, word after the last) of each window; every word is in exactly one. A word of more than `room`
        sub-words has a window of its own with its first `room` sub-words.

    Raises:
        ValueError: `room` is less than 1.
    """
    if room < 1:
        raise ValueError(f"max_length must leave room for a sub-word beside the special tokens, got {room} to spare")
    cuts, start, used = [], 0, 0
    for index, word in enumerate(pieces):
        size = min(len(word), room)
        if used + size > room:
            cuts.append((start, index))
            start, used = index, 0
        used += size
    if pieces:
        cuts.append((start, len(pieces)))
    return cuts


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer adds before and after a single sequence.

    Raises:
        ValueError: the tokenizer changes the sequence itself when it adds them.
    """
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    raise ValueError(f"the tokenizer {type(tokenizer).__name__} does not put its special tokens around a sequence")
