"""A small encoder directory and small task data in XTREME's layout, made on the spot."""

from __future__ import annotations

import random
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

# Words by tag, one alphabet a language; the tag can be told from the first letter, so that a tiny model learns it.
LEXICON = {
    "en": {"DET": ["the", "that"], "NOUN": ["nab", "nebo", "nidu"], "VERB": ["vak", "vosi"], "PUNCT": [".", "!"]},
    "de": {"DET": ["ter", "tas"], "NOUN": ["naus", "nund", "nart"], "VERB": ["vibt", "vat"], "PUNCT": [".", "!"]},
    "fr": {"DET": ["tla", "tle"], "NOUN": ["nain", "nour"], "VERB": ["vest", "vont"], "PUNCT": [".", "!"]},
}
ORDERS = (("DET", "NOUN", "VERB", "DET", "NOUN", "PUNCT"), ("NOUN", "VERB", "PUNCT"), ("DET", "NOUN", "VERB", "PUNCT"))


def make_tokenizer() -> PreTrainedTokenizerFast:
    """WordPiece over letters: a word of n letters has n sub-words."""
    letters = [chr(code) for code in range(33, 127)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    # Strip what BERT strips: a word of control characters alone becomes no piece at all.
    tokenizer.normalizer = normalizers.BertNormalizer(clean_text=True, lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=128,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip


def make_encoder(folder: Path) -> Path:
    """Save a random BERT of 2 layers, 32 wide, with its tokenizer, to `folder`."""
    import torch

    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=128, pad_token_id=0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def sentences(language: str, count: int, seed: int = 0) -> list[list[tuple[str, str]]]:
    """(word, tag) sentences of the made-up language."""
    draw = random.Random(f"{language}{seed}")
    words = LEXICON[language]
    return [[(draw.choice(words[tag]), tag) for tag in draw.choice(ORDERS)] for _ in range(count)]


def token_text(tagged: list[list[tuple[str, str]]]) -> str:
    """`tagged` in the format of token files."""
    return "".join("".join(f"{word}\t{tag}\n" for word, tag in sentence) + "\n" for sentence in tagged)


def make_udpos(folder: Path, train: int = 48, dev: int = 12, test: int = 10) -> Path:
    """Write udpos files: train and dev in en, test in en, de and fr."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train-en.tsv").write_text(token_text(sentences("en", train, 1)))
    (folder / "dev-en.tsv").write_text(token_text(sentences("en", dev, 2)))
    for language in LEXICON:
        (folder / f"test-{language}.tsv").write_text(token_text(sentences(language, test, 3)))
    return folder
