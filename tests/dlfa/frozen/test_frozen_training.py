"""Training on a frozen encoder: the same model as by running the encoder at every step, from states kept on disk."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from launched_training import assert_same_weights
from safetensors import safe_open
from tiny_tasks import make_encoder
from transformers import BertModel

import dlfa.frozen.store as store_module
from dlfa import DLFAForTokenClassification
from dlfa.evaluation.evaluate import evaluate
from dlfa.evaluation.saved_runs import load_run
from dlfa.runs.run_config import RunConfig
from dlfa.training.shared_inputs import load_data
from dlfa.training.train import fit, prepare, train


@pytest.fixture(scope="module")
def base(encoder, data_dir, tmp_path_factory):
    return RunConfig(
        task="udpos", model=str(encoder), output_dir=Path("unset"), data_dir=data_dir,
        model_options={"fusion_layer": 1}, learning_rate=1e-2, epochs=2, batch_size=4, gradient_accumulation=1,
        max_length=32, freeze_encoder=True, states_cache=tmp_path_factory.mktemp("cache"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(base, tmp_path_factory):
    config = dataclasses.replace(base, output_dir=tmp_path_factory.mktemp("runs") / "run")
    return config, train(config)


@pytest.fixture
def passes(monkeypatch):
    """The layers of every pass of the encoder over some data."""
    seen = []
    original = store_module.StateStore._compute

    def compute(self, features, states, layers, *more):
        seen.append(sorted(layers))
        return original(self, features, states, layers, *more)

    monkeypatch.setattr(store_module.StateStore, "_compute", compute)
    return seen


def test_learns_and_leaves_the_encoder_as_it_was(finished, encoder):
    config, results = finished
    assert results["languages"]["en"]["accuracy"] > 0.8
    assert results["config"]["freeze_encoder"] is True
    trained = DLFAForTokenClassification.from_pretrained(config.output_dir)
    fresh = DLFAForTokenClassification.from_encoder(encoder, 1, num_labels=17)
    before = fresh.encoder.state_dict()
    for name, weight in trained.encoder.state_dict().items():
        assert torch.equal(weight, before[name]), name
    assert str(config.states_cache) not in json.dumps(results)


def test_saved_model_gives_the_same_figures_through_its_encoder(finished, base):
    config, results = finished
    run = load_run(config.output_dir)
    again = evaluate(run.model, run.inputs(), load_data(base).test)
    for language, result in again.items():
        assert result.metrics == {n: v for n, v in results["languages"][language].items() if n != "examples"}


def test_same_training_as_with_the_encoder_run_at_every_step(base, finished, tmp_path):
    """The oracle: the ordinary way of training with the encoder's parameters and dropout held off."""
    config = dataclasses.replace(base, output_dir=tmp_path / "ordinary", freeze_encoder=False)
    prepared = prepare(config)
    prepared.model.encoder.requires_grad_(False)
    for module in prepared.model.encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    ordinary = fit(prepared)
    _, frozen = finished
    # Of four seeds, losses are apart by 1e-8, relatively, and weights by 3e-8. Adam, which divides by the size of a
    # gradient, makes more of a rounding error where there is almost no gradient.
    assert frozen["train"]["loss"] == pytest.approx(ordinary["train"]["loss"], rel=1e-6)
    assert_same_weights(config.output_dir, finished[0].output_dir, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"fusion_layer": None}, {"fusion": "scalar_mix", "fusion_layer": None}, {"fusion_layer": [0, 1]},
     {"fusion_layer": [0, 1], "fusion": "residual"},
     {"fusion_layer": 0, "label_subword": "mean"}, {"fusion_layer": 1, "fusion": "lower"}],
)  # fmt: skip
def test_every_fusion_trains_on_states(base, tmp_path, options):
    config = dataclasses.replace(base, output_dir=tmp_path / "run", model_options=options, epochs=1)
    results = train(config)
    run = load_run(config.output_dir)
    again = evaluate(run.model, run.inputs(), load_data(base).test)
    assert again["de"].metrics["accuracy"] == results["languages"]["de"]["accuracy"]


def test_states_are_computed_once_over_seeds_and_further_layers_alone(base, tmp_path, passes):
    config = dataclasses.replace(base, states_cache=tmp_path / "cache", epochs=1, max_train_examples=8)
    train(dataclasses.replace(config, output_dir=tmp_path / "a"))
    assert passes == [[-1, 1]] * 5  # train, dev and three languages
    passes.clear()
    train(dataclasses.replace(config, output_dir=tmp_path / "b", seed=2))
    assert passes == []
    train(dataclasses.replace(config, output_dir=tmp_path / "c", model_options={"fusion_layer": 0}))
    assert passes == [[0]] * 5


def test_another_encoder_length_or_precision_has_states_of_its_own(base, tmp_path, passes):
    config = dataclasses.replace(base, states_cache=tmp_path / "cache", epochs=1, max_train_examples=8)
    config = dataclasses.replace(config, languages=("en",))
    train(dataclasses.replace(config, output_dir=tmp_path / "a"))
    other = make_encoder(tmp_path / "encoder")
    changed = BertModel.from_pretrained(other)
    changed.encoder.layer[0].output.dense.bias.data[0] += 1
    changed.save_pretrained(other)
    for number, changes in enumerate(({"model": str(other)}, {"max_length": 8}, {"states_dtype": "float16"})):
        passes.clear()
        train(dataclasses.replace(config, output_dir=tmp_path / f"run{number}", **changes))
        assert passes[0] == [-1, 1], changes


def test_interrupted_training_goes_on_to_the_same_result(base, finished, tmp_path, interrupt_at_checkpoint):
    config = dataclasses.replace(base, output_dir=tmp_path / "run")
    interrupt_at_checkpoint(config)
    kept = list((config.output_dir / "checkpoints").glob("checkpoint-*/model.safetensors"))
    with safe_open(kept[0], "pt") as file:
        assert not [name for name in file.keys() if name.startswith("encoder")]  # noqa: SIM118
    assert not (config.output_dir / "results.json").exists()
    assert train(config, resume=True)["languages"] == finished[1]["languages"]


def test_learning_rate_without_a_choice_is_one_for_new_parameters(base):
    assert dataclasses.replace(base, learning_rate=None).with_presets().learning_rate == 1e-3
    assert dataclasses.replace(base, learning_rate=None, freeze_encoder=False).with_presets().learning_rate == 2e-5


@pytest.mark.parametrize(
    ("frozen", "batch_size", "accumulation", "expected"),
    [(True, None, None, (32, 1)), (False, None, None, (8, 4)), (True, 16, None, (16, 4)), (True, None, 1, (8, 1))],
)
def test_a_step_over_a_frozen_encoder_is_one_batch(base, frozen, batch_size, accumulation, expected):
    given = {"freeze_encoder": frozen, "batch_size": batch_size, "gradient_accumulation": accumulation}
    resolved = dataclasses.replace(base, **given).with_presets()
    assert (resolved.batch_size, resolved.gradient_accumulation) == expected


def test_states_in_half_precision_are_the_states(base, finished, tmp_path):
    results = train(dataclasses.replace(base, output_dir=tmp_path / "run", states_dtype="float16"))
    # the states are rounded by 5e-4 either way, which moves the mean loss of four seeds by 4e-6 at most
    assert results["train"]["loss"] == pytest.approx(finished[1]["train"]["loss"], rel=1e-4)
    files = [np.load(path, mmap_mode="r") for path in (base.states_cache / "states").glob("*/*-float16/last.npy")]
    assert files
    assert all(states.dtype == np.float16 for states in files)
