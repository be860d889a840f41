"""The readers of the on-disk layout: what they take, and what they refuse with file and line."""

import json
from pathlib import Path

import pytest

from dlfa.data.examples import DataError, LabelledText, Question, TaggedSentence
from dlfa.data.squad_files import read_squad_file
from dlfa.data.text_files import read_text_file, unquoted
from dlfa.data.token_files import read_token_file

TAGS = ("DET", "NOUN", "VERB")


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_token_file_is_read(tmp_path):
    path = write(tmp_path / "test-en.tsv", "the\tDET\ndog\tNOUN\n\nruns\tVERB\n\n")
    assert read_token_file(path, TAGS) == [
        TaggedSentence(("the", "dog"), ("DET", "NOUN")),
        TaggedSentence(("runs",), ("VERB",)),
    ]


@pytest.mark.parametrize(
    "content",
    [
        "the\tDET\r\ndog\tNOUN\r\n\r\nruns\tVERB\r\n",  # CRLF
        "the\tDET\ndog\tNOUN\n\nruns\tVERB",  # no final newline
        "\n\nthe\tDET\ndog\tNOUN\n\n\n\nruns\tVERB\n\n\n",  # blank lines in plenty
        "the\tDET\ndog\tNOUN\n  \nruns\tVERB\n \n",  # blank but for spaces
        "\ufeffthe\tDET\ndog\tNOUN\n\nruns\tVERB\n",  # byte order mark
    ],
)
def test_token_file_endings_do_not_matter(tmp_path, content):
    sentences = read_token_file(write(tmp_path / "a.tsv", content), TAGS)
    assert [sentence.words for sentence in sentences] == [("the", "dog"), ("runs",)]


def test_only_line_feeds_end_lines(tmp_path):
    # U+2028, U+0085 and form feeds end lines for str.splitlines, but stand inside words of real corpora.
    path = write(tmp_path / "a.tsv", "a\u2028b\tNOUN\nc\u0085d\tNOUN\ne\x0cf\tVERB\n")
    assert read_token_file(path, TAGS)[0].words == ("a\u2028b", "c\u0085d", "e\x0cf")


def test_white_space_but_for_blanks_is_a_word(tmp_path):
    spaces = ("\u00a0", "\u3000", "\u0085", "\u2028", "\x1c", "\x0c")
    path = write(tmp_path / "a.tsv", "".join(f"{space}\tNOUN\n" for space in spaces))
    assert read_token_file(path, TAGS) == [TaggedSentence(spaces, ("NOUN",) * len(spaces))]


@pytest.mark.parametrize(
    ("content", "line", "needs"),
    [
        ("the\tDET\ndog\n", 2, ["expected 2 tab-separated columns (token<TAB>tag)", "got 1", "'dog'"]),
        ("the\tDET\ndog\tNOUN\textra\n", 2, ["expected 2", "got 3"]),
        ("the\tDET\n\tNOUN\n", 2, ["token is empty"]),
        ("the\tDET\n \tNOUN\n", 2, ["token is empty"]),
        ("the\tDET\n\ndog\t\n", 3, ["tag is empty"]),
        ("the\tDET\ndog\tNUON\n", 2, ["unknown tag 'NUON'", "DET, NOUN, VERB"]),
        (b"the\tDET\nd\xffg\tNOUN\n", 2, ["no valid UTF-8", "0xff", "byte 2"]),
        (b"the\tDET\nd\0g\tNOUN\n", 2, ["byte 2 of the line is NUL", "needed is a text in UTF-8"]),
        ("the\tDET\n".encode("utf-16-le"), 1, ["byte 2 of the line is NUL"]),
        ("the\tDET\n\u00a0\ndog\tNOUN\n", 2, ["expected 2", "got 1"]),
    ],
)
def test_malformed_token_line_is_named(tmp_path, content, line, needs):
    path = write(tmp_path / "test-de.tsv", content)
    with pytest.raises(DataError) as caught:
        read_token_file(path, TAGS)
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: ")
    assert "\n" not in message
    for part in needs:
        assert part in message


@pytest.mark.parametrize("content", ["", "\n\n\n", "\ufeff"])
def test_empty_token_file_is_refused(tmp_path, content):
    with pytest.raises(DataError, match="file is empty"):
        read_token_file(write(tmp_path / "a.tsv", content), TAGS)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_token_file(tmp_path / "a.tsv", TAGS)


def test_text_file_is_read(tmp_path):
    path = write(tmp_path / "a.tsv", "A man.\tA dog.\tneutral\r\nOne\tTwo\tentailment")
    assert read_text_file(path, ("premise", "hypothesis"), ("neutral", "entailment")) == [
        LabelledText(("A man.", "A dog."), "neutral"),
        LabelledText(("One", "Two"), "entailment"),
    ]


def test_blank_lines_after_the_last_text_are_none(tmp_path):
    path = write(tmp_path / "a.tsv", "A man.\tA dog.\tneutral\r\n\r\n  \n\n")
    assert len(read_text_file(path, ("premise", "hypothesis"), ("neutral",))) == 1
    with pytest.raises(DataError, match="file is empty"):
        read_text_file(write(tmp_path / "b.tsv", "\n\n"), ("premise", "hypothesis"), ("neutral",))


def test_files_without_labels_are_told_apart_from_blank_lines(tmp_path):
    for content, told in (("A man.\n", True), ("A man.\tneutral\n\nA dog.\tneutral\n", False)):
        with pytest.raises(DataError) as caught:
            read_text_file(write(tmp_path / "a.tsv", content), ("text",), ("neutral",))
        assert ("carry no labels" in str(caught.value)) == told


@pytest.mark.parametrize(
    ("content", "line", "needs"),
    [
        ("a\tb\tneutral\na\tneutral\n", 2, ["premise<TAB>hypothesis<TAB>label", "got 2"]),
        ("a\tb\tneutral\n\na\tb\tneutral\n", 2, ["got 1: ''"]),
        ("a\tb\tneutral\n\t\t\n", 2, ["premise is empty"]),
        ("a\tb\tc\tneutral\n", 1, ["got 4"]),
        ("a\t\tneutral\n", 1, ["hypothesis is empty"]),
        ("a\tb\tmaybe\n", 1, ["unknown label 'maybe'", "neutral, entailment"]),
    ],
)
def test_malformed_text_line_is_named(tmp_path, content, line, needs):
    path = write(tmp_path / "dev-en.tsv", content)
    with pytest.raises(DataError) as caught:
        read_text_file(path, ("premise", "hypothesis"), ("neutral", "entailment"))
    assert str(caught.value).startswith(f"{path}:{line}: ")
    for part in needs:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ('"He said ""no"" twice"', 'He said "no" twice'),
        ('"""Quoted"" at the start"', '"Quoted" at the start'),
        ('"Quoted"', '"Quoted"'),  # csv would have doubled these: they are the text's own
        ('"One" and "two"', '"One" and "two"'),
        ('"One" and ""two""', '"One" and ""two""'),
        ("plain", "plain"),
        ('""', '""'),
        ('"', '"'),
    ],
)
def test_csv_quoting_is_undone_only_where_csv_wrote_it(field, text):
    assert unquoted(field) == text


def squad(answers: object = None, id: str = "q1", question: str = "Who?") -> dict:
    qa = {
        "id": id,
        "question": question,
        "answers": [{"text": "Ann", "answer_start": 0}] if answers is None else answers,
    }
    return {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": "Ann ran.", "qas": [qa]}]}]}


def test_squad_file_is_read(tmp_path):
    path = write(tmp_path / "a.json", json.dumps(squad()))
    assert read_squad_file(path) == [Question("q1", "Who?", "Ann ran.", (("Ann", 0),))]


def test_an_answer_some_characters_off_is_no_malformed_one(tmp_path):
    path = write(tmp_path / "a.json", json.dumps(squad(answers=[{"text": "Ann", "answer_start": 7}])))
    assert read_squad_file(path)[0].answers == (("Ann", 7),)


def test_squad_file_without_answers_can_be_predicted_only(tmp_path):
    path = write(tmp_path / "a.json", json.dumps(squad(answers=[])))
    assert read_squad_file(path, need_answers=False)[0].answers == ()
    with pytest.raises(DataError, match=r"data\[0\].paragraphs\[0\].qas\[0\]: the question has no answers"):
        read_squad_file(path)


@pytest.mark.parametrize(
    ("content", "needs"),
    [
        ('{"data": [\n1,\n', ["a.json:3: no valid JSON"]),
        ('{"daten": []}', ["missing field 'data'"]),
        ('{"data": []}', ["holds no question"]),
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', ["data[0].paragraphs[0]", "missing field 'context'"]),
        ('{"data": [{"paragraphs": [{"context": "a", "qas": [3]}]}]}', ["qas[0]", "missing field 'id'"]),
        (json.dumps(squad(answers=[{"text": "Ann", "answer_start": "0"}])), ["answers[0]", "answer_start must be int"]),
        (json.dumps(squad(answers=[{"text": "Ann", "answer_start": True}])), ["answer_start must be int, got True"]),
        *(
            (
                json.dumps(squad(answers=[{"text": "Ann", "answer_start": start}])),
                ["answers[0]: answer_start must lie in the passage, which has 8 characters", f"got {start}"],
            )
            for start in (-5, -1, 8, 99999)
        ),
        (b'{"data":\n "\xff"}', ["a.json:2: byte 0xff"]),
        ("[" * 100_000, ["nested too deeply"]),
        (json.dumps(squad(id="x\ud83d")), ["qas[0]: id holds '\\ud83d' at character 1, half of a surrogate pair"]),
        (json.dumps(squad(question="\udc00?")), ["qas[0]: question holds '\\udc00' at character 0"]),
        (json.dumps({"data": squad()["data"] * 2}), ["'q1' comes twice"]),
    ],
)
def test_malformed_squad_file_is_named(tmp_path, content, needs):
    path = write(tmp_path / "a.json", content)
    with pytest.raises(DataError) as caught:
        read_squad_file(path)
    for part in needs:
        assert part in str(caught.value)
