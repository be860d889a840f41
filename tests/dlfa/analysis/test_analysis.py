"""Parts of a fusion, gate statistics and probes: against their definitions on small random models."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_encoders import batch, tiny_encoder
from tiny_tasks import make_udpos

from dlfa import DLFAForSequenceClassification, DLFAModel
from dlfa.analysis.analyzed_model import load_analyzed_model
from dlfa.analysis.gate_statistics import Contributions, GateStatistics, variance_shares
from dlfa.analysis.layer_contributions import fusion_parts
from dlfa.analysis.probes import language_probe, score_label_probes, train_label_probes
from dlfa.analysis.states import LanguageStates, language_states
from dlfa.data.examples import LabelledText, TaggedSentence
from dlfa.models.fusion_names import FUSIONS
from dlfa.tasks import TASKS, Encoding
from dlfa.tasks.loading import read_split

EVERY_FUSION = [
    {"fusion": "last", "fusion_layer": None},
    {"fusion": "lower", "fusion_layer": 1},
    {"fusion": "sum", "fusion_layer": [0, 2]},
    {"fusion": "scalar_mix", "fusion_layer": None},
    {"fusion": "scalar_mix", "fusion_layer": [1], "scalar_mix_layer_norm": True},
    {"fusion": "residual", "fusion_layer": [2, 0]},
    {"fusion": "aif", "fusion_layer": 1, "fuse": "gate"},
    {"fusion": "aif", "fusion_layer": 1, "fuse": "select", "kernel_size": 3},
    {"fusion": "aif", "fusion_layer": [2, 0], "fuse": "gate"},
    {"fusion": "aif", "fusion_layer": [2, 1, 0], "fuse": "select"},
]
assert {options["fusion"] for options in EVERY_FUSION} == set(FUSIONS)


def model(**options):
    torch.manual_seed(1)
    made = DLFAModel.from_encoder(tiny_encoder("bert"), **options).eval()
    for parameter in made.fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


@pytest.mark.parametrize("options", EVERY_FUSION, ids=lambda options: " ".join(map(str, options.values())))
def test_parts_add_up_to_the_fusions_output(options):
    made, inputs = model(**options), batch((7, 4, 1))
    with torch.inference_mode():
        states = made.encoder_states(**inputs)
        expected = made(**inputs, output_gate=options["fusion"] == "aif")
        names = [str(layer) for layer in made.config.lower_layers]
        found = fusion_parts(made.fusion, states.last, states.lowers, names, inputs["attention_mask"])
        total = sum(found.parts().values())
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(total[real], expected.last_hidden_state[real], rtol=1e-5, atol=1e-5)
    assert len(found.gates) == (len(names) if options["fusion"] == "aif" else 0)
    for gate, other in zip(found.gates, expected.get("gate") or (), strict=True):
        torch.testing.assert_close(gate[real], other[real])


def test_gate_statistics_are_those_of_all_values():
    generator = torch.Generator().manual_seed(0)
    statistics, kept = GateStatistics(), []
    for lengths in ((5, 3), (7, 1, 4)):
        gate = torch.rand(len(lengths), 8, 6, generator=generator)
        gate[..., 0] = 0.05
        gate[..., 1] = 0.95
        used = torch.arange(8) < torch.tensor(lengths)[:, None]
        statistics.add(gate, used)
        kept.append(gate[used])
    values = torch.cat(kept).double().numpy()
    summary = statistics.summary()
    assert summary["tokens"] == 20
    assert summary["mean"] == pytest.approx(values.mean())
    assert summary["deviation"] == pytest.approx(values.std())
    assert summary["closed"] == pytest.approx((values < 0.1).mean())
    assert summary["open"] == pytest.approx((values > 0.9).mean())
    assert summary["channels"] == pytest.approx(values.mean(0), abs=1e-4)
    assert (summary["channels_closed"], summary["channels_open"]) == pytest.approx((1 / 6, 1 / 6))
    for name, value in summary["quantiles"].items():
        assert (values <= value + 1e-3).mean() >= float(name) - 0.01
        assert (values < value - 1e-3).mean() <= float(name) + 0.01


@pytest.mark.parametrize("varies", ["channel", "language", "sentence", "token"])
def test_variance_is_found_where_it_is(varies):
    """A gate that varies in one respect alone has its variance there, all of it."""
    draw = np.random.default_rng(0)
    shape = {"channel": (1, 1, 1, 5), "language": (3, 1, 1, 5), "sentence": (3, 4, 1, 5), "token": (3, 4, 6, 5)}[varies]
    values = draw.uniform(0.2, 0.8, shape)
    if varies != "channel":  # whatever is wider than the respect in question must not vary
        axis = {"language": 0, "sentence": 1, "token": 2}[varies]
        values = values - values.mean(axis, keepdims=True) + 0.5
    gates = torch.tensor(np.broadcast_to(values, (3, 4, 6, 5)).copy(), dtype=torch.float32)
    statistics = {}
    for language, gate in zip("abc", gates, strict=True):
        statistics[language] = GateStatistics()
        statistics[language].add(gate, torch.ones(4, 6, dtype=torch.bool))
    shares = variance_shares(statistics)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares[varies] == pytest.approx(1, abs=1e-4)


def test_contributions_weigh_parts_by_coefficient_and_norm():
    made, inputs = model(fusion_layer=1, fuse="select"), batch((6, 2))
    with torch.inference_mode():
        states = made.encoder_states(**inputs)
        parts = fusion_parts(made.fusion, states.last, states.lowers, ["1"], inputs["attention_mask"])
    used = inputs["attention_mask"].bool()
    contributions = Contributions()
    contributions.add(parts, used)
    found = contributions.summary()
    gate = parts.gates[0][used]
    assert found["last"]["weight"] == pytest.approx(float(gate.mean()), rel=1e-5)
    assert found["1"]["weight"] == pytest.approx(float((1 - gate).mean()), rel=1e-5)
    upper, lower = (gate * states.last[used]).norm(dim=-1), ((1 - gate) * states.lowers[0][used]).norm(dim=-1)
    assert found["1"]["norm_share"] == pytest.approx(float((lower / (upper + lower)).mean()), rel=1e-5)


def made_states(shift, labels, layers=2, width=8, seed=0):
    """States whose first layer is noise and whose second tells label and, by `shift`, language."""
    draw = np.random.default_rng(seed)
    units = draw.normal(size=(layers, len(labels), width)).astype(np.float32)
    for row, label in enumerate(labels):
        units[1, row, 0] += 6 * (label == "NOUN")
    units[1, :, 1] += shift
    return LanguageStates(units, list(labels), [2] * (len(labels) // 2), units)


def test_a_label_probe_finds_what_transfers():
    labels = ["NOUN", "VERB"] * 40
    probes = train_label_probes(made_states(0, labels))
    examples = [TaggedSentence(("a", "b"), ("NOUN", "VERB"))] * 40
    scores = score_label_probes(probes, made_states(0, labels, seed=1), examples, TASKS["udpos"], "de")
    noise, told = scores["accuracy"]
    assert told > 0.95
    assert noise < 0.7
    assert scores["majority"] == [0.5]
    assert train_label_probes(made_states(0, ["NOUN", "VERB", "VERB", "X"])).majority == "VERB"
    with pytest.raises(ValueError, match="at least two different labels in its training data, got NOUN"):
        train_label_probes(made_states(0, ["NOUN"] * 4))


def test_a_language_probe_finds_the_layer_that_tells():
    states = {code: made_states(8 * index, ["X", "Y"] * 100, seed=index).units for index, code in enumerate("abc")}
    found = language_probe(states)
    assert found["chance"] == pytest.approx(1 / 3)
    assert found["accuracy"][1] > 0.95
    assert found["accuracy"][0] < 0.6
    assert found["log_loss"][1] < found["log_loss"][0]
    assert found["between_language_variance"][1] > found["between_language_variance"][0] + 0.05
    with pytest.raises(ValueError, match="at least two languages, got a"):
        language_probe({"a": states["a"]})
    with pytest.raises(ValueError, match="at least 5 sentences a language, b has 3"):
        language_probe({"a": states["a"], "b": states["b"][:, :3]})


def test_a_language_probe_weighs_languages_alike_and_tells_the_same_again():
    alike = {"a": np.zeros((1, 45, 4), dtype=np.float32), "b": np.zeros((1, 5, 4), dtype=np.float32)}
    assert language_probe(alike)["accuracy"] == [0.5]  # all are taken for the larger one's
    noise = np.random.default_rng(0).normal(size=(2, 1, 30, 4)).astype(np.float32)
    several = [language_probe(dict(zip("ab", noise, strict=True))) for _ in range(2)]
    assert several[0] == several[1]


def test_the_deviation_of_a_language_probe_is_that_of_a_sample(monkeypatch):
    scores = {"test_accuracy": np.array([0.0, 1.0, 0.0, 1.0, 0.0]), "test_log_loss": np.full(5, -1.0)}
    monkeypatch.setattr("sklearn.model_selection.cross_validate", lambda *_, **__: scores)
    found = language_probe(dict.fromkeys("ab", np.zeros((1, 5, 4), dtype=np.float32)))
    assert (found["accuracy"], found["log_loss"]) == ([0.4], [1.0])
    assert found["deviation"] == pytest.approx([0.3**0.5])


@pytest.mark.parametrize("label_subword", ["first", "last", "mean"])
def test_units_are_the_words_states(encoder, tmp_path, monkeypatch, label_subword):
    """Batched and in windows, against one word after the other from transformers' own hidden states."""
    analyzed = load_analyzed_model(str(encoder), "udpos", max_length=12, label_subword=label_subword)
    examples = read_split(analyzed.task, make_udpos(tmp_path), "test", "de")[:6]
    monkeypatch.setattr("dlfa.analysis.states.BATCH_SIZE", 3)
    states = language_states(analyzed, examples)
    assert states.lengths == [len(example.words) for example in examples]
    assert states.labels == [tag for example in examples for tag in example.tags]
    assert states.units.shape == (3, sum(states.lengths), 32)
    features = analyzed.task.encode(examples, analyzed.tokenizer, Encoding(12, "mean"), training=False)
    assert len(features) > len(examples)  # some are cut into windows
    row = 0
    for number, feature in enumerate(features):
        ids = torch.tensor([feature.inputs["input_ids"]])
        with torch.inference_mode():
            hidden = analyzed.model.encoder(input_ids=ids, output_hidden_states=True).hidden_states
        hidden = torch.stack(hidden)[:, 0]
        words = np.array(feature.inputs["word_index"])
        for word in range(words.max() + 1):
            pieces = np.flatnonzero(words == word)
            kept = {"first": pieces[:1], "last": pieces[-1:], "mean": pieces}[label_subword]
            np.testing.assert_allclose(states.units[:, row], hidden[:, kept].mean(1), rtol=1e-4, atol=1e-5)
            row += 1
        np.testing.assert_allclose(states.sentences[:, number], hidden[:, 1:-1].mean(1), rtol=1e-4, atol=1e-5)
    assert row == sum(states.lengths)


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_units_are_what_of_a_sequence_is_classified(encoder, pooling):
    examples = [
        LabelledText(("nab vak .", "the nab"), "neutral"),
        LabelledText(("that nidu vosi !", "nebo ."), "neutral"),
    ]
    plain = load_analyzed_model(str(encoder), "xnli")
    model = DLFAForSequenceClassification.from_encoder(encoder, 1, classifier_pooling=pooling, num_labels=3).eval()
    seen = []
    states = language_states(
        dataclasses.replace(plain, model=model), examples, watch=lambda _, used: seen.extend(used.sum(1).tolist())
    )
    assert states.units.shape == (4, 2, 32)
    counts = []
    for row, example in enumerate(examples):
        inputs = plain.tokenizer(*example.texts, return_tensors="pt")
        with torch.inference_mode():
            hidden = torch.stack(model.encoder(**inputs, output_hidden_states=True).hidden_states)[:, 0]
        expected = hidden[:, 0] if pooling == "first" else hidden.mean(1)
        np.testing.assert_allclose(states.units[:3, row], expected, rtol=1e-4, atol=1e-5)
        counts.append(1 if pooling == "first" else inputs["input_ids"].shape[1] - 3)  # without [CLS] and [SEP]
    assert sorted(seen) == sorted(counts)


def test_a_plain_encoder_has_its_layers_and_no_fusion(encoder):
    analyzed = load_analyzed_model(str(encoder), "udpos")
    assert analyzed.layer_names == ["0", "1", "2"]
    assert analyzed.label_subword == "mean"
    assert not analyzed.model.training
