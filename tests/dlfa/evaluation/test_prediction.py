"""What can be predicted: text, tokens, pairs, questions."""

import dataclasses
import json

import pytest
import torch

from dlfa import DLFAForQuestionAnswering, DLFAForTokenClassification
from dlfa.data.examples import DataError, LabelledText, Question, TaggedSentence
from dlfa.data.token_files import read_token_file
from dlfa.evaluation.prediction import predict, read_input
from dlfa.evaluation.saved_runs import load_run
from dlfa.runs.run_config import RunConfig
from dlfa.tasks import get_task
from dlfa.training.train import train

UDPOS, XNLI, XQUAD = get_task("udpos"), get_task("xnli"), get_task("xquad")


def words(examples):
    return [example.words for example in examples]


@pytest.mark.parametrize(
    ("text", "input_format", "found"),
    [
        ("The dog runs .\n\nIt sleeps\r\n", "auto", [("The", "dog", "runs", "."), ("It", "sleeps")]),
        ("The\ndog\n\nIt\n", "auto", [("The", "dog"), ("It",)]),
        ("The\tDET\ndog\tNOUN\n\nIt\tPRON\n", "auto", [("The", "dog"), ("It",)]),
        ("Go\nRun\n", "auto", [("Go",), ("Run",)]),  # sentences of one word
        ("Go\nRun\n\n", "auto", [("Go",), ("Run",)]),
        ("Go\nRun\n", "tokens", [("Go", "Run")]),
        ("Go\n\nRun\n", "text", [("Go",), ("Run",)]),
        ("1 000\tNUM\nkm\tNOUN\n", "tokens", [("1 000", "km")]),
        ("a\n\u00a0\n\n\u3000\n", "auto", [("a", "\u00a0"), ("\u3000",)]),
        ("1 000\tNUM\nkm\n", "auto", [("1 000", "km")]),
        ("The dog\truns .\nIt sleeps\n", "text", [("The", "dog", "runs", "."), ("It", "sleeps")]),
    ],
)
def test_sentences_are_read(tmp_path, text, input_format, found):
    path = tmp_path / "input"
    path.write_bytes(text.encode())
    assert words(read_input(UDPOS, path, input_format)) == found


def test_unreadable_input_is_named(tmp_path):
    path = tmp_path / "input"
    path.write_bytes(b"ok\n\xff\n")
    with pytest.raises(DataError, match=r"input:2: .*no valid UTF-8"):
        read_input(UDPOS, path)
    path.write_text("a\tb\nc\n")
    expected = r"expected 2 or 3 tab-separated columns \(premise<TAB>hypothesis\[<TAB>label\]\)"
    with pytest.raises(DataError, match=rf"input:2: {expected}, got 1: 'c'"):
        read_input(XNLI, path)
    path.write_text("a\tb\tc\td\n")
    with pytest.raises(DataError, match=rf"input:1: {expected}, got 4"):
        read_input(XNLI, path)
    path.write_text("a\tb\t\n")
    with pytest.raises(DataError, match=r"input:1: the label is empty"):
        read_input(XNLI, path)
    path.write_text("\n\n")
    with pytest.raises(DataError, match="nothing to predict"):
        read_input(UDPOS, path)
    path.write_text("It sleeps\n\nThe dog\truns .\n")
    with pytest.raises(DataError, match=r"input: line 3 holds a tab.* line 1 words without.* give --input-format"):
        read_input(UDPOS, path)
    with pytest.raises(ValueError, match="input format must be one of auto, text, tokens, got 'csv'"):
        read_input(UDPOS, path, "csv")
    with pytest.raises(ValueError, match="--input-format is for tagging, got the task xnli"):
        read_input(XNLI, path, "tokens")


def test_pairs_are_read_with_and_without_a_label(tmp_path):
    path = tmp_path / "input"
    path.write_text("a\tb\nc\td\tneutral\n")
    assert read_input(XNLI, path) == [LabelledText(("a", "b")), LabelledText(("c", "d"))]
    path.write_text('"a ""b"""\tc\n')  # as in XTREME's files
    assert read_input(XNLI, path) == [LabelledText(('a "b"', "c"))]


def test_pair_model_end_to_end(encoder, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    rows = [("a a", "b b", "entailment"), ("a a", "c c", "neutral"), ("a a", "d d", "contradiction")]
    lines = "".join("\t".join(row) + "\n" for row in rows * 8)
    for name in ("train-en", "dev-en", "test-en", "test-de"):
        (data / f"{name}.tsv").write_text(lines)
    config = RunConfig(
        task="xnli", model=str(encoder), output_dir=tmp_path / "run", data_dir=data, model_options={"fusion_layer": 1},
        learning_rate=1e-2, epochs=8, batch_size=4, gradient_accumulation=1, max_length=32,
    )  # fmt: skip
    results = train(config)
    assert results["languages"]["de"] == {"accuracy": 1.0, "f1": 1.0, "examples": 24}
    assert (results["metric"], results["average_zero_shot"]) == ("accuracy", 1.0)
    assert (tmp_path / "run/predictions/test-de.tsv").read_text().splitlines() == [row[2] for row in rows * 8]
    run = load_run(tmp_path / "run")
    assert run.max_length == 32
    examples = [LabelledText(row[:2]) for row in rows]
    assert "".join(predict(run, examples)) == "".join("\t".join(row) + "\n" for row in rows)
    for config, dtype in ((run.config, torch.float32), (dataclasses.replace(run.config, bf16=True), torch.bfloat16)):
        seen = []
        hook = run.model.classifier.register_forward_hook(lambda *call, seen=seen: seen.append(call[2].dtype))
        list(predict(dataclasses.replace(run, config=config), examples))
        hook.remove()
        assert set(seen) == {dtype}


def save_with_tokenizer(model, encoder, path):
    """Save a model, with the tokenizer of its encoder."""
    model.save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).write_bytes((encoder / name).read_bytes())


@pytest.mark.parametrize("labels", [UDPOS.labels[::-1], UDPOS.labels[:-1]], ids=["another order", "one too few"])
def test_a_model_of_other_labels_is_refused(encoder, tmp_path, labels):
    model = DLFAForTokenClassification.from_encoder(encoder, fusion_layer=1, id2label=dict(enumerate(labels)))
    save_with_tokenizer(model, encoder, tmp_path / "model")
    with pytest.raises(ValueError, match=f"has the labels {labels[0]}, .*, task udpos has {UDPOS.labels[0]}, "):
        load_run(tmp_path / "model", "udpos", max_length=16)


def test_labels_may_be_listed_in_any_order(encoder, tmp_path):
    model = DLFAForTokenClassification.from_encoder(encoder, fusion_layer=1, id2label=dict(enumerate(UDPOS.labels)))
    save_with_tokenizer(model, encoder, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    config["id2label"] = dict(sorted(config["id2label"].items(), reverse=True))
    path.write_text(json.dumps(config))
    assert load_run(tmp_path / "model", "udpos", max_length=16).task is UDPOS


def test_questions_are_answered_as_json(encoder, tmp_path):
    file = {"data": [{"paragraphs": [{"context": "a b c", "qas": [{"id": "7", "question": "who"}]}]}]}
    path = tmp_path / "questions.json"
    path.write_text(json.dumps(file))
    model = DLFAForQuestionAnswering.from_encoder(encoder, fusion_layer=1)
    save_with_tokenizer(model, encoder, tmp_path / "model")
    run = load_run(tmp_path / "model", "xquad", max_length=32)
    answer = json.loads("".join(predict(run, read_input(XQUAD, path))))
    assert list(answer) == ["7"]
    assert answer["7"] in {"a", "b", "c", "a b", "b c", "a b c"}
    assert run.config is None


def test_tags_come_word_by_word(encoder, tmp_path):
    model = DLFAForTokenClassification.from_encoder(
        encoder, fusion_layer=1, id2label=dict(enumerate(UDPOS.labels)), label_subword="mean"
    )
    save_with_tokenizer(model, encoder, tmp_path / "model")
    run = load_run(tmp_path / "model", "udpos", max_length=16)
    long = TaggedSentence(tuple("word" for _ in range(30)))
    spaces = TaggedSentence(("\u00a0", "a", "\u3000", "\u0085", "\u2028", "\x1c", "\x0c", "b\u00a0c", "\u200b"))
    (tmp_path / "predicted").write_text("".join(predict(run, [spaces, long, spaces])), encoding="utf-8", newline="")
    for input_format in ("auto", "tokens"):
        assert words(read_input(UDPOS, tmp_path / "predicted", input_format)) == [
            spaces.words,
            long.words,
            spaces.words,
        ]
    tagged = read_token_file(tmp_path / "predicted", UDPOS.labels)
    assert words(tagged) == [spaces.words, long.words, spaces.words]
    assert "".join(predict(run, tagged)).encode() == (tmp_path / "predicted").read_bytes()
    text = "".join(predict(run, [long, TaggedSentence(("\u200b",))]))
    first, second = text.strip("\n").split("\n\n")
    assert [line.split("\t")[0] for line in first.split("\n")] == list(long.words)
    assert all(line.split("\t")[1] in UDPOS.labels for line in first.split("\n"))
    assert second.split("\t")[0] == "\u200b"


def test_examples_are_labelled_block_by_block(encoder, tmp_path, monkeypatch, capsys):
    """With a bar that goes by batches, and of questions with one JSON object for all."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes standard error for a terminal
    tagger = DLFAForTokenClassification.from_encoder(encoder, fusion_layer=1, id2label=dict(enumerate(UDPOS.labels)))
    save_with_tokenizer(tagger, encoder, tmp_path / "tagger")
    run = load_run(tmp_path / "tagger", "udpos", max_length=16)
    sentences = [TaggedSentence(tuple("abcdefg"[:length])) for length in (3, 1, 7, 2, 5)]
    whole = "".join(predict(run, sentences))
    reader = DLFAForQuestionAnswering.from_encoder(encoder, fusion_layer=1)
    save_with_tokenizer(reader, encoder, tmp_path / "reader")
    answering = load_run(tmp_path / "reader", "xquad", max_length=32)
    questions = [Question(str(number), "who", "a b c", ()) for number in range(3)]
    answers = "".join(predict(answering, questions))
    capsys.readouterr()
    monkeypatch.setattr("dlfa.evaluation.prediction.BLOCK", 2)
    blocks = list(predict(run, sentences, batch_size=1, progress=True))
    assert [block.count("\n\n") for block in blocks] == [2, 2, 1]
    assert "".join(blocks) == whole
    said = capsys.readouterr()
    assert said.out == ""
    assert "predict" in said.err
    assert "100%" in said.err
    assert list(predict(answering, questions)) == [answers]
    assert list(json.loads(answers)) == ["0", "1", "2"]
