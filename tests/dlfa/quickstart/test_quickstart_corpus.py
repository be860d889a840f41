"""The made-up languages differ in what they are said to differ in, and in nothing else."""

from __future__ import annotations

import random
from collections import defaultdict
from itertools import chain, combinations, pairwise
from pathlib import Path

import pytest

from dlfa.quickstart.corpus import LANGUAGES, Corpus, CorpusSize, Language
from dlfa.quickstart.grammar import LETTERS, Grammar, Lexicon, WordOrder
from dlfa.tasks import get_task
from dlfa.tasks.loading import load_task_data

SIZE = CorpusSize(text=300, train=40, dev=20, test=60)
BY_NAME = {language.name: language for language in LANGUAGES}


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus(1, SIZE)


def vocabulary(corpus: Corpus, language: Language) -> set[str]:
    return {word for words in corpus.sentences(language, "text", 3000) for word, _ in words if word[0].isalpha()}


def test_one_seed_gives_one_corpus(corpus: Corpus) -> None:
    again, other = Corpus(1, SIZE), Corpus(2, SIZE)
    for language in LANGUAGES:
        assert corpus.text(language) == again.text(language)
        assert corpus.text(language) != other.text(language)
        assert len(corpus.text(language)) == SIZE.text


def test_parts_and_languages_are_drawn_independently(corpus: Corpus) -> None:
    train = {tuple(words) for words in corpus.sentences(BY_NAME["en"], "train", 500)}
    test = {tuple(words) for words in corpus.sentences(BY_NAME["en"], "test", 500)}
    assert len(train & test) < 25
    tags = [[tag for _, tag in words] for words in corpus.sentences(BY_NAME["en"], "test", 50)]
    assert tags != [[tag for _, tag in words] for words in corpus.sentences(BY_NAME["alphabet"], "test", 50)]


@pytest.mark.parametrize(("name", "least", "most"), [("order", 1.0, 1.0), ("half", 0.4, 0.6), ("alphabet", 0.0, 0.0)])
def test_languages_share_the_words_they_should(corpus: Corpus, name: str, least: float, most: float) -> None:
    words = vocabulary(corpus, BY_NAME[name])
    assert least <= len(words & vocabulary(corpus, BY_NAME["en"])) / len(words) <= most
    other = {word for word in words if not set(word) <= set(LETTERS)}
    assert all(not set(word) & set(LETTERS) for word in other), "a word mixes two alphabets"


def test_word_order() -> None:
    grammar, rng = Grammar(Lexicon(random.Random(1))), random.Random(2)
    reordered = WordOrder(verb_final=True, adjectives_follow=True, postpositions=True)
    pairs, finals = {}, {}
    for name, order in (("english", WordOrder()), ("reordered", reordered)):
        tags = [[word.tag for word in grammar.sentence(rng, order)] for _ in range(500)]
        assert all(sentence[-1] == "PUNCT" for sentence in tags)
        pairs[name] = {pair for sentence in tags for pair in pairwise(sentence)}
        finals[name] = {sentence[-2] for sentence in tags}
    assert finals == {"english": {"VERB", "NOUN", "PROPN", "PRON"}, "reordered": {"VERB", "AUX", "ADV"}}
    # adjectives beside their noun, adpositions beside their phrase
    assert ("DET", "ADJ") in pairs["english"] - pairs["reordered"]
    assert ("NOUN", "ADJ") in pairs["reordered"] - pairs["english"]
    assert {("VERB", "ADP"), ("SCONJ", "DET")} <= pairs["english"]
    assert ("ADP", "PUNCT") not in pairs["english"] | pairs["reordered"]
    assert ("ADP", "VERB") in pairs["reordered"] - pairs["english"]


def test_subject_and_verb_agree() -> None:
    grammar, rng = Grammar(Lexicon(random.Random(1))), random.Random(3)
    seen = set()
    for _ in range(400):
        sentence = grammar.sentence(rng, WordOrder())
        for before, word in pairwise(sentence):
            # The subject's noun stands right before its verb where nothing modifies either.
            if before.tag == "NOUN" and word.tag == "VERB" and word.suffix != "ta" and before is not sentence[0]:
                seen.add((before.suffix, word.suffix))
    assert {("s", ""), ("", "s")} <= seen


def test_some_words_need_their_context(corpus: Corpus) -> None:
    tags = defaultdict(set)
    for word, tag in chain.from_iterable(corpus.sentences(BY_NAME["en"], "train", 2000)):
        tags[word].add(tag)
    ambiguous = {pair for found in tags.values() for pair in combinations(sorted(found), 2)}
    assert {("NOUN", "VERB"), ("ADJ", "NOUN"), ("ADJ", "ADV"), ("DET", "PRON"), ("ADP", "SCONJ")} <= ambiguous


def test_the_files_are_those_of_the_task(corpus: Corpus, tmp_path: Path) -> None:
    corpus.write(tmp_path)
    data = load_task_data(get_task("udpos"), tmp_path)
    assert (len(data.train), len(data.dev)) == (SIZE.train, SIZE.dev)
    assert set(data.test) == set(BY_NAME)
    assert {len(examples) for examples in data.test.values()} == {SIZE.test}
    first = next(corpus.sentences(BY_NAME["distant"], "test", 1))
    assert list(zip(data.test["distant"][0].words, data.test["distant"][0].tags, strict=True)) == first  # type: ignore[union-attr]
