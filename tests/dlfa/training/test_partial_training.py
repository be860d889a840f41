"""Training a part of the encoder: frozen lower blocks, and LoRA adapters that end up in the weights."""

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_encoders import FAMILIES, LAYERS, WIDTH, batch, tiny_encoder
from tiny_tasks import make_encoder, make_udpos

import dlfa.training.train as training
from dlfa import DLFAForTokenClassification
from dlfa.evaluation.evaluate import evaluate
from dlfa.evaluation.saved_runs import load_run
from dlfa.models.encoder_states import encoder_blocks
from dlfa.runs.run_config import RunConfig
from dlfa.training.partial_training import add_adapters, freeze_layers, merge_adapters
from dlfa.training.shared_inputs import load_data
from dlfa.training.train import train


def model_of(family):
    return DLFAForTokenClassification.from_encoder(tiny_encoder(family), 1, num_labels=4)


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_layers_are_the_embeddings_and_the_lowest_blocks(family):
    model = model_of(family)
    freeze_layers(model, 2)
    blocks = encoder_blocks(model.encoder, LAYERS)
    assert [any(p.requires_grad for p in block.parameters()) for block in blocks] == [False, False, True]
    assert all(p.requires_grad for p in blocks[2].parameters())
    assert all(p.requires_grad for name, p in model.named_parameters() if not name.startswith("encoder."))
    assert not model.encoder.get_input_embeddings().weight.requires_grad
    # With two blocks frozen, nothing below them may learn: the input of the third carries no gradient.
    states = model.encoder_states(**batch(), layers=(2,))
    assert not states.lowers[0].requires_grad
    assert states.last.requires_grad


@pytest.mark.parametrize("count", [0, LAYERS])
def test_no_block_or_every_block_may_be_frozen(count):
    model = model_of("bert")
    freeze_layers(model, count)
    blocks = encoder_blocks(model.encoder, LAYERS)
    assert all(p.requires_grad == (count == 0) for block in blocks for p in block.parameters())
    assert not model.encoder.get_input_embeddings().weight.requires_grad
    assert all(p.requires_grad for name, p in model.named_parameters() if not name.startswith("encoder."))


def test_more_layers_than_the_encoder_has_are_refused():
    with pytest.raises(ValueError, match=r"freeze_layers must be in 0\.\.3 .* got 4"):
        freeze_layers(model_of("bert"), 4)


def test_merged_adapters_are_the_adapted_model():
    pytest.importorskip("peft")
    model = model_of("xlm-roberta").eval()
    names = set(model.state_dict())
    torch.manual_seed(0)
    add_adapters(model, 2, None, ["query", "value"])
    trained = {name for name, p in model.named_parameters() if p.requires_grad and name.startswith("encoder.")}
    assert len(trained) == LAYERS * 2 * 2
    assert all("lora_" in name for name in trained)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    before = model_of("xlm-roberta").eval()(**batch()).logits
    adapted = model(**batch()).logits
    merge_adapters(model)
    assert set(model.state_dict()) == names
    assert torch.allclose(model(**batch()).logits, adapted, atol=1e-5)
    assert not torch.allclose(before, adapted, atol=1e-2)


@pytest.mark.parametrize(("alpha", "scale"), [(None, 2.0), (4, 0.5), (16, 2.0)])
def test_adapters_are_scaled_by_alpha_over_rank(alpha, scale):
    peft = pytest.importorskip("peft")
    model = model_of("bert")
    add_adapters(model, 8, alpha, ["query"])
    layers = [module for module in model.modules() if isinstance(module, peft.tuners.lora.LoraLayer)]
    assert len(layers) == LAYERS
    assert {layer.scaling["default"] for layer in layers} == {scale}


def test_activations_are_checkpointed_without_a_warning():
    model = model_of("bert")
    config = RunConfig(task="udpos", model="any", output_dir=Path("out"), gradient_checkpointing=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training.limit_training(model, config)
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.encoder.modules())


def test_adapters_have_a_learning_rate_of_their_own():
    config = RunConfig(task="udpos", model="any", output_dir=Path("out"), lora_rank=4)
    assert config.with_presets().learning_rate == 2e-4
    assert dataclasses.replace(config, learning_rate=1e-5).with_presets().learning_rate == 1e-5
    assert dataclasses.replace(config, lora_rank=None).with_presets().learning_rate == 2e-5


def test_names_that_no_layer_has_are_refused():
    pytest.importorskip("peft")
    known = "lora_targets must name linear layers of the encoder, which are dense, key, query, value; got "
    for targets in (["nothing"], ["query", "nothing"]):
        with pytest.raises(ValueError, match=f"{known}'nothing'"):
            add_adapters(model_of("bert"), 2, None, targets)
    with pytest.raises(ValueError, match=r"lora_targets LayerNorm: Target module LayerNorm.* is not supported"):
        add_adapters(model_of("bert"), 2, None, ["LayerNorm"])


def test_a_rank_above_that_of_the_weights_is_refused():
    pytest.importorskip("peft")
    with pytest.raises(ValueError, match=f"lora_rank must be at most {WIDTH}, the encoder's hidden size, got 1000"):
        add_adapters(model_of("bert"), 1000, None, None)


def test_lora_run_is_saved_as_a_plain_model_and_resumes(tmp_path, interrupt_at_checkpoint):
    pytest.importorskip("peft")
    base = RunConfig(
        task="udpos", model=str(make_encoder(tmp_path / "encoder")), output_dir=tmp_path / "whole",
        data_dir=make_udpos(tmp_path / "udpos", train=16, dev=4, test=4), model_options={"fusion_layer": 1},
        learning_rate=1e-2, epochs=2, batch_size=4, gradient_accumulation=1, max_length=32, lora_rank=2,
    )  # fmt: skip
    results = train(base)
    run = load_run(base.output_dir)
    again = evaluate(run.model, run.inputs(), load_data(base).test)
    for language, result in again.items():
        assert result.metrics["accuracy"] == results["languages"][language]["accuracy"]
    config = dataclasses.replace(base, output_dir=tmp_path / "resumed")
    interrupt_at_checkpoint(config)
    resumed = train(config, resume=True)
    assert resumed["train"]["loss"] == pytest.approx(results["train"]["loss"], rel=1e-6)
    assert resumed["languages"] == results["languages"]


def test_figures_of_a_lora_run_are_those_of_the_model_that_it_saves(tmp_path, monkeypatch):
    """Under autocast adapters and what they are merged into round differently."""
    pytest.importorskip("peft")
    config = RunConfig(
        task="udpos", model=str(make_encoder(tmp_path / "encoder")), output_dir=tmp_path / "run",
        data_dir=make_udpos(tmp_path / "udpos", train=16, dev=4, test=4), model_options={"fusion_layer": 1},
        learning_rate=1e-2, epochs=2, batch_size=4, gradient_accumulation=1, max_length=32, lora_rank=2, bf16=True,
    )  # fmt: skip
    found = []
    original = training.evaluate

    def evaluated(*arguments, **options):
        found.append(original(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(training, "evaluate", evaluated)
    train(config)
    run = load_run(config.output_dir)
    (of_training,) = found
    for language, examples in load_data(config).test.items():
        for left, right in zip(run.scores(examples, 64), of_training[language].scores, strict=True):
            assert np.array_equal(left, right)
