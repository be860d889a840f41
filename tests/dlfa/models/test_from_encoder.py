"""Models built over an encoder, filled from a directory, and loaded with other fields."""

import json
from pathlib import Path

import pytest
import torch
from tiny_encoders import LAYERS, WIDTH, batch, tiny_config, tiny_encoder
from tiny_models import build
from transformers import AutoModel, BartConfig, BartModel, BertForMaskedLM, ViTConfig, ViTModel

from dlfa import DLFAConfig, DLFAForSequenceClassification, DLFAForTokenClassification, DLFAModel


def test_new_parameters_are_initialised_as_fused_aif_does() -> None:
    torch.manual_seed(0)
    model = build(gate_bias=-2.0)
    aif = model.fusion.aif[0]
    assert (aif.global_expand.bias == -2).all()
    assert (aif.local_expand.bias == 0).all()
    bound = WIDTH**-0.5  # torch's bound for a layer of this many inputs
    assert 0.8 * bound < aif.local_squeeze.weight.abs().max() <= bound
    assert model.classifier.weight.abs().max() < 0.1
    scratch = DLFAForTokenClassification(DLFAConfig(encoder_config=tiny_config("bert"), fusion_layer=1, gate_bias=-2.0))
    assert (scratch.fusion.aif[0].global_expand.bias == -2).all()


def test_a_plain_encoder_directory_fills_the_encoder(tmp_path: Path) -> None:
    encoder = tiny_encoder("bert")
    encoder.save_pretrained(tmp_path)
    config = DLFAConfig(encoder_config=tiny_config("bert"), fusion_layer=1, gate_bias=1.0, num_labels=5)
    model, report = DLFAForTokenClassification.from_pretrained(tmp_path, config=config, output_loading_info=True)
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, encoder.state_dict()[name]), name
    assert all(name.startswith(("fusion.", "classifier.")) for name in report["missing_keys"])
    assert (model.fusion.aif[0].global_expand.bias == 1).all()


def test_heads_can_be_swapped_over_a_saved_model(tmp_path: Path) -> None:
    build(DLFAForTokenClassification).save_pretrained(tmp_path)
    other = DLFAForSequenceClassification.from_pretrained(tmp_path, num_labels=3, ignore_mismatched_sizes=True)
    assert other.classifier.weight.shape == (3, WIDTH)
    saved = DLFAForTokenClassification.from_pretrained(tmp_path)
    for part in ("encoder", "fusion"):
        for name, value in getattr(other, part).state_dict().items():
            assert torch.equal(value, getattr(saved, part).state_dict()[name]), name


def test_fields_changed_on_loading_are_checked(tmp_path: Path) -> None:
    build(fusion="sum").save_pretrained(tmp_path)
    assert DLFAModel.from_pretrained(tmp_path, fusion_layer=-2).config.fusion_layer == LAYERS - 1
    with pytest.raises(ValueError, match=r"fusion_layer must be in 0\.\.2"):
        DLFAModel.from_pretrained(tmp_path, fusion_layer=7)


def test_from_encoder_takes_a_directory_an_encoder_or_a_model_with_a_head(tmp_path: Path) -> None:
    encoder = tiny_encoder("bert").half()
    encoder.save_pretrained(tmp_path)
    inputs = batch()
    by_path = DLFAModel.from_encoder(str(tmp_path), fusion_layer=1)
    assert by_path.dtype == torch.float32
    assert not any(module.training for module in by_path.modules())  # as from_pretrained leaves a model
    assert by_path.encoder.pooler is None
    for dtype in (torch.float16, "float16"):
        model = DLFAModel.from_encoder(tmp_path, fusion_layer=1, dtype=dtype)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
    by_object = DLFAModel.from_encoder(AutoModel.from_pretrained(tmp_path, dtype="float32"), fusion_layer=1)
    with_head = BertForMaskedLM.from_pretrained(tmp_path, dtype="float32")
    by_head = DLFAModel.from_encoder(with_head, fusion_layer=1)
    assert by_head.encoder is with_head.bert
    assert by_object.encoder.pooler is None
    expected = by_path.encoder_states(**inputs).last
    assert torch.equal(by_object.encoder_states(**inputs).last, expected)
    assert torch.equal(by_head.encoder_states(**inputs).last, expected)


def test_from_encoder_keeps_the_weights_of_a_resized_encoder() -> None:
    encoder = tiny_encoder("bert")
    encoder.resize_token_embeddings(70)
    with torch.no_grad():
        encoder.embeddings.word_embeddings.weight.fill_(0.25)
    model = DLFAModel.from_encoder(encoder, fusion_layer=1)
    assert (model.get_input_embeddings().weight == 0.25).all()


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"fusion_layer": 3}, ValueError, r"fusion_layer must be in 0\.\.2 .* 3 layers, got 3"),
        ({"fusion": "aif"}, ValueError, r"fusion_layer must be given for fusion='aif' \(0\.\.2"),
        (
            {"fusion_layer": 1, "kernal_size": 3},
            TypeError,
            "unknown keyword 'kernal_size'; .*kernel_size",
        ),
        ({"fusion_layer": 1, "num_labels": 2, "id2label": {0: "A"}}, ValueError, "num_labels must be 1.*got 2"),
        ({"id2label": ["A", "B"]}, TypeError, r"id2label must be a dict, got \['A', 'B'\]"),
        ({"label2id": "A"}, TypeError, "label2id must be a dict, got 'A'"),
        ({"id2label": {1: "A", 2: "B"}}, ValueError, r"id2label must name the classes 0..1, got 1, 2"),
        ({"label2id": {"A": 0, "B": 0}}, ValueError, "label2id must give each label a class of its own"),
        ({"id2label": {0: "A"}, "label2id": {"B": 0}}, ValueError, "label2id must say the same as id2label, {0: 'A'}"),
        ({"num_labels": 0}, ValueError, "num_labels must be at least 1, got 0"),
        ({"num_labels": -1}, ValueError, "num_labels must be at least 1, got -1"),
        ({"num_labels": "3"}, TypeError, "num_labels must be an int or None, got '3'"),
        ({"num_labels": True}, TypeError, "num_labels must be an int or None, got True"),
        (
            {"revision": "main"},
            TypeError,
            "unknown keyword 'revision'; .*from_pretrained takes goes into encoder_kwargs",
        ),
        ({"fusion_layer": 1, "attn_implementation": "eager"}, ValueError, "a loaded encoder takes no attn_impl"),
    ],
)
def test_from_encoder_names_what_is_wrong(fields: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        DLFAForTokenClassification.from_encoder(tiny_encoder("bert"), **fields)


def test_from_encoder_hands_fields_of_the_configuration_and_options_of_loading_on(tmp_path: Path) -> None:
    tiny_encoder("bert").save_pretrained(tmp_path / "sub")
    fields = {"hidden_dropout_prob": 0.3, "output_hidden_states": True, "vocab_size": 70}
    options = {"subfolder": "sub", "local_files_only": True, "ignore_mismatched_sizes": True}
    model = DLFAModel.from_encoder(tmp_path, 1, encoder_kwargs={**fields, **options})
    assert model.encoder.embeddings.dropout.p == model.config.encoder_config.hidden_dropout_prob == 0.3
    assert model.get_input_embeddings().num_embeddings == 70
    assert len(model(**batch()).hidden_states) == LAYERS + 1


@pytest.mark.parametrize("name", ["dtype", "torch_dtype", "add_pooling_layer", "config", "output_loading_info"])
def test_from_encoder_refuses_what_it_gives_itself(name: str) -> None:
    with pytest.raises(ValueError, match=f"encoder_kwargs must not hold '{name}': "):
        DLFAModel.from_encoder("anywhere", 1, encoder_kwargs={name: None})


def test_from_encoder_has_the_configurations_default() -> None:
    encoder = tiny_encoder("bert")
    for config in (DLFAModel.from_encoder(encoder).config, DLFAConfig(encoder_config=encoder.config)):
        assert (config.fusion, config.fusion_layer) == ("last", None)


def test_from_encoder_refuses_what_it_could_not_rebuild(tmp_path: Path) -> None:
    encoder = BartModel(BartConfig(vocab_size=60, d_model=16, encoder_layers=1, decoder_layers=1))
    encoder.save_pretrained(tmp_path)
    for given in (encoder, tmp_path):
        with pytest.raises(ValueError, match="family without a decoder, or of T5's, got one of 'bart'"):
            DLFAModel.from_encoder(given, fusion_layer=1)
    with pytest.raises(ValueError, match="got a DLFAForTokenClassification; use its `encoder`"):
        DLFAModel.from_encoder(build(), fusion_layer=1)


class OwnConfig(DLFAConfig):
    own: int = 0


class OwnModel(DLFAForTokenClassification):
    config_class = OwnConfig


def test_a_subclass_builds_its_own_configuration(tmp_path: Path) -> None:
    model = OwnModel.from_encoder(tiny_encoder("bert"), 1, 5, own=3)
    assert (type(model.config), model.config.own) == (OwnConfig, 3)
    model.save_pretrained(tmp_path)
    assert OwnModel.from_pretrained(tmp_path).config.own == 3
    with pytest.raises(TypeError, match=r"unknown keyword 'other'; OwnConfig has .*own"):
        OwnModel.from_encoder(tiny_encoder("bert"), 1, other=3)


def test_an_encoder_of_remote_code_is_refused(tmp_path: Path) -> None:
    """It could be built, and saved, but the saved model would name its type alone."""
    tiny_encoder("bert").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    code = {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "own-bert", "auto_map": code}))
    (tmp_path / "configuration_own.py").write_text(
        "from transformers import BertConfig\n\n\nclass OwnConfig(BertConfig):\n    model_type = 'own-bert'\n"
    )
    (tmp_path / "modeling_own.py").write_text(
        "from transformers import BertModel\n\nfrom .configuration_own import OwnConfig\n\n\n"
        "class OwnModel(BertModel):\n    config_class = OwnConfig\n"
    )
    trusted = {"trust_remote_code": True}
    for _ in range(2):  # AutoModel knows the class from the first time on
        with pytest.raises(ValueError, match="AutoModel can build without remote code, got 'own-bert'"):
            DLFAModel.from_encoder(tmp_path, 1, encoder_kwargs=trusted)
        with pytest.raises(ValueError, match="AutoModel can build without remote code, got 'own-bert'"):
            DLFAModel.from_encoder(AutoModel.from_pretrained(tmp_path, **trusted), 1)


def test_an_encoder_of_something_else_than_text_is_refused() -> None:
    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32)
    with pytest.raises(ValueError, match="the encoder must read input_ids, a ViTModel reads pixel_values"):
        DLFAModel.from_encoder(ViTModel(config))


def test_labels_by_name(tmp_path: Path) -> None:
    model = DLFAForTokenClassification.from_encoder(
        tiny_encoder("bert"), fusion_layer=1, id2label={0: "NOUN", 1: "VERB"}, label2id={"NOUN": 0, "VERB": 1}
    )
    assert model.num_labels == 2
    model.save_pretrained(tmp_path)
    assert DLFAForTokenClassification.from_pretrained(tmp_path).config.id2label == {0: "NOUN", 1: "VERB"}


@pytest.mark.parametrize(
    "named",
    [
        {"id2label": {0: "NOUN", 1: "VERB"}},
        {"label2id": {"VERB": 1, "NOUN": 0}},
        {"id2label": {"0": "NOUN", "1": "VERB"}},
    ],
)
def test_labels_named_in_one_direction(named: dict) -> None:
    config = DLFAForTokenClassification.from_encoder(tiny_encoder("bert"), fusion_layer=1, **named).config
    assert (config.id2label, config.label2id) == ({0: "NOUN", 1: "VERB"}, {"NOUN": 0, "VERB": 1})
