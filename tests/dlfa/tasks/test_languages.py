"""Families and scripts: every language of every task has them, and they are right where data can tell."""

import unicodedata
from collections import Counter

import pytest

from dlfa.tasks import TASKS
from dlfa.tasks import languages as tables
from dlfa.tasks.language_families import FAMILIES, LANGUAGES, UNKNOWN, by_family, language

CODES = sorted(
    {code for task in TASKS.values() for code in task.languages} | {*tables.XQUAD, *tables.MLQA, *tables.TYDIQA}
)
# How Unicode names the letters of a script, where the names differ.
LETTERS = {"Han": {"CJK"}, "Japanese": {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}}


@pytest.mark.parametrize("code", CODES)
def test_every_language_of_every_task_is_known(code):
    found = language(code)
    assert found.code == code
    assert found.name != code
    assert found.family in FAMILIES
    assert found.script != UNKNOWN


def test_codes_are_unique_and_complete():
    assert len(LANGUAGES) == 49
    assert set(LANGUAGES) == set(CODES)


def test_an_unlisted_language_has_no_family():
    found = language("alphabet")
    assert (found.name, found.family, found.script) == ("alphabet", UNKNOWN, UNKNOWN)


def test_sorting_keeps_families_together():
    order = sorted(["zz", "fr", "hi", "de", "es", "en"], key=by_family)
    assert order == ["de", "en", "es", "fr", "hi", "zz"]


@pytest.mark.parametrize("name", ["udpos", "uner", "sick"])
def test_scripts_are_those_of_the_data(shared, name):
    for path in sorted((shared / "data" / name).glob("test-*.tsv")):
        script = language(path.stem.removeprefix("test-")).script
        text = "".join(line.split("\t")[0] for line in path.read_text(encoding="utf-8").splitlines()[:2000])
        letters = Counter(unicodedata.name(letter, "?").split()[0] for letter in text if letter.isalpha())
        expected = LETTERS.get(script, {script.upper()})
        share = sum(letters[kind] for kind in expected) / sum(letters.values())
        assert share > 0.9, (path.name, script, letters.most_common(3))
