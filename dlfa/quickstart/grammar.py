"""A small probabilistic grammar with parts of speech, and the word orders that a language can use.

Words consist of syllables, so that sub-words matter. Some stems belong to two parts of speech, and one suffix marks
both plural nouns and singular verbs, so that only context distinguishes them, as in English ("the walks", "she walks").
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

CONSONANTS = "bcdfghjklmnprstvwz"
VOWELS = "aeiou"
LETTERS = CONSONANTS + VOWELS

# Numbers of stems per part of speech, in the proportions of a real lexicon, and few enough for a tiny encoder.
OPEN_CLASSES = {"NOUN": 36, "VERB": 22, "ADJ": 16, "ADV": 10, "PROPN": 12}
CLOSED_CLASSES = {"DET": 4, "PRON": 5, "ADP": 6, "AUX": 3, "CCONJ": 2, "SCONJ": 3}
# (tag, tag, number of stems that belong to both)
AMBIGUOUS = (("NOUN", "VERB", 10), ("ADJ", "NOUN", 6), ("ADJ", "ADV", 5), ("DET", "PRON", 1), ("ADP", "SCONJ", 1))


class Word(NamedTuple):
    """A stem and a suffix in the source language's letters, and the universal part-of-speech tag."""

    stem: str
    suffix: str
    tag: str


@dataclass(frozen=True)
class WordOrder:
    """The positions of heads; the defaults are English: subject verb object, adjectives and adpositions first."""

    verb_final: bool = False
    adjectives_follow: bool = False
    postpositions: bool = False


class Lexicon:
    """The stems of each part of speech, with a Zipf distribution: the r-th of a class has weight 1 / (r + 2)."""

    def __init__(self, rng: random.Random) -> None:
        used: set[str] = set()
        self.stems: dict[str, list[str]] = {}
        for tag, size in OPEN_CLASSES.items():
            self.stems[tag] = [_new_stem(rng, used, syllables=(2, 3)) for _ in range(size)]
        for tag, size in CLOSED_CLASSES.items():
            self.stems[tag] = [_new_stem(rng, used, syllables=(1, 1)) for _ in range(size)]
        for first, second, shared in AMBIGUOUS:
            # Every other rank, so that ambiguous stems are frequent in both classes.
            for rank in range(shared):
                self.stems[second][2 * rank] = self.stems[first][2 * rank + 1]
        self._weights = {
            tag: list(accumulate(1 / (rank + 2) for rank in range(len(stems)))) for tag, stems in self.stems.items()
        }

    def draw(self, rng: random.Random, tag: str) -> str:
        """Draw a stem with the part of speech `tag`."""
        return rng.choices(self.stems[tag], cum_weights=self._weights[tag])[0]

    def all_stems(self) -> list[str]:
        """Return every stem once, in a fixed order."""
        return sorted({stem for stems in self.stems.values() for stem in stems})


def _new_stem(rng: random.Random, used: set[str], syllables: tuple[int, int]) -> str:
    while True:
        stem = "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(rng.randint(*syllables)))
        if stem not in used:
            used.add(stem)
            return stem


class Grammar:
    """Draws tagged sentences over a lexicon; languages of one grammar share its rules and differ in word order."""

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon

    def sentence(self, rng: random.Random, order: WordOrder) -> list[Word]:
        """Draw a sentence of about 4 to 20 words, tagged with universal parts of speech, with punctuation last."""
        words = self._clause(rng, order)
        draw = rng.random()
        if draw < 0.15:
            words += [self._word(rng, "CCONJ"), *self._clause(rng, order)]
        elif draw < 0.3:
            words += [Word(",", "", "PUNCT"), self._word(rng, "SCONJ"), *self._clause(rng, order)]
        return [*words, Word(rng.choices([".", "?", "!"], [8, 1, 1])[0], "", "PUNCT")]

    def _word(self, rng: random.Random, tag: str, suffix: str = "") -> Word:
        return Word(self.lexicon.draw(rng, tag), suffix, tag)

    def _clause(self, rng: random.Random, order: WordOrder) -> list[Word]:
        subject, plural = self._noun_phrase(rng, order)
        complements: list[Word] = []
        if rng.random() < 0.65:
            complements += self._noun_phrase(rng, order)[0]
        if rng.random() < 0.3:
            complements += self._adposition_phrase(rng, order)
        return subject + self._around_verb(self._verb_group(rng, plural), complements, order)

    @staticmethod
    def _around_verb(verb: list[Word], complements: list[Word], order: WordOrder) -> list[Word]:
        return [*complements, *reversed(verb)] if order.verb_final else [*verb, *complements]

    def _verb_group(self, rng: random.Random, plural: bool) -> list[Word]:
        if rng.random() < 0.3:
            group = [self._word(rng, "AUX"), self._word(rng, "VERB")]
        else:
            group = [self._word(rng, "VERB", "ta" if rng.random() < 0.4 else "" if plural else "s")]
        if rng.random() < 0.25:
            group.insert(len(group) - 1, self._word(rng, "ADV"))
        return group

    def _noun_phrase(self, rng: random.Random, order: WordOrder) -> tuple[list[Word], bool]:
        draw = rng.random()
        if draw < 0.15:
            return [self._word(rng, "PRON")], False
        if draw < 0.3:
            return [self._word(rng, "PROPN")], False
        plural = rng.random() < 0.4
        noun = self._word(rng, "NOUN", "s" if plural else "")
        determiner = []
        if plural and rng.random() < 0.3:
            determiner = [Word(str(rng.randint(2, 99)), "", "NUM")]
        elif rng.random() < 0.8:
            determiner = [self._word(rng, "DET")]
        adjectives = [self._word(rng, "ADJ") for _ in range(rng.choices([0, 1, 2], [5, 4, 1])[0])]
        words = [*determiner, noun, *adjectives] if order.adjectives_follow else [*determiner, *adjectives, noun]
        if rng.random() < 0.12:
            words += self._adposition_phrase(rng, order)
        return words, plural

    def _adposition_phrase(self, rng: random.Random, order: WordOrder) -> list[Word]:
        phrase, adposition = self._noun_phrase(rng, order)[0], self._word(rng, "ADP")
        return [*phrase, adposition] if order.postpositions else [adposition, *phrase]
