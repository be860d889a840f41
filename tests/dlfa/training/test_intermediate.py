"""Intermediate tasks: encoder and fusion are handed on, heads are new, and an interruption costs no stage."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_tasks import make_encoder, make_udpos
from transformers import AutoTokenizer

import dlfa.training.train as training
from dlfa import DLFAForSequenceClassification, DLFAForTokenClassification
from dlfa.evaluation.saved_runs import recorded_by_run
from dlfa.runs.run_config import RunConfig
from dlfa.training.intermediate import IntermediateRun
from dlfa.training.train import fit, prepare, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def sick(folder):
    pairs = [("the nab vak", "the nab vosi", "entailment"), ("that nebo", "nidu vak", "neutral"),
             ("the nab", "nidu", "contradiction")] * 4  # fmt: skip
    text = "".join("\t".join(pair) + "\n" for pair in pairs)
    (folder / "sick").mkdir()
    for name in ("train-en", "dev-en"):
        (folder / "sick" / f"{name}.tsv").write_text(text)
    return folder / "sick"


@pytest.fixture(scope="module")
def base(folder, sick):
    return RunConfig(
        task="udpos", model=str(make_encoder(folder / "encoder")), output_dir=Path("unset"),
        data_dir=make_udpos(folder / "udpos", train=8, dev=4, test=4), model_options={"fusion_layer": 1},
        learning_rate=1e-3, epochs=1, batch_size=4, gradient_accumulation=1, max_length=32,
        intermediate=(f"sick:{sick}",),
    )  # fmt: skip


def weights(model, prefix):
    return {name: value for name, value in model.state_dict().items() if name.startswith(prefix)}


def test_encoder_and_fusion_are_handed_on_and_the_head_is_new(base, sick, tmp_path, monkeypatch):
    started = {}
    original = training.task_trainer

    def trainer(prepared):
        started[prepared.task.name] = {name: value.clone() for name, value in prepared.model.state_dict().items()}
        return original(prepared)

    monkeypatch.setattr(training, "task_trainer", trainer)
    config = dataclasses.replace(base, output_dir=tmp_path / "run")
    results = train(config)
    stage = DLFAForSequenceClassification.from_pretrained(config.output_dir / "intermediate")
    for prefix in ("encoder.", "fusion."):
        handed = weights(stage, prefix)
        assert handed
        for name, value in handed.items():
            assert torch.equal(started["udpos"][name], value), name
    changed = [n for n, v in weights(stage, "fusion.").items() if not torch.equal(v, started["sick"][n])]
    assert changed
    assert started["udpos"]["classifier.weight"].shape == (17, 32)
    recorded = recorded_by_run(config.output_dir, config, max_length=9)
    assert {name: recorded[name] for name in ("intermediate", "encoder_sha256")}.items() <= results.items()
    assert recorded["config"] == {**results["config"], "max_length": 9}
    (record,) = results["intermediate"]
    assert (record["task"], record["train"]["steps"]) == ("sick", 3)
    for place in (tmp_path, sick.parent):
        assert str(place) not in json.dumps(results)
    assert not DLFAForTokenClassification.from_pretrained(config.output_dir).training


def test_several_tasks_run_in_order_and_presets_are_each_tasks_own(base, sick, folder, tmp_path):
    first = make_udpos(folder / "other", train=4, dev=2, test=1)
    stages = (f"udpos:{first}", f"sick:{sick}")
    config = dataclasses.replace(base, output_dir=tmp_path / "run", intermediate=stages)
    results = train(config)
    assert [stage["task"] for stage in results["intermediate"]] == ["udpos", "sick"]
    assert [stage["train"]["steps"] for stage in results["intermediate"]] == [1, 3]
    before = IntermediateRun.of(dataclasses.replace(config, epochs=None))
    assert before is not None
    assert before.config.with_presets().epochs == before.config.task_object.preset.epochs


@pytest.mark.parametrize("changes", [{"freeze_encoder": True}, {"lora_rank": 2}, {"freeze_layers": 1}])
def test_with_every_regime(base, tmp_path, changes):
    config = dataclasses.replace(base, output_dir=tmp_path / "run", states_cache=tmp_path / "cache", **changes)
    assert train(config)["train"]["steps"] == 2
    fresh = DLFAForTokenClassification.from_encoder(base.model, 1, num_labels=17)
    trained = DLFAForTokenClassification.from_pretrained(config.output_dir)
    assert set(trained.state_dict()) == set(fresh.state_dict())
    before, after = weights(fresh, "encoder."), weights(trained, "encoder.")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    if "freeze_encoder" in changes:
        assert not moved
    elif "freeze_layers" in changes:
        assert moved
        assert all("layer.1." in name for name in moved)
    else:
        assert moved
        assert all(name.endswith("weight") and "Norm" not in name and "embeddings" not in name for name in moved)


def test_a_stage_that_is_complete_is_not_trained_again(base, tmp_path, monkeypatch):
    config = dataclasses.replace(base, output_dir=tmp_path / "run")
    original = training.write_predictions

    def stop(path, *more):
        if path.parent == config.output_dir:
            raise KeyboardInterrupt
        return original(path, *more)

    monkeypatch.setattr(training, "write_predictions", stop)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    monkeypatch.undo()
    kept = (config.output_dir / "intermediate" / "results.json").stat().st_mtime_ns
    assert not (config.output_dir / "results.json").exists()
    resumed = train(config, resume=True)
    assert (config.output_dir / "intermediate" / "results.json").stat().st_mtime_ns == kept
    whole = train(dataclasses.replace(config, output_dir=tmp_path / "whole"))
    assert resumed["languages"] == whole["languages"]


def test_files_of_others_beside_a_stage_stay(base, tmp_path):
    config = dataclasses.replace(base, output_dir=tmp_path / "run")
    folder = config.output_dir / "intermediate"
    mine = folder / "mine.txt"
    folder.mkdir(parents=True)
    mine.write_text("mine")
    assert fit(prepare(config), keep_model=False)["intermediate"]
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    train(config, overwrite=True)
    assert (folder / "model.safetensors").exists()
    train(dataclasses.replace(config, intermediate=()), overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    mine.rename(folder / "README.md")
    with pytest.raises(ValueError, match=r"holds README\.md of something else"):
        prepare(config, overwrite=True)
    assert (config.output_dir / "results.json").exists()
    (folder / "README.md").unlink()
    fit(prepare(config, overwrite=True), keep_model=False)
    assert not folder.exists()


def test_data_of_a_stage_are_checked_before_anything_is_trained(base, tmp_path):
    config = dataclasses.replace(base, output_dir=tmp_path / "run", intermediate=("sick:nowhere",))
    with pytest.raises(ValueError, match="nowhere"):
        prepare(config)
    assert not config.output_dir.exists()
    with pytest.raises(ValueError, match=r"unknown task|task must be"):
        dataclasses.replace(base, intermediate=("sock",))


def test_tokens_of_a_stage_are_checked_before_a_run_is_replaced(base, sick, folder, tmp_path):
    encoder = make_encoder(tmp_path / "encoder")
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    tokenizer.add_tokens(["nebo"])  # a word of the stage's; the run's own data get others
    tokenizer.save_pretrained(encoder)
    data = tmp_path / "data"
    data.mkdir()
    for name in ("train-en", "dev-en", "test-en"):
        (data / f"{name}.tsv").write_text("the\tDET\nnab\tNOUN\n\n")
    config = dataclasses.replace(base, model=str(encoder), data_dir=data, output_dir=tmp_path / "run")
    with pytest.raises(ValueError, match=r"gives token 'nebo' the id \d+, but the encoder's embedding table has"):
        prepare(config)
    assert not config.output_dir.exists()


def test_a_stage_that_lost_weights_is_not_handed_on(base, tmp_path):
    config = dataclasses.replace(base, output_dir=tmp_path / "run")
    prepared = prepare(config)
    prepared.intermediate_run.train()
    weights_file = tmp_path / "run" / "intermediate" / "model.safetensors"
    kept = {name: value for name, value in load_file(weights_file).items() if not name.startswith("fusion.")}
    save_file(kept, weights_file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"the weights in .*intermediate lack fusion\."):
        fit(prepared)
