"""Encoders of T5's family: loaded without the decoder, and in all else like others."""

from pathlib import Path

import pytest
import torch
from tiny_encoders import LAYERS, VOCABULARY, WIDTH, batch
from transformers import (
    AutoModelForSeq2SeqLM,
    MT5Config,
    PreTrainedConfig,
    PreTrainedModel,
    T5Config,
    T5ForTokenClassification,
    UMT5Config,
)

from dlfa import DLFAForTokenClassification, DLFAModel
from dlfa.training.embedding_rows import merge_rows, train_rows

FAMILIES = [T5Config, MT5Config, UMT5Config]


def tiny(family: type[PreTrainedConfig]) -> PreTrainedConfig:
    return family(
        vocab_size=VOCABULARY, d_model=WIDTH, d_kv=16, d_ff=48, num_layers=LAYERS, num_heads=2, pad_token_id=1,
        dropout_rate=0.0,
    )  # fmt: skip


def saved(family: type[PreTrainedConfig], folder: Path) -> PreTrainedModel:
    """The whole model, decoder included, as it lies on the Hub."""
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(tiny(family)).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_those_of_the_encoder_alone(family: type[PreTrainedConfig], tmp_path: Path) -> None:
    whole = saved(family, tmp_path)
    model = DLFAModel.from_encoder(tmp_path, fusion_layer=1).eval()
    assert not any("decoder" in name for name, _ in model.named_parameters())
    with torch.no_grad():
        expected = whole.get_encoder()(**batch(), output_hidden_states=True)
        states = model.encoder_states(**batch(), layers=range(LAYERS))
    assert torch.equal(states.last, expected.last_hidden_state)
    assert all(torch.equal(state, expected.hidden_states[layer]) for layer, state in enumerate(states.lowers))


@pytest.mark.parametrize("family", FAMILIES)
def test_saving_and_loading(family: type[PreTrainedConfig], tmp_path: Path) -> None:
    saved(family, tmp_path / "whole")
    model = DLFAForTokenClassification.from_encoder(tmp_path / "whole", fusion_layer=1, num_labels=5).eval()
    train_rows(model, [[5, 6]])  # a table in two places is trained as a whole
    model(**batch(), labels=batch()["input_ids"] % 5).loss.backward()
    merge_rows(model)
    model.save_pretrained(tmp_path / "model")
    loaded, report = DLFAForTokenClassification.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    with torch.no_grad():
        assert torch.equal(loaded.eval()(**batch()).logits, model(**batch()).logits)


def test_a_loaded_model_with_a_decoder_is_refused_and_one_without_is_not() -> None:
    with pytest.raises(ValueError, match="encoder must be a T5EncoderModel or a model on top of one, got T5ForCond"):
        DLFAModel.from_encoder(AutoModelForSeq2SeqLM.from_config(tiny(T5Config)), fusion_layer=1)
    tagger = T5ForTokenClassification(tiny(T5Config))
    assert DLFAModel.from_encoder(tagger, fusion_layer=1).encoder is tagger.transformer
