"""DLFAConfig: what is normalised, what is refused, what is saved."""

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import StrictDataclassFieldValidationError
from tiny_encoders import tiny_config, tiny_encoder
from transformers import AutoConfig, BertConfig, PreTrainedConfig

from dlfa import DLFAConfig, DLFAForTokenClassification, DLFAModel
from dlfa.models.configuration import CLASSIFIER_POOLINGS, LABEL_SUBWORDS
from dlfa.models.fusion_names import FUSIONS
from dlfa_kernels.backends import BACKENDS
from dlfa_kernels.checks import ACTIVATIONS, FUSE_MODES

ENCODER = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}


def config(**fields: object) -> DLFAConfig:
    return DLFAConfig(encoder_config=ENCODER, **fields)


@pytest.mark.parametrize(
    ("fields", "fusion", "layer", "lower_layers", "inputs"),
    [
        ({}, "last", None, (), 0),
        ({"fusion": "last", "fusion_layer": 3}, "last", None, (), 0),
        ({"fusion_layer": 0}, "aif", 0, (0,), 1),
        ({"fusion_layer": 3}, "aif", 3, (3,), 1),
        ({"fusion_layer": -2}, "aif", 3, (3,), 1),
        ({"fusion_layer": -5}, "aif", 0, (0,), 1),
        ({"fusion_layer": [3]}, "aif", 3, (3,), 1),
        ({"fusion_layer": [2, -5, 3]}, "aif", [2, 0, 3], (2, 0, 3), 3),
        ({"fusion_layer": (2, -5, 3)}, "aif", [2, 0, 3], (2, 0, 3), 3),
        ({"fusion_layer": (1,), "fusion": "lower"}, "lower", 1, (1,), 1),
        ({"fusion_layer": 1, "fusion": "lower"}, "lower", 1, (1,), 1),
        ({"fusion_layer": [1, 2], "fusion": "sum"}, "sum", [1, 2], (1, 2), 2),
        ({"fusion": "residual", "fusion_layer": [3, -4]}, "residual", [3, 1], (3, 1), 2),
        ({"fusion": "scalar_mix"}, "scalar_mix", None, (0, 1, 2, 3), 4),
        ({"fusion": "scalar_mix", "fusion_layer": [1, 3]}, "scalar_mix", [1, 3], (1, 3), 2),
        ({"feature_dim": 12}, "aif", None, (), 1),
        ({"feature_dim": 12, "fusion_layer": 2}, "aif", 2, (2,), 1),
        ({"feature_dim": 12, "fusion": "sum"}, "sum", None, (), 1),
    ],
)
def test_fusion_and_layers(
    fields: dict, fusion: str, layer: object, lower_layers: tuple[int, ...], inputs: int, tmp_path: Path
) -> None:
    made = config(**fields)
    made.save_pretrained(tmp_path)
    for one in (made, AutoConfig.from_pretrained(tmp_path)):
        assert isinstance(one, DLFAConfig)
        assert (one.fusion, one.fusion_layer) == (fusion, layer)
        assert one.lower_layers == lower_layers
        assert one.num_lower_inputs == inputs


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"fusion_layer": 4},
            r"fusion_layer must be in 0\.\.3 \(or -5\.\.-2\).*got 4, which is the last layer itself",
        ),
        ({"fusion_layer": -1}, r"fusion_layer must be in 0\.\.3 .*got -1, which is the last layer itself"),
        ({"fusion_layer": -6}, r"fusion_layer must be in 0\.\.3 .*got -6"),
        ({"fusion_layer": [1, 9]}, r"fusion_layer must be in 0\.\.3 .*got 9"),
        ({"fusion_layer": []}, r"fusion_layer must name at least one layer, got \[\]"),
        ({"fusion_layer": ()}, r"fusion_layer must name at least one layer, got \(\)"),
        ({"fusion_layer": [3, -2]}, "fusion_layer must not name a layer twice"),
        ({"fusion": "aif"}, r"fusion_layer must be given for fusion='aif'.*0\.\.3"),
        ({"fusion": "lower"}, "fusion_layer must be given for fusion='lower'"),
        ({"fusion": "sum"}, "fusion_layer must be given for fusion='sum'"),
        ({"fusion": "lower", "fusion_layer": [1, 2]}, "fusion_layer must be one layer for fusion='lower'"),
        ({"fusion_layer": [1, 2], "feature_dim": 8}, "fusion_layer must be one layer or None where feature_dim"),
        ({"fusion": "last", "feature_dim": 8}, "feature_dim must be None for fusion='last', .* got 8"),
        ({"kernel_size": 2}, "kernel_size must be odd"),
        ({"num_labels": 0}, "num_labels must be positive, got 0"),
        ({"fusion": "last", "fusion_layer": 99}, r"fusion_layer must be in 0\.\..*got 99"),
        ({"reduction": 0}, "reduction must be positive, got 0"),
        ({"kernel_size": 2**31 + 1}, "kernel_size must be at most 2147483647, got 2147483649"),
        ({"squeeze_dim": 2**31}, "squeeze_dim must be at most 2147483647"),
        ({"squeeze_dim": -1}, "squeeze_dim must be positive, got -1"),
        ({"feature_dim": 0}, "feature_dim must be positive, got 0"),
        ({"gate_bias": math.nan}, "gate_bias must be finite in float32, got nan"),
        ({"gate_bias": -math.inf, "fusion": "last"}, "gate_bias must be finite in float32, got -inf"),
        ({"gate_bias": 1e39}, r"gate_bias must be finite in float32, got 1e\+39"),
        ({"layer_dropout": 1.0}, r"layer_dropout must be in \[0, 1\), got 1.0"),
        ({"classifier_dropout": -0.1}, r"classifier_dropout must be in \[0, 1\), got -0.1"),
    ],
)
def test_bad_values_are_named(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**fields)


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("fusion", FUSIONS), ("fuse", FUSE_MODES), ("activation", ACTIVATIONS), ("aif_backend", BACKENDS),
        ("classifier_pooling", CLASSIFIER_POOLINGS), ("label_subword", LABEL_SUBWORDS),
    ],
)  # fmt: skip
def test_an_unknown_choice_is_refused_with_the_known(name: str, valid: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=f"{name} must be one of {', '.join(map(repr, valid))}, got 'no-such'"):
        config(**{name: "no-such"})


def test_an_unknown_kind_of_problem_is_named() -> None:
    # by the class of its fields itself, where transformers is old
    with pytest.raises((ValueError, StrictDataclassFieldValidationError), match="problem_type"):
        config(problem_type="ranking")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reduction": "4"}, "reduction must be an int, got '4'"),
        ({"reduction": None}, "reduction must be an int, got None"),
        ({"squeeze_dim": 16.0}, r"squeeze_dim must be an int, got 16\.0"),
        ({"feature_dim": "8"}, "feature_dim must be an int, got '8'"),
        ({"gate_bias": "a"}, "gate_bias must be a number, got 'a'"),
        ({"layer_dropout": None}, "layer_dropout must be a number, got None"),
        ({"classifier_dropout": "0.1"}, "classifier_dropout must be a number, got '0.1'"),
        ({"scalar_mix_layer_norm": "no"}, "scalar_mix_layer_norm must be a bool, got 'no'"),
        ({"scalar_mix_layer_norm": 1}, "scalar_mix_layer_norm must be a bool, got 1"),
        ({"scalar_mix_layer_norm": None}, "scalar_mix_layer_norm must be a bool, got None"),
        ({"kernel_size": "x"}, "kernel_size must be an int, got 'x'"),
        ({"fusion_layer": {3}}, r"fusion_layer must be an int or a list of int, got \{3\}"),
    ],
)
def test_values_of_another_type_are_named(fields: dict, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        config(**fields)
    made = config()
    before = made.to_dict()
    for name, value in fields.items():
        with pytest.raises(TypeError, match=message):
            setattr(made, name, value)
    assert made.to_dict() == before


def test_every_field_is_checked_when_it_is_assigned() -> None:
    made = config()
    own = {field.name for field in dataclasses.fields(DLFAConfig)} - {
        field.name for field in dataclasses.fields(PreTrainedConfig)
    }
    for name in own:
        with pytest.raises((TypeError, ValueError), match=name):
            setattr(made, name, object())


def test_an_encoder_that_is_none_is_named() -> None:
    with pytest.raises(TypeError, match="encoder_config must be a PreTrainedConfig or a dictionary, got 'bert'"):
        DLFAConfig(encoder_config="bert")
    with pytest.raises(TypeError, match="encoder must be a Hub id, a directory or a loaded encoder, got BertConfig"):
        DLFAModel.from_encoder(tiny_config("bert"))


@pytest.mark.parametrize(
    "fields", [{"fusion_layer": "8"}, {"fusion_layer": True}, {"fusion_layer": [1.5]}, {"fuse": 3}]
)
def test_bad_types_are_named(fields: dict) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(fields))):
        config(**fields)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({"hidden_size": 32}, "encoder_config must name its model_type"),
        ({"model_type": "bart"}, "encoder must be of a family without a decoder, or of T5's, got one of 'bart'"),
        ({"model_type": "bart", "is_encoder_decoder": False}, "a family without a decoder, .* got one of 'bart'"),
        ({"model_type": "clip"}, "encoder_config must have an integer hidden_size, 'clip' has none"),
        (DLFAConfig(), "encoder_config must be that of a plain encoder, got a DLFAConfig"),
    ],
)
def test_encoders_that_do_not_fit(encoder: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DLFAConfig(encoder_config=encoder)


def test_saved_configuration_is_whole_and_names_its_code(tmp_path: Path) -> None:
    made = config(
        fusion_layer=-3, fuse="select", reduction=8, squeeze_dim=48, kernel_size=3, activation="silu", gate_bias=-2.0,
        aif_backend="eager", label_subword="mean", classifier_dropout=0.2, id2label={0: "A", 1: "B", 2: "C"},
        classifier_pooling="mean",
    )  # fmt: skip
    made.save_pretrained(tmp_path)
    loaded = DLFAConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == made.to_dict()
    assert isinstance(loaded.encoder_config, BertConfig)
    assert (loaded.hidden_size, loaded.num_hidden_layers, loaded.num_labels) == (32, 4, 3)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == "dlfa"
    assert saved["auto_map"]["AutoModelForTokenClassification"] == "modeling_dlfa.DLFAForTokenClassification"
    assert "import dlfa" in (tmp_path / "modeling_dlfa.py").read_text()


@pytest.mark.parametrize("kind", [str, Path])
def test_a_configuration_is_uploaded_with_the_code_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    uploaded: list[str] = []

    def create_commit(_: HfApi, *, operations: list[CommitOperationAdd], **__: object) -> None:
        uploaded.extend(operation.path_in_repo for operation in operations)

    monkeypatch.setattr(HfApi, "create_repo", lambda _, name, **__: SimpleNamespace(repo_id=f"me/{name}"))
    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    (tmp_path / "notes.txt").write_text("mine")
    for _ in range(2):  # into a new directory, and where both files lie already
        uploaded.clear()
        config(fusion_layer=1).save_pretrained(kind(tmp_path), push_to_hub=True)
        assert sorted(uploaded) == ["config.json", "modeling_dlfa.py"]


def test_the_encoders_configuration_is_not_changed_by_being_wrapped() -> None:
    encoder = BertConfig(num_hidden_layers=4, attn_implementation="eager")
    wrapped = DLFAConfig(encoder_config=encoder, fusion_layer=1)
    assert wrapped.encoder_config is encoder
    assert encoder._attn_implementation == "eager"
    assert wrapped._attn_implementation == "eager"


def test_vocabulary_is_looked_up_in_the_encoder() -> None:
    assert config().get_text_config().vocab_size == BertConfig().vocab_size


def test_a_plain_encoder_is_no_dlfa_model(tmp_path: Path) -> None:
    tiny_encoder("bert").save_pretrained(tmp_path)
    for load in (DLFAConfig.from_pretrained, DLFAForTokenClassification.from_pretrained):
        with pytest.raises(ValueError, match=r"model_type 'dlfa', got 'bert'; from_encoder\(ENCODER"):
            load(tmp_path)
