"""Evaluation: the same scores however examples are batched, split or shared out."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_tasks import make_tokenizer, make_udpos
from transformers import AutoTokenizer

from dlfa import DLFAForSequenceClassification, DLFAForTokenClassification
from dlfa.data.batching import PaddingCollator, by_length
from dlfa.data.examples import LabelledText, Question, TaggedSentence
from dlfa.evaluation.evaluate import evaluate, example_scores, model_for, score_language
from dlfa.tasks import Encoding, get_task
from dlfa.tasks.model_inputs import ModelInputs

UDPOS, XNLI, XQUAD = get_task("udpos"), get_task("xnli"), get_task("xquad")


@pytest.fixture(scope="module")
def tokenizer(encoder):
    return AutoTokenizer.from_pretrained(encoder)


def tagger(encoder, label_subword="first"):
    torch.manual_seed(0)
    return DLFAForTokenClassification.from_encoder(
        encoder, fusion_layer=1, id2label=dict(enumerate(UDPOS.labels)), label_subword=label_subword
    )


def inputs_of(tokenizer, task=UDPOS, *, max_length=64, label_subword="first"):
    return ModelInputs(task, tokenizer, Encoding(max_length, label_subword))


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = make_udpos(tmp_path_factory.mktemp("udpos"), test=30)
    return UDPOS.read_file(folder / "test-de.tsv")


def close(left, right, atol=5e-6):
    """Whether scores agree: log-probabilities down to -4, which batches of other sizes move by 5e-7 at most."""
    return all(np.allclose(a, b, rtol=0, atol=atol) for a, b in zip(left, right, strict=True))


def test_collator_pads_each_input_by_its_own_value():
    collate = PaddingCollator(make_tokenizer())
    batch = collate(
        [
            {"input_ids": [5, 6, 7], "attention_mask": [1, 1, 1], "labels": [1, 2], "word_index": [-1, 0, 1]},
            {"input_ids": [5], "attention_mask": [1], "labels": [3], "word_index": [-1]},
        ]
    )
    assert {name: values.tolist() for name, values in batch.items()} == {
        "input_ids": [[5, 6, 7], [5, 0, 0]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
        "labels": [[1, 2], [3, -100]],
        "word_index": [[-1, 0, 1], [-1, -1, -1]],
    }
    assert all(values.dtype == torch.int64 for values in batch.values())
    assert collate([{"labels": 2}, {"labels": 0}])["labels"].tolist() == [2, 0]
    tokenizer = make_tokenizer()
    tokenizer._pad_token_type_id = 3  # as XLNet's
    types = PaddingCollator(tokenizer)([{"token_type_ids": [0, 1]}, {"token_type_ids": [2]}])
    assert types["token_type_ids"].tolist() == [[0, 1], [2, 3]]


def test_features_are_made_once_for_training_and_once_without_labels(examples):
    inputs = ModelInputs(UDPOS, make_tokenizer(), Encoding(32))
    plain, training = (inputs.features(examples, training=training) for training in (False, True))
    assert all("labels" in feature.inputs for feature in training)
    assert not any("labels" in feature.inputs for feature in plain)
    assert inputs.features(examples, training=True) is training
    assert inputs.features(examples, training=False) is plain
    assert inputs.features(list(examples), training=False) is not plain


@pytest.mark.parametrize(
    ("task", "found"),
    [
        (UDPOS, [TaggedSentence(("a", "b" * number), ("NOUN", "VERB")) for number in range(1, 6)]),
        (XNLI, [LabelledText(("a", "b" * number), "neutral") for number in range(1, 6)]),
        (XQUAD, [Question(str(number), "who", "a " * 9 * number, (("a", 0),)) for number in range(1, 6)]),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_examples_are_encoded_in_blocks_to_the_same_features(monkeypatch, task, found):
    """In calls of the tokenizer of some examples each: its encodings of all of them at once take gigabytes."""

    def encoded(block):
        monkeypatch.setattr("dlfa.tasks.model_inputs.BLOCK", block)
        counts = []
        inputs = inputs_of(make_tokenizer(), task, max_length=16)
        features = inputs.features(found, training=True, on_encoded=counts.append)
        assert inputs.features(found, training=True, on_encoded=counts.append) is features
        return counts, [(feature.inputs, feature.example) for feature in features]

    counts, features = encoded(2)
    assert counts == [2, 2, 1]
    assert features == encoded(5)[1]
    assert [example for _, example in features] == sorted(example for _, example in features)
    assert {example for _, example in features} == set(range(5))


def test_batches_are_told_as_they_are_done(encoder, tokenizer, examples, capsys):
    model, inputs, told = tagger(encoder), inputs_of(tokenizer), []
    example_scores(model, inputs, examples[:5], batch_size=2, on_batch=lambda *numbers: told.append(numbers))
    assert told == [(1, 3), (2, 3), (3, 3)]
    data = {"en": examples[:5], "de": examples[5:6], "fr": examples[6:9]}
    capsys.readouterr()  # the bar of loading, which reaches 100 %, too
    evaluate(model, inputs, data, progress=True)
    said = capsys.readouterr()
    assert said.out == ""
    assert "evaluate fr" in said.err
    assert "100%" in said.err


def test_each_process_tells_its_own_batches(encoder, tokenizer, examples, monkeypatch):
    told = []

    class Gathering(Exception):
        pass

    def gather(done):
        raise Gathering

    state = SimpleNamespace(process_index=1, num_processes=2)
    monkeypatch.setattr("dlfa.evaluation.evaluate.process_state", lambda: state)
    monkeypatch.setattr("dlfa.evaluation.evaluate.gather_object", gather)
    with pytest.raises(Gathering):
        example_scores(
            tagger(encoder), inputs_of(tokenizer), examples[:9], batch_size=2, on_batch=lambda *of: told.append(of)
        )
    assert told == [(1, 2), (2, 2)]


def test_batches_hold_neighbours_in_length():
    batches = by_length([3, 9, 1, 4, 8], 2)
    assert batches == [[1, 4], [3, 0], [2]]
    assert by_length([], 4) == []


@pytest.mark.parametrize("label_subword", ["first", "last", "mean"])
def test_scores_do_not_depend_on_the_batch(encoder, tokenizer, examples, label_subword):
    model = tagger(encoder, label_subword)
    single = example_scores(model, inputs_of(tokenizer, label_subword=label_subword), examples, batch_size=1)
    many = example_scores(model, inputs_of(tokenizer, label_subword=label_subword), examples, batch_size=16)
    assert close(single, many)
    assert [scores.shape for scores in single] == [(len(example.words), 17) for example in examples]
    assert all(np.allclose(np.exp(scores).sum(-1), 1, atol=1e-5) for scores in single)


def test_scores_are_those_of_the_labelled_subword(encoder, tokenizer):
    example = TaggedSentence(("naus", "vat"), ("NOUN", "VERB"))
    model = tagger(encoder, "last").eval()
    inputs = tokenizer("naus vat", return_tensors="pt")
    with torch.no_grad():
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[0]
    # [CLS] n a u s v a t [SEP]
    expected = torch.log_softmax(logits[[4, 7]], -1).numpy()
    assert close(example_scores(model, inputs_of(tokenizer, label_subword="last"), [example]), [expected])


def test_split_sentences_are_scored_whole(encoder, tokenizer, examples):
    model = tagger(encoder)
    result = evaluate(model, inputs_of(tokenizer, max_length=8), {"de": examples})["de"]
    assert list(map(len, result.predictions)) == [len(example.words) for example in examples]
    # Words of 3 and 4 letters do not share a window of 4: each is run by itself, as if it were the sentence.
    words = ("naus", "ter", "vibt", "tas")
    sentence = [TaggedSentence(words, ("NOUN",) * 4)]
    apart = [TaggedSentence((word,), ("NOUN",)) for word in words]
    split = example_scores(model, inputs_of(tokenizer, max_length=6), sentence)[0]
    assert close(split[:, None], example_scores(model, inputs_of(tokenizer, max_length=6), apart))


def test_mode_of_the_model_is_restored(encoder, tokenizer, examples):
    model = tagger(encoder).train()
    first = example_scores(model, inputs_of(tokenizer), examples)
    assert model.training
    model.eval()
    assert close(first, example_scores(model, inputs_of(tokenizer), examples))
    assert not model.training


def test_autocast_is_used(encoder, tokenizer, examples):
    model = tagger(encoder)
    full = example_scores(model, inputs_of(tokenizer), examples)
    low = example_scores(model, inputs_of(tokenizer), examples, autocast=torch.bfloat16)
    assert not all(np.array_equal(a, b) for a, b in zip(full, low, strict=True))
    assert close(full, low, atol=torch.finfo(torch.bfloat16).eps)  # five times what the worst of 8 seeds is off by


def test_metrics_come_from_the_predictions(encoder, tokenizer, examples):
    result = evaluate(tagger(encoder), inputs_of(tokenizer), {"de": examples})["de"]
    pairs = zip(examples, result.predictions, strict=True)
    right = sum(gold == guess for example, tags in pairs for gold, guess in zip(example.tags, tags, strict=True))
    words = sum(len(example.words) for example in examples)
    assert result.metrics["accuracy"] == pytest.approx(right / words)


def test_pairs_are_scored(encoder, tokenizer):
    assert model_for(XNLI) is DLFAForSequenceClassification
    torch.manual_seed(0)
    model = DLFAForSequenceClassification.from_encoder(encoder, fusion_layer=1, id2label=dict(enumerate(XNLI.labels)))
    pairs = [LabelledText(("a b", "c"), "neutral"), LabelledText(("d " * 300, "e f"), "contradiction")]
    result = evaluate(model, inputs_of(tokenizer, XNLI, max_length=32), {"de": pairs})["de"]
    assert [scores.shape for scores in result.scores] == [(3,), (3,)]
    inputs = tokenizer("a b", "c", return_tensors="pt")
    with torch.no_grad():
        logits = model.eval()(**inputs).logits[0]
    assert result.predictions[0] == XNLI.labels[int(logits.argmax())]
    assert set(result.metrics) == {"accuracy", "f1"}
    assert XNLI.prediction_text(pairs, result.predictions).splitlines() == result.predictions


def test_long_pairs_are_cut_to_the_limit(tokenizer):
    (feature,) = XNLI.encode([LabelledText(("d " * 300, "e f"), "neutral")], tokenizer, Encoding(32), training=True)
    assert len(feature.inputs["input_ids"]) == 32
    assert tokenizer.convert_ids_to_tokens(feature.inputs["input_ids"])[-3:] == ["e", "f", "[SEP]"]
    assert feature.inputs["labels"] == XNLI.labels.index("neutral")


@pytest.mark.parametrize("max_length", [1, 2, 4])
def test_pairs_need_room_for_a_token_of_each_text(tokenizer, max_length):
    with pytest.raises(ValueError, match=f"max_length must be at least 5, .*got {max_length}"):
        XNLI.encode([LabelledText(("a", "b"))], tokenizer, Encoding(max_length), training=False)


def test_score_that_is_no_number_is_an_error(examples):
    task = dataclasses.replace(UDPOS)
    object.__setattr__(task, "score", lambda *_: {"f1": float("nan")})
    with pytest.raises(FloatingPointError, match="de: f1 of udpos"):
        score_language(task, "de", examples, [np.zeros((len(e.words), 17)) for e in examples])


def test_scores_that_decide_nothing_are_an_error(encoder, tokenizer, examples):
    model = tagger(encoder)
    with torch.no_grad():
        model.classifier.bias[1] = -torch.inf  # a label that is ruled out
    ruled_out = example_scores(model, inputs_of(tokenizer), examples)
    assert all((scores[:, 1] == -np.inf).all() and np.isfinite(scores.max(axis=1)).all() for scores in ruled_out)
    for value in (torch.nan, torch.inf):
        with torch.no_grad():
            model.classifier.bias[1] = value
        for run, data in ((example_scores, examples), (evaluate, {"de": examples})):
            with pytest.raises(FloatingPointError, match="scores of 30 of 30 sequences are NaN or infinite"):
                run(model, inputs_of(tokenizer), data)


def test_padding_may_be_no_number(encoder, tokenizer, examples):
    model = tagger(encoder)
    expected = example_scores(model, inputs_of(tokenizer), examples, batch_size=8)

    def spoil(module, inputs, keywords, output):
        output.logits = output.logits.masked_fill(keywords["attention_mask"][..., None] == 0, torch.nan)

    model.register_forward_hook(spoil, with_kwargs=True)
    assert close(expected, example_scores(model, inputs_of(tokenizer), examples, batch_size=8))
