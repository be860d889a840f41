"""A small cross-lingual corpus in the style of the "fake English" studies, whose languages each differ in one property.

K et al. ("Cross-Lingual Ability of Multilingual BERT", ICLR 2020, arXiv 1912.07840) derive languages from English by
moving its letters to another alphabet, changing its word order, or keeping some sub-words shared, to study what enables
transfer. Here one grammar generates all languages; no sentence is a translation of another language's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..files import atomic
from .grammar import LETTERS, Grammar, Lexicon, Word, WordOrder

OTHER_ALPHABET = str.maketrans(LETTERS, "".join(chr(ord("ა") + index) for index in range(len(LETTERS))))
ENGLISH_ORDER = WordOrder()
REORDERED = WordOrder(verb_final=True, adjectives_follow=True, postpositions=True)


@dataclass(frozen=True)
class Language:
    """A language and its differences from English: the share of stems kept in English letters, and the word order."""

    name: str
    title: str
    shared: float = 1.0
    order: WordOrder = ENGLISH_ORDER


LANGUAGES = (
    Language("en", "nothing: fine-tuned on it"),
    Language("order", "word order", order=REORDERED),
    Language("half", "letters of half the words", shared=0.5),
    Language("alphabet", "letters of all words", shared=0.0),
    Language("distant", "letters of 80 %, word order", shared=0.2, order=REORDERED),
)


@dataclass(frozen=True)
class CorpusSize:
    """Numbers of sentences: unlabelled per language, tagged in the source language, and tagged test per language."""

    text: int = 8000
    train: int = 1000
    dev: int = 200
    test: int = 400


TaggedWords = list[tuple[str, str]]


class Corpus:
    """Text of every language for pre-training, and tagged sentences for training and testing, all drawn with `seed`."""

    def __init__(self, seed: int, size: CorpusSize) -> None:
        self.size = size
        self._seed = seed
        lexicon = Lexicon(random.Random(f"{seed} lexicon"))
        self._grammar = Grammar(lexicon)
        self._shared = {language.name: self._sample(lexicon.all_stems(), language) for language in LANGUAGES}

    def _sample(self, stems: list[str], language: Language) -> frozenset[str]:
        rng = random.Random(f"{self._seed} shared {language.name}")
        return frozenset(rng.sample(stems, round(language.shared * len(stems))))

    def sentences(self, language: Language, part: str, count: int) -> Iterator[TaggedWords]:
        """Yield `count` sentences as (word, tag) pairs; each part of each language is drawn independently."""
        rng = random.Random(f"{self._seed} {part} {language.name}")
        shared = self._shared[language.name]
        for _ in range(count):
            yield [(spelt(word, shared), word.tag) for word in self._grammar.sentence(rng, language.order)]

    def text(self, language: Language) -> list[str]:
        """Return the unlabelled sentences of a language."""
        return [" ".join(word for word, _ in words) for words in self.sentences(language, "text", self.size.text)]

    def write(self, folder: Path) -> None:
        """Write the tagged sentences in XTREME's layout: train-en.tsv, dev-en.tsv, test-LANGUAGE.tsv."""
        for path, (language, part) in corpus_files(folder).items():
            sentences = self.sentences(language, part, getattr(self.size, part))
            text = "".join("".join(f"{word}\t{tag}\n" for word, tag in words) + "\n" for words in sentences)
            atomic.write_text(path, text)


def corpus_files(folder: Path) -> dict[Path, tuple[Language, str]]:
    """Return the files that `Corpus.write` writes to `folder`, each with its language and part."""
    source = LANGUAGES[0]
    parts = [(source, "train"), (source, "dev"), *((language, "test") for language in LANGUAGES)]
    return {folder / f"{part}-{language.name}.tsv": (language, part) for language, part in parts}


def spelt(word: Word, shared: frozenset[str]) -> str:
    """Return the word in the source's letters if its stem is shared, else in the other alphabet; digits are kept."""
    form = word.stem + word.suffix
    return form if word.stem in shared else form.translate(OTHER_ALPHABET)
