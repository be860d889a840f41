"""The card of a saved model."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from tiny_encoders import tiny_encoder

from dlfa import DLFAConfig, DLFAForSequenceClassification, DLFAForTokenClassification
from dlfa.models.fusion_names import FUSIONS
from dlfa.training.model_card import describe_fusion, write_model_card

RESULTS = {
    "task": "udpos",
    "model": "some/encoder",
    "fusion_layer": 1,
    "fuse": "select",
    "seed": 3,
    "metric": "f1",
    "train_language": "en",
    "languages": {
        "en": {"f1": 0.91234, "accuracy": 0.95, "examples": 200},
        "de": {"f1": 0.7, "accuracy": 0.8, "examples": 100},
    },
    "average": 0.80617,
    "average_zero_shot": 0.7,
    "train": {"steps": 63, "seconds": 12.5, "loss": 0.25},
    "environment": {},
}


def test_card_with_results(tmp_path: Path) -> None:
    encoder = tiny_encoder("bert")
    encoder.config.name_or_path = "some/encoder"
    model = DLFAForTokenClassification.from_encoder(encoder, 1, 3, fuse="select", label_subword="last")
    model.save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("old")
    assert write_model_card(tmp_path, RESULTS) == tmp_path / "README.md"
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.pipeline_tag == "token-classification"
    assert card.data.base_model == "some/encoder"
    assert card.data.language == ["de", "en"]
    scores = {result.dataset_config: result.metric_value for result in card.data.eval_results}
    assert scores == {"en": 0.91234, "de": 0.7}
    assert {(result.dataset_split, result.metric_type) for result in card.data.eval_results} == {("test", "f1")}
    assert "| en | 0.9123 | 0.95 | 200 |" in card.text
    assert "| language | f1 | accuracy | examples |" in card.text
    assert "AIF (select) of the last layer and layer 1" in card.text
    assert "last sub-word" in card.text
    assert "Mean f1 over all but en, the language of training: 0.7." in card.text
    assert "seed 3, steps 63, seconds 12.5, loss 0.25" in card.text
    assert "AutoModelForTokenClassification.from_pretrained" in card.text
    assert {path.name for path in tmp_path.iterdir()} == {
        "README.md", "config.json", "model.safetensors", "modeling_dlfa.py",
    }  # fmt: skip


def test_card_of_a_pair_model_on_an_encoder_in_a_folder(tmp_path: Path) -> None:
    encoder = tiny_encoder("bert")
    encoder.config.name_or_path = str(tmp_path)  # a folder is no model of the Hub
    DLFAForSequenceClassification.from_encoder(encoder, None, 3).save_pretrained(tmp_path)
    card = ModelCard.load(write_model_card(tmp_path, RESULTS))
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.base_model is None
    assert "the last layer alone" in card.text


PHRASES = [
    ({"fusion": "last"}, "the last layer alone"),
    ({"fusion": "lower", "fusion_layer": 3}, "layer 3 alone"),
    ({"fusion": "sum", "fusion_layer": [3, 1, 0]}, "the sum of the last layer, layer 3, layer 1 and layer 0"),
    ({"fusion": "aif", "fusion_layer": [3, 1]}, "AIF (gate) of the last layer, layer 3 and layer 1"),
    ({"fusion": "aif", "feature_dim": 48}, "AIF (gate) of the last layer and external features of 48 channels"),
    (
        {"fusion": "residual", "fusion_layer": 3},
        "the sum of the last layer and layer 3, with AIF's branches added and no gate",
    ),
    ({"fusion": "scalar_mix", "fusion_layer": [0]}, "a learnt scalar mix of the last layer and layer 0"),
]
assert {fields["fusion"] for fields, _ in PHRASES} == set(FUSIONS)


@pytest.mark.parametrize(("fields", "phrase"), PHRASES)
def test_fusion_in_words(fields: dict, phrase: str) -> None:
    assert describe_fusion(DLFAConfig(**fields)) == phrase


def test_what_is_no_saved_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="without a config"):
        write_model_card(tmp_path, RESULTS)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="got one of type 'bert'"):
        write_model_card(tmp_path, RESULTS)
    DLFAConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="at least one language"):
        write_model_card(tmp_path, {**RESULTS, "languages": {}})
    assert not (tmp_path / "README.md").exists()
