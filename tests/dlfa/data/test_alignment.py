"""Words and sub-words: no word without a place, no label out of place, no word lost to the length limit."""

import random
from itertools import chain

import numpy as np
import pytest
from tiny_tasks import make_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dlfa.data.alignment import special_tokens, windows, word_pieces
from dlfa.data.examples import DataError, TaggedSentence
from dlfa.tasks import Encoding, get_task

UDPOS = get_task("udpos")
NAMES = {label: index for index, label in enumerate(UDPOS.labels)}


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def decoded(tokenizer, ids):
    return [tokenizer.convert_ids_to_tokens(piece) for piece in ids]


def test_pieces_are_those_of_each_word(tokenizer):
    first, second = word_pieces(tokenizer, [["ab", "c"], ["d"]])
    assert [decoded(tokenizer, word) for word in first] == [["a", "##b"], ["c"]]
    assert [decoded(tokenizer, word) for word in second] == [["d"]]
    assert word_pieces(tokenizer, []) == []


def test_word_without_pieces_becomes_the_unknown_token(tokenizer):
    lost = ["\u200b", "\x7f", "\u00a0", "\u3000", "\u0085", "\u2028"]
    pieces = word_pieces(tokenizer, [["ab", *lost, "c"]])[0]
    assert [decoded(tokenizer, word) for word in pieces] == [["a", "##b"], *[["[UNK]"]] * len(lost), ["c"]]


def test_word_without_pieces_and_without_a_stand_in_is_an_error(tokenizer):
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, pad_token="[PAD]")
    with pytest.raises(DataError, match=r"maps the word '.u200b' to nothing"):
        word_pieces(bare, [["a", "\u200b"]])
    backend = tokenizer.backend_tokenizer
    masking = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", mask_token="[MASK]")
    assert word_pieces(masking, [["\u200b"]]) == [[[masking.mask_token_id]]]


def byte_level() -> PreTrainedTokenizerFast:
    """Byte-level BPE as RoBERTa's, where a word's space belongs to it: letters and ` letter` are pieces."""
    vocabulary = {piece: index for index, piece in enumerate(["<unk>", "a", "b", "c", "\u0120", "\u0120a", "\u0120b"])}
    merges = [("\u0120", "a"), ("\u0120", "b")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def test_byte_level_words_are_cut_as_in_running_text():
    tokenizer = byte_level()
    pieces = word_pieces(tokenizer, [["a", "b", "ab"]])[0]
    assert list(chain.from_iterable(pieces)) == tokenizer("a b ab")["input_ids"]
    assert decoded(tokenizer, pieces[1]) == ["\u0120b"]


def test_slow_tokenizer_is_refused(tokenizer):
    class Slow:
        is_fast = False

    with pytest.raises(ValueError, match="must be a fast one"):
        word_pieces(Slow(), [["a"]])


def test_windows_cut_greedily_between_words():
    pieces = [[1] * size for size in (2, 2, 3, 1, 4)]
    assert windows(pieces, 4) == [(0, 2), (2, 4), (4, 5)]
    assert windows(pieces, 100) == [(0, 5)]
    assert windows(pieces[:1], 4) == [(0, 1)]
    assert windows([], 4) == []
    # A word longer than the room stands alone.
    assert windows([[1], [1] * 9, [1]], 4) == [(0, 1), (1, 2), (2, 3)]
    with pytest.raises(ValueError, match="got 0 to spare"):
        windows(pieces, 0)


def test_windows_hold_every_word_once_and_fit():
    draw = random.Random(0)
    for _ in range(200):
        pieces = [[0] * draw.randint(1, 9) for _ in range(draw.randint(1, 30))]
        room = draw.randint(1, 12)
        cuts = windows(pieces, room)
        assert [word for start, stop in cuts for word in range(start, stop)] == list(range(len(pieces)))
        assert all(sum(min(len(word), room) for word in pieces[start:stop]) <= room for start, stop in cuts)


def test_special_tokens_are_told_apart(tokenizer):
    assert special_tokens(tokenizer) == ([2], [3])
    assert special_tokens(byte_level()) == ([], [])


SENTENCE = TaggedSentence(("abc", "\u200b", "de", "f"), ("NOUN", "PUNCT", "VERB", "ADV"))


@pytest.mark.parametrize(
    ("label_subword", "labels", "positions"),
    [
        #          [CLS]  a       ##b   ##c     [UNK]    d       ##e     f      [SEP]
        ("first", [None, "NOUN", None, None, "PUNCT", "VERB", None, "ADV", None], [1, 4, 5, 7]),
        ("last", [None, None, None, "NOUN", "PUNCT", None, "VERB", "ADV", None], [3, 4, 6, 7]),
    ],
)
def test_label_sits_on_one_subword(tokenizer, label_subword, labels, positions):
    (feature,) = UDPOS.encode([SENTENCE], tokenizer, Encoding(128, label_subword), training=True)
    assert feature.inputs["labels"] == [-100 if label is None else NAMES[label] for label in labels]
    assert feature.target == (0, positions)
    assert len(feature.inputs["input_ids"]) == len(feature.inputs["attention_mask"]) == 9


def test_mean_names_the_word_of_each_subword(tokenizer):
    (feature,) = UDPOS.encode([SENTENCE], tokenizer, Encoding(128, "mean"), training=True)
    assert feature.inputs["word_index"] == [-1, 0, 0, 0, 1, 2, 2, 3, -1]
    assert feature.inputs["labels"] == [NAMES[tag] for tag in SENTENCE.tags]
    assert feature.target == (0, [0, 1, 2, 3])


@pytest.mark.parametrize("label_subword", ["first", "last", "mean"])
def test_long_sentences_are_split_and_joined_again(tokenizer, label_subword):
    # 40 words of 1 to 5 letters do not fit into 12 tokens; scores that name their word must come back in order.
    draw = random.Random(1)
    words = tuple("x" * draw.randint(1, 14) for _ in range(40))
    tags = tuple(draw.choice(UDPOS.labels) for _ in words)
    examples = [TaggedSentence(words, tags), TaggedSentence(words[:3], tags[:3])]
    features = UDPOS.encode(examples, tokenizer, Encoding(12, label_subword), training=True)
    assert len(features) > 10
    assert all(len(feature.inputs["input_ids"]) <= 12 for feature in features)
    scores = []
    for feature in features:
        labels = [label for label in feature.inputs["labels"] if label != -100]
        # A model that is always right: its logits are high exactly at the labels of the positions asked for.
        row = [[0.0] * len(NAMES) for _ in feature.inputs["labels"]]
        for position, label in enumerate(feature.inputs["labels"]):
            if label != -100:
                row[position][label] = 9.0
        scores.append(UDPOS.feature_scores(feature, {"logits": np.array([row], dtype=np.float32)}, 0))
        assert len(labels) == len(feature.target[1])
    joined = UDPOS.example_scores(examples, features, scores)
    assert UDPOS.decide(examples, joined) == [example.tags for example in examples]


def test_long_word_keeps_its_first_pieces(tokenizer):
    example = TaggedSentence(("abcdefghijklmnop", "q"), ("NOUN", "VERB"))
    first, second = UDPOS.encode([example], tokenizer, Encoding(6, "last"), training=True)
    assert decoded(tokenizer, first.inputs["input_ids"]) == ["[CLS]", "a", "##b", "##c", "##d", "[SEP]"]
    assert first.inputs["labels"] == [-100, -100, -100, -100, NAMES["NOUN"], -100]
    assert second.target == (1, [1])


def test_real_tokenizer_loses_no_word(shared):
    folder = shared / "models" / "me5-small-q4"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for language in ("zh", "th", "ar", "hi", "vi"):
        examples = UDPOS.read_file(shared / "data" / "udpos" / f"test-{language}.tsv")[:100]
        features = UDPOS.encode(examples, tokenizer, Encoding(32, "last"), training=True)
        counts = [0] * len(examples)
        for feature in features:
            counts[feature.example] += sum(label != -100 for label in feature.inputs["labels"])
            assert len(feature.inputs["input_ids"]) <= 32
        assert counts == [len(example.words) for example in examples]
