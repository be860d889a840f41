"""Training: what a run leaves behind, what it refuses before it starts, what an interruption costs."""

import dataclasses
import json
import math
import resource
import shutil
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_tasks import make_encoder, make_udpos
from transformers import AutoTokenizer, BertModel, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ProgressCallback

from dlfa import DLFAForTokenClassification
from dlfa.files import atomic
from dlfa.models.tokenizer import load_tokenizer
from dlfa.runs.checkpoints import mark_complete
from dlfa.runs.run_config import RunConfig
from dlfa.runs.run_directory import RunDirectory, recorded_files
from dlfa.training.length_batches import LengthGroupedSampler
from dlfa.training.shared_inputs import check_token_ids, load_data, load_shared_inputs
from dlfa.training.train import new_model, prepare, train, write_model
from dlfa.training.trainer import TrainingRecord, parameter_groups, task_trainer
from dlfa_kernels.checks import FUSE_MODES

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def base(encoder, data_dir):
    """A run that learns the made-up tags in a second."""
    return RunConfig(
        task="udpos",
        model=str(encoder),
        output_dir=Path("unset"),
        data_dir=data_dir,
        model_options={"fusion_layer": 1},
        learning_rate=1e-2,
        epochs=4,
        batch_size=4,
        gradient_accumulation=1,
        max_length=32,
    )


@pytest.fixture(scope="module")
def finished(base, tmp_path_factory):
    config = dataclasses.replace(base, output_dir=tmp_path_factory.mktemp("runs") / "run")
    return config, train(config)


def test_a_checkout_that_is_not_installed_trains_and_resumes(base, tmp_path, monkeypatch):
    def version(name):
        if name == "dlfa":
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    installed = metadata.version
    monkeypatch.setattr(metadata, "version", version)
    config = dataclasses.replace(base, output_dir=tmp_path / "run", epochs=1)
    results = train(config)
    assert results["environment"]["dlfa"] is None
    assert train(config, resume=True) == results


def test_progress_is_told_on_standard_error_alone(base, tmp_path, capsys, monkeypatch):
    """Of encoding, training, development evaluation and test; standard output is a command's table's."""
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes standard error for a terminal
    sizes = []

    def seen(self, args, state, control, eval_dataloader=None, **more):
        sizes.append(len(eval_dataloader))
        return shown(self, args, state, control, eval_dataloader=eval_dataloader, **more)

    shown = ProgressCallback.on_prediction_step
    monkeypatch.setattr(ProgressCallback, "on_prediction_step", seen)
    config = dataclasses.replace(base, output_dir=tmp_path / "run", epochs=1, eval_batch_size=8)
    train(config, progress=True)
    said = capsys.readouterr()
    assert said.out == ""
    assert all(word in said.err for word in ("tokenize", "loss=", "evaluate"))
    batches = -(-len(load_data(config).dev) // 8)
    assert sizes == [batches] * batches
    monkeypatch.delenv("FORCE_COLOR")
    train(dataclasses.replace(config, output_dir=tmp_path / "logged"), progress=True)
    said = capsys.readouterr().err
    assert "loss=" in said
    assert "tokenize" not in said
    assert len(sizes) == batches


def test_run_learns_and_leaves_everything(finished):
    config, results = finished
    out = config.output_dir
    assert results["languages"]["en"]["accuracy"] > 0.9
    assert results["average"] > 0.5
    files = {path.name for path in out.iterdir()}
    assert {"run.json", "results.json", "config.json", "model.safetensors", "tokenizer.json", "languages.png"} <= files
    assert "Mean f1 over all but en" in (out / "README.md").read_text()
    assert not (out / "checkpoints").exists()
    assert not [name for name in files if name.startswith(".")]
    assert json.loads((out / "results.json").read_text()) == results
    assert (out / "languages.png").read_bytes().startswith(b"\x89PNG")


def test_predictions_are_in_the_format_of_xtremes_scorer(finished, data_dir):
    config, results = finished
    for language in ("en", "de", "fr"):
        gold = (data_dir / f"test-{language}.tsv").read_text().split("\n\n")
        text = (config.output_dir / "predictions" / f"test-{language}.tsv").read_text()
        guessed = text.split("\n\n")
        assert len(guessed) == len(gold)
        right = words = 0
        for gold_sentence, guess in zip(gold, guessed, strict=True):
            gold_tags = [line.split("\t")[1] for line in gold_sentence.splitlines()]
            assert len(gold_tags) == len(guess.splitlines())
            right += sum(a == b for a, b in zip(gold_tags, guess.splitlines(), strict=True))
            words += len(gold_tags)
        assert right / words == pytest.approx(results["languages"][language]["accuracy"])


def test_results_have_the_designs_fields(finished):
    config, results = finished
    assert (results["task"], results["fusion_layer"], results["fuse"], results["seed"]) == ("udpos", 1, "gate", 1)
    assert (results["metric"], results["train_language"]) == ("f1", "en")
    assert results["model"] == Path(config.model).name  # no machine's path
    scores = results["languages"]
    assert set(scores) == {"de", "en", "fr"}
    assert set(scores["en"]) == {"f1", "accuracy", "xtreme_span_f1", "examples"}
    assert scores["en"]["examples"] == 10
    assert results["average"] == pytest.approx(sum(scores[lang]["f1"] for lang in scores) / 3)
    assert results["average_zero_shot"] == pytest.approx((scores["de"]["f1"] + scores["fr"]["f1"]) / 2)
    assert results["train"]["steps"] == 4 * 48 // 4
    assert 0 < results["train"]["loss"] < math.log(17)
    assert results["train"]["seconds"] > 0
    environment = results["environment"]
    assert environment["torch"] == torch.__version__
    assert (environment["device"], environment["backend"]) == ("cpu", "eager")
    assert str(ROOT.parent) not in json.dumps(results)
    assert config.output_dir.as_posix() not in json.dumps(results)


def test_the_record_weighs_losses_by_steps_and_adds_up_the_parts_of_a_run(tmp_path):
    losses = [
        {"loss": 2.0, "step": 20},
        {"loss": 1.0, "step": 40},
        {"eval_f1": 0.5, "step": 40},
        {"loss": 4.0, "step": 50},
    ]
    state = TrainerState(global_step=50, log_history=losses)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    mark_complete(tmp_path, {"seconds": 12.5})
    for checkpoint, seconds in ((None, 0.0), (tmp_path, 12.5)):
        record = TrainingRecord(checkpoint)
        record.on_train_end(arguments, state, TrainerControl())
        facts = record.facts(state)
        assert facts == {"steps": 50, "seconds": pytest.approx(seconds, abs=1), "loss": (2 * 20 + 1 * 20 + 4 * 10) / 50}
    state.best_metric, state.best_global_step = 0.75, 40
    assert record.facts(state) == {**facts, "best_step": 40, "best_dev": 0.75}


@pytest.mark.parametrize("first", [True, False])
def test_a_checkpoint_is_complete_when_every_process_has_written_its_part(tmp_path, monkeypatch, first):
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    found = []
    everyone = SimpleNamespace(wait_for_everyone=lambda: found.append((folder / "complete.json").exists()))
    monkeypatch.setattr("dlfa.training.trainer.process_state", lambda: everyone)
    state = TrainerState(global_step=5, is_world_process_zero=first)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    TrainingRecord(None).on_save(arguments, state, TrainerControl())
    assert found == [False]
    assert (folder / "complete.json").exists() == first


@pytest.mark.parametrize("changes", [{"freeze_encoder": True}, {"lora_rank": 2}, {"intermediate": True}])
def test_results_tell_the_encoder_that_training_began_with(base, finished, data_dir, tmp_path, changes):
    if "intermediate" in changes:
        changes = {"intermediate": (f"udpos:{data_dir}",)}
    config = dataclasses.replace(base, output_dir=tmp_path / "run", epochs=0.1, languages=("de",), **changes)
    results = train(dataclasses.replace(config, states_cache=tmp_path / "cache"))
    assert results["encoder_sha256"] == finished[1]["encoder_sha256"]
    other = BertModel.from_pretrained(base.model)
    other.embeddings.LayerNorm.bias.data += 1
    other.save_pretrained(tmp_path / "encoder")
    AutoTokenizer.from_pretrained(base.model).save_pretrained(tmp_path / "encoder")
    config = dataclasses.replace(base, model=str(tmp_path / "encoder"), output_dir=tmp_path / "other", epochs=0.1)
    assert train(config)["encoder_sha256"] != results["encoder_sha256"]


def test_same_seed_gives_the_same_results_and_another_seed_others(base, finished, tmp_path):
    again = train(dataclasses.replace(base, output_dir=tmp_path / "again"))
    assert again["languages"] == finished[1]["languages"]
    assert again["train"]["loss"] == finished[1]["train"]["loss"]
    other = train(dataclasses.replace(base, output_dir=tmp_path / "other", seed=2))
    assert other["train"]["loss"] != finished[1]["train"]["loss"]


@pytest.mark.parametrize(
    "options", [{"fusion_layer": None}, {"fusion_layer": 0, "fuse": "select", "label_subword": "mean"},
                {"fusion_layer": 1, "label_subword": "last", "kernel_size": 3}]
)  # fmt: skip
def test_every_way_to_label_and_fuse_runs(base, tmp_path, options):
    config = dataclasses.replace(base, output_dir=tmp_path, model_options=options, epochs=1, languages=("de",))
    results = train(config)
    assert list(results["languages"]) == ["de"]
    assert results["average"] == results["average_zero_shot"]
    assert results["fusion"] == ("last" if options["fusion_layer"] is None else "aif")
    assert results["label_subword"] == options.get("label_subword", "first")
    assert results["environment"]["backend"] == (None if options["fusion_layer"] is None else "eager")


def test_english_alone_has_no_zero_shot_average(base, tmp_path):
    results = train(dataclasses.replace(base, output_dir=tmp_path, epochs=1, languages=("en",)))
    assert results["average_zero_shot"] is None
    assert "NaN" not in (tmp_path / "results.json").read_text()


def test_subsets_are_counted(base, tmp_path):
    config = dataclasses.replace(base, output_dir=tmp_path, epochs=1, max_train_examples=8, max_eval_examples=3)
    results = train(config)
    assert results["train"]["steps"] == 2
    assert {scores["examples"] for scores in results["languages"].values()} == {3}


def test_best_model_on_dev_is_kept(base, tmp_path, monkeypatch):
    # Dev F1 falls after the second epoch: the model of the second epoch must be what is saved and evaluated.
    import dlfa.training.trainer as trainer

    seen: list[dict[str, torch.Tensor]] = []
    scores = iter([0.2, 0.9, 0.5, 0.4])
    scored, judged = trainer.example_scores, trainer.score_language

    def seen_scores(model, *given, **options):
        state = model.state_dict().items()  # the embedding table is in two parts as long as it is trained
        seen.append({name: value.clone() for name, value in state if "word_embeddings" not in name})
        return scored(model, *given, **options)

    def fake(task, language, *given):
        result = judged(task, language, *given)
        assert language == "en"
        result.metrics["f1"] = next(scores)
        return result

    monkeypatch.setattr(trainer, "example_scores", seen_scores)
    monkeypatch.setattr(trainer, "score_language", fake)
    results = train(dataclasses.replace(base, output_dir=tmp_path, languages=("de",)))
    assert (results["train"]["best_step"], results["train"]["best_dev"]) == (24, 0.9)
    saved = DLFAForTokenClassification.from_pretrained(tmp_path).state_dict()
    assert len(seen[1]) == len(saved) - 1
    assert all(torch.equal(saved[name], value) for name, value in seen[1].items())
    assert not all(torch.equal(saved[name], value) for name, value in seen[3].items())


def test_new_parameters_have_their_own_rate_and_norms_no_decay(base, encoder):
    model = DLFAForTokenClassification.from_encoder(encoder, fusion_layer=1, num_labels=17)
    config = dataclasses.replace(base, learning_rate=1e-4, head_learning_rate=1e-2, weight_decay=0.1)
    decayed = {name for name, _ in model.named_parameters() if "bias" not in name and "LayerNorm" not in name}
    groups = parameter_groups(model, config, decayed)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert set(rates) == set(names.values())
    assert rates["classifier.weight"] == (1e-2, 0.1)
    assert rates["classifier.bias"] == (1e-2, 0.0)
    assert {rate for name, rate in rates.items() if name.startswith("fusion.")} == {(1e-2, 0.1), (1e-2, 0.0)}
    assert rates["encoder.embeddings.word_embeddings.weight"] == (1e-4, 0.1)
    assert rates["encoder.embeddings.LayerNorm.weight"] == (1e-4, 0.0)
    wrapped = torch.nn.ModuleDict({"module": model})  # as several processes have it
    again = parameter_groups(wrapped, config, {f"module.{name}" for name in decayed})
    assert {names[id(p)]: (group["lr"], group["weight_decay"]) for group in again for p in group["params"]} == rates


def test_the_optimiser_is_xtremes(base, tmp_path):
    prepared = prepare(dataclasses.replace(base, output_dir=tmp_path, warmup_steps=4))
    trainer = task_trainer(prepared)
    trainer.create_optimizer_and_scheduler(20)
    assert type(trainer.optimizer).__name__ == "AdamW"
    assert {group["eps"] for group in trainer.optimizer.param_groups} == {1e-8}
    assert trainer.args.max_grad_norm == 1.0
    rates = []
    for _ in range(20):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    rising, falling = [step / 4 for step in range(4)], [1 - step / 16 for step in range(16)]
    assert rates == pytest.approx([1e-2 * share for share in (*rising, *falling)])


def test_a_process_that_sees_several_gpus_trains_on_one(base, tmp_path, monkeypatch):
    original = TrainingArguments.__post_init__

    def with_two(arguments):
        original(arguments)
        arguments._n_gpu = 2

    monkeypatch.setattr(TrainingArguments, "__post_init__", with_two)
    trainer = task_trainer(prepare(dataclasses.replace(base, output_dir=tmp_path)))
    assert (trainer.args.n_gpu, trainer.args.train_batch_size) == (1, 4)
    assert trainer._wrap_model(trainer.model) is trainer.model


def test_like_lengths_are_those_of_all_processes(base, tmp_path, monkeypatch):
    config = dataclasses.replace(base, output_dir=tmp_path, group_by_length=True)
    trainer = task_trainer(prepare(config))
    monkeypatch.setattr(TrainingArguments, "world_size", 3)
    sampler = trainer._get_train_sampler()
    assert isinstance(sampler, LengthGroupedSampler)
    assert (sampler.batch_size, sampler.seed) == (3 * 4, 1)
    assert len(sampler) == 48


def test_a_model_half_written_is_no_model(encoder, tmp_path, monkeypatch):
    model = DLFAForTokenClassification.from_encoder(encoder, fusion_layer=1, num_labels=3)
    tokenizer = load_tokenizer(str(encoder), 128)  # the longest that it allows
    recorded: list[list[str]] = []

    def stop(file):
        if file.name == "config.json":
            raise KeyboardInterrupt

    monkeypatch.setattr("dlfa.files.atomic.sync", stop)
    with pytest.raises(KeyboardInterrupt):
        write_model(tmp_path, model, tokenizer, recorded.append)
    there = {path.name for path in tmp_path.iterdir()}
    assert {"model.safetensors", "tokenizer.json"} <= there
    assert "config.json" not in there
    assert {"model.safetensors", "tokenizer.json", "config.json"} <= set(recorded[0])


def test_a_tokenizer_that_cannot_be_saved_is_an_error_of_files(encoder, tmp_path, monkeypatch):
    model = DLFAForTokenClassification.from_encoder(encoder, fusion_layer=1, num_labels=3)
    tokenizer = load_tokenizer(str(encoder), 128)

    def fail(*_):
        raise Exception("No space left on device (os error 28)")  # as tokenizers does

    monkeypatch.setattr(tokenizer, "save_pretrained", fail)
    with pytest.raises(OSError, match="the tokenizer cannot be saved: No space left"):
        write_model(tmp_path, model, tokenizer, lambda names: None)


def test_a_chart_that_fails_costs_no_scores(base, tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError("no font")

    monkeypatch.setattr("dlfa.training.train.bar_chart", fail)
    with pytest.raises(ValueError, match="no font"):
        train(dataclasses.replace(base, output_dir=tmp_path))
    assert json.loads((tmp_path / "results.json").read_text())["languages"]
    assert not (tmp_path / "checkpoints").exists()


def test_divergence_is_an_error_not_a_result(base, tmp_path):
    config = dataclasses.replace(base, output_dir=tmp_path, learning_rate=1e30, epochs=20)
    with pytest.raises(FloatingPointError, match=r"training loss became .* try a lower learning rate"):
        train(config)
    assert not (tmp_path / "results.json").exists()


# Refusals: all before any training.


@pytest.fixture
def no_training(monkeypatch):
    import dlfa.training.train as training

    def started(*_, **__):
        raise AssertionError("training started")

    monkeypatch.setattr(training, "fit", started)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_options": {"fusion_layer": 2}}, r"fusion_layer must be in 0..1 .*got 2"),
        (
            {"model_options": {"fusion_layer": 1, "fuse": "no-such"}},
            f"fuse must be one of {', '.join(map(repr, FUSE_MODES))}, got 'no-such'",
        ),
        ({"model_options": {"fusion_layer": 1, "kernel_size": 2}}, "kernel_size must be odd"),
        ({"model": "no/such-encoder"}, "no tokenizer can be loaded from 'no/such-encoder'"),
        ({"max_length": 129}, "max_length must be at most 128"),
        ({"max_length": 2}, "must leave room for a sub-word"),
        ({"languages": ("en", "xx")}, "language 'xx' is not in .*valid are de, en, fr"),
        ({"data_dir": Path("nowhere")}, "nowhere: no such folder"),
        pytest.param(
            {"fp16": True},
            "fp16 needs a GPU",
            marks=pytest.mark.skipif(torch.accelerator.is_available(), reason="needs a machine without a GPU"),
        ),
    ],
)
def test_bad_input_stops_before_training(base, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        train(dataclasses.replace(base, output_dir=tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_training")
def test_malformed_line_stops_before_the_model_is_loaded(base, tmp_path, data_dir, monkeypatch):
    from dlfa.training import shared_inputs

    def loaded(*_, **__):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(shared_inputs, "load_tokenizer", loaded)
    broken = make_udpos(tmp_path / "data")
    with (broken / "test-fr.tsv").open("a") as file:
        file.write("half a line\n")
    with pytest.raises(ValueError, match=r"test-fr.tsv:\d+: expected 2 tab-separated columns"):
        train(dataclasses.replace(base, output_dir=tmp_path / "out", data_dir=broken))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("split", ["train-en", "dev-en", "test-fr"])
def test_a_token_without_an_embedding_stops_before_a_run_is_replaced(base, tmp_path, split, frozen):
    encoder, data, out = make_encoder(tmp_path / "encoder"), make_udpos(tmp_path / "data"), tmp_path / "out"
    config = dataclasses.replace(
        base, model=str(encoder), data_dir=data, output_dir=out, freeze_encoder=frozen, epochs=1,
        states_cache=tmp_path / "cache",
    )  # fmt: skip
    train(config)
    kept = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    rows = len(tokenizer)
    tokenizer.add_tokens(["[NEW]"])
    tokenizer.save_pretrained(encoder)  # and no resize_token_embeddings
    with (data / f"{split}.tsv").open("a") as file:
        file.write("[NEW]\tNOUN\n\n")
    needs = rf"encoder' gives token '\[NEW\]' the id {rows}, but the encoder's embedding table has {rows} rows; save"
    with pytest.raises(ValueError, match=needs):
        train(config, overwrite=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == kept


def test_an_encoder_without_a_table_takes_every_token(base, encoder, monkeypatch):
    from dlfa.training import shared_inputs

    monkeypatch.setattr(shared_inputs, "embedding_table", lambda _: None)
    config = base.with_presets()
    shared = load_shared_inputs(config, load_data(config))
    check_token_ids(shared, BertModel.from_pretrained(encoder))


def test_directory_that_holds_a_run_is_refused(base, finished):
    config, _ = finished
    before = (config.output_dir / "results.json").read_bytes()
    with pytest.raises(ValueError, match=r"already holds a run or a model; give --resume .* --overwrite"):
        train(config)
    with pytest.raises(ValueError, match="cannot be given together"):
        train(config, overwrite=True, resume=True)
    assert (config.output_dir / "results.json").read_bytes() == before


def test_directory_of_a_model_and_the_encoders_own_are_refused(base, encoder, tmp_path):
    other = make_encoder(tmp_path / "model")
    with pytest.raises(ValueError, match="already holds a run or a model"):
        train(dataclasses.replace(base, output_dir=other))
    with pytest.raises(ValueError, match="must not be the directory of --model"):
        train(dataclasses.replace(base, output_dir=encoder), overwrite=True)
    before = {path: path.read_bytes() for path in other.iterdir()}
    for option, aim in (("resume", "go on with"), ("overwrite", "replace")):
        with pytest.raises(ValueError, match=f"--{option}: .*no run.json: no run to {aim}"):
            train(dataclasses.replace(base, output_dir=other), **{option: True})
    assert {path: path.read_bytes() for path in other.iterdir()} == before
    assert (encoder / "model.safetensors").exists()


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("name", ["README.md", "training.json", "predictions/test-de.tsv", "checkpoints/checkpoint-12"])
@pytest.mark.parametrize("option", [{}, {"overwrite": True}, {"resume": True}])
def test_files_of_others_that_a_run_would_replace_are_refused(base, tmp_path, name, option):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(ValueError, match=f"holds {name} of something else, which the run would replace"):
        train(dataclasses.replace(base, output_dir=tmp_path), **option)
    assert path.read_text() == "mine"


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("option", [{}, {"overwrite": True}, {"resume": True}])
def test_a_sweeps_directory_is_no_runs(base, tmp_path, option):
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds a sweep \(sweep.json\); give another directory"):
        train(dataclasses.replace(base, output_dir=tmp_path), **option)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("option", [{}, {"overwrite": True}, {"resume": True}])
@pytest.mark.parametrize("complete", [False, True])
def test_an_ensembles_directory_is_no_runs(base, tmp_path, complete, option):
    files = {"ensemble.json": '{"runs": [], "by": "vote"}', **({"results.json": "{}"} if complete else {})}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="holds an ensemble; give another directory"):
        train(dataclasses.replace(base, output_dir=tmp_path), **option)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_overwrite_replaces_the_run_and_spares_other_files(base, tmp_path):
    config = dataclasses.replace(base, output_dir=tmp_path, epochs=1)
    train(config)
    others = ("notes.txt", "predictions/mine.tsv", "predictions/test-my-notes.txt", "vocab.txt",
              "intermediate/mine.txt", "checkpoints/mine.txt",
              "checkpoints/checkpoint-mine/complete.json", "model-backup.safetensors",
              "tokenizer_mine.json")  # fmt: skip
    for name in others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    train(config, resume=True)
    assert all((tmp_path / name).read_text() == "mine" for name in others)
    (tmp_path / "checkpoints" / "checkpoint-7").mkdir()
    results = train(dataclasses.replace(config, languages=("fr",), seed=3), overwrite=True)
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert {path.name for path in (tmp_path / "predictions").iterdir()} == {
        "mine.tsv", "test-my-notes.txt", "test-fr.tsv",
    }  # fmt: skip
    assert all((tmp_path / name).read_text() == "mine" for name in others)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"mine.txt", "checkpoint-mine"}


def test_overwrite_leaves_no_file_of_another_tokenizer(base, tmp_path, monkeypatch):
    import dlfa.training.train as training

    def with_template(config, *arguments, **keywords):
        shared = load(config, *arguments, **keywords)
        shared.inputs.tokenizer.chat_template = "{{ messages }}"
        return shared

    load = training.load_shared_inputs
    monkeypatch.setattr(training, "load_shared_inputs", with_template)
    config = dataclasses.replace(base, output_dir=tmp_path, epochs=0.1, languages=("de",))
    train(config)
    assert "chat_template.jinja" in recorded_files(tmp_path / "run.json")
    monkeypatch.undo()
    there = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    train(config, overwrite=True)
    now = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert there - now == {"chat_template.jinja"}
    assert set(recorded_files(tmp_path / "run.json")) == now - {
        "run.json", "results.json", "training.json", "languages.png",
    }  # fmt: skip


@pytest.mark.usefixtures("no_training")
def test_a_run_is_kept_where_the_new_ones_configuration_cannot_be_written(finished):
    config, _ = finished
    before = {path: path.read_bytes() for path in config.output_dir.rglob("*") if path.is_file()}
    # the model takes it, JSON does not
    options = {**config.model_options, "dtype": torch.float32}
    with pytest.raises(TypeError, match="not JSON serializable"):
        train(dataclasses.replace(config, model_options=options), overwrite=True)
    assert {path: path.read_bytes() for path in config.output_dir.rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("no_training")
def test_resume_of_a_finished_run_returns_it(finished):
    config, results = finished
    assert train(config, resume=True) == results


def test_without_model_options_a_run_is_the_baseline_on_an_encoder_of_any_depth(base):
    model = new_model(dataclasses.replace(base, model_options={}))
    assert model.config.fusion == "last"


@pytest.mark.usefixtures("no_training")
def test_resume_with_another_configuration_names_the_keys(finished, tmp_path):
    config, _ = finished
    other = dataclasses.replace(config, seed=5, model_options={"fusion_layer": 0})
    with pytest.raises(ValueError, match=r"model_options: \{'fusion_layer': 1\} there, .*; seed: 1 there, 5 now"):
        train(other, resume=True)
    changed = make_udpos(tmp_path / "data", train=40)
    with pytest.raises(ValueError, match="the data have changed"):
        train(dataclasses.replace(config, data_dir=changed), resume=True)


@pytest.mark.usefixtures("no_training")
def test_a_run_resumes_however_its_encoder_is_spelt_and_wherever_from(finished, encoder, tmp_path, monkeypatch):
    config, results = finished
    copy = tmp_path / "run"
    shutil.copytree(config.output_dir, copy)
    (tmp_path / "link").symlink_to(encoder)
    monkeypatch.chdir(encoder.parent)
    names = (encoder.name, f"./{encoder.name}/", f"../{encoder.parent.name}/{encoder.name}", str(tmp_path / "link"))
    for name in names:
        assert train(dataclasses.replace(config, output_dir=copy, model=name), resume=True) == results
    told = json.loads((copy / "run.json").read_text())
    told["config"]["model"] = f"../{encoder.parent.name}/{encoder.name}"  # as older releases left it
    (copy / "run.json").write_text(json.dumps(told))
    assert train(dataclasses.replace(config, output_dir=copy), resume=True) == results
    monkeypatch.chdir(tmp_path)
    shutil.copytree(encoder, tmp_path / "other")
    with pytest.raises(ValueError, match=r"another configuration \(model: "):
        train(dataclasses.replace(config, output_dir=copy, model="other"), resume=True)


@pytest.mark.usefixtures("no_training")
def test_a_run_resumes_with_its_data_elsewhere_and_with_other_means(base, data_dir, tmp_path):
    config = dataclasses.replace(base, output_dir=tmp_path / "out")
    moved = shutil.copytree(data_dir, tmp_path / "moved")
    again = dataclasses.replace(config, data_dir=moved, gradient_checkpointing=True, eval_batch_size=2)
    for run, options in ((config, {}), (again, {"resume": True})):
        with pytest.raises(AssertionError, match="training started"):
            train(run, **options)
        assert RunDirectory(config.output_dir).read_config().data_dir == run.data_dir


@pytest.mark.usefixtures("no_training")
def test_resume_with_changed_data_is_refused(base, tmp_path):
    folder = make_udpos(tmp_path / "data")
    config = dataclasses.replace(base, output_dir=tmp_path / "out", data_dir=folder)
    with pytest.raises(AssertionError, match="training started"):
        train(config)  # claims the directory
    with (folder / "train-en.tsv").open("a") as file:
        file.write("a\tNOUN\n\n")
    with pytest.raises(ValueError, match="the data have changed"):
        train(config, resume=True)


@pytest.mark.usefixtures("no_training")
def test_resume_by_another_number_of_processes_is_refused(finished, tmp_path):
    config, results = finished
    assert results["config"]["processes"] == 1
    there = RunDirectory(config.output_dir).read_run() | {"processes": 2}
    copy = shutil.copytree(config.output_dir, tmp_path / "run")
    RunDirectory(copy).run_file.write_text(json.dumps(there))
    with pytest.raises(ValueError, match=r"was started by 2 processes, not 1"):
        train(dataclasses.replace(config, output_dir=copy), resume=True)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("frozen", [True, False])
def test_resume_with_another_encoder_is_refused(base, tmp_path, frozen):
    encoder = make_encoder(tmp_path / "encoder")
    config = dataclasses.replace(
        base, output_dir=tmp_path / "out", model=str(encoder), freeze_encoder=frozen, states_cache=tmp_path / "cache"
    )
    for options in ({}, {"resume": True}):
        with pytest.raises(AssertionError, match="training started"):
            train(config, **options)
    run_file = RunDirectory(config.output_dir).run_file
    before = run_file.read_bytes()
    other = BertModel.from_pretrained(encoder)
    other.embeddings.LayerNorm.bias.data += 1
    other.save_pretrained(encoder)
    with pytest.raises(ValueError, match="the encoder's weights have changed"):
        train(config, resume=True)
    assert run_file.read_bytes() == before


def test_leftovers_of_killed_processes_are_removed(base, tmp_path):
    config = dataclasses.replace(base, output_dir=tmp_path, epochs=1, languages=("de",))
    names = ("results.json", "model", "predictions/test-de.tsv")
    results_file, model_folder, predictions_file = (atomic.temporary(tmp_path / name) for name in names)
    leftovers = [results_file, model_folder / "config.json", predictions_file]
    notes = atomic.temporary(tmp_path / "notes")  # no name of a run

    def kill():
        for path in (*leftovers, tmp_path / "checkpoints" / "checkpoint-12" / "model.safetensors"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")
        notes.write_text("mine")

    train(config)
    kill()  # between the results and the removal of the checkpoints
    train(config, resume=True)
    assert not any(path.exists() for path in leftovers)
    assert not model_folder.exists()
    assert not (tmp_path / "checkpoints").exists()
    for options in ({"resume": True}, {"overwrite": True}):
        (tmp_path / "results.json").unlink()
        kill()
        train(config, **options)
        assert not any(path.exists() for path in leftovers)
    assert notes.exists()


def test_a_run_killed_as_it_began_leaves_nothing_to_the_next(base, tmp_path):
    partial = atomic.temporary(tmp_path / "run.json")
    partial.write_text("{")
    prepare(dataclasses.replace(base, output_dir=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_run_killed_after_its_last_step_takes_no_other(base, tmp_path, monkeypatch):
    import dlfa.training.train as training

    config = dataclasses.replace(base, epochs=1.5, output_dir=tmp_path / "killed")
    whole = train(dataclasses.replace(config, output_dir=tmp_path / "whole"))

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "merge_rows", killed)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    monkeypatch.undo()
    assert (config.output_dir / "checkpoints" / "checkpoint-18").exists()
    resumed = train(config, resume=True)
    assert resumed["train"]["steps"] == whole["train"]["steps"] == 18
    for name in ("loss", "best_step", "best_dev"):
        assert resumed["train"][name] == whole["train"][name]
    assert resumed["languages"] == whole["languages"]


def test_a_disk_that_fills_at_a_checkpoint_is_named_and_the_run_goes_on_later(
    base, finished, tmp_path, interrupt_at_checkpoint
):
    config = dataclasses.replace(base, output_dir=tmp_path)
    interrupt_at_checkpoint(config)
    (checkpoint,) = tmp_path.glob("checkpoints/checkpoint-*")
    sizes = {path.name: path.stat().st_size for path in checkpoint.iterdir()}
    *_, before, largest = sorted(sizes.values())
    assert sizes["optimizer.pt"] == largest > before
    shutil.rmtree(checkpoint)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (before, old[1]))  # to a writer as a full disk is
    try:
        with pytest.raises(OSError, match=rf"^no checkpoint can be written to {checkpoint}; is the disk full\?$"):
            train(config, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert train(config, resume=True)["languages"] == finished[1]["languages"]
