"""Training a model on an encoder with transformers' Trainer, evaluating it on every language, writing the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from ..evaluation.charts import bar_chart
from ..evaluation.evaluate import evaluate, model_for
from ..evaluation.prediction_files import prediction_name, write_predictions
from ..evaluation.results import backend_of, recorded_config, summary
from ..evaluation.source import installed_version
from ..files import atomic
from ..files.json_files import read_object
from ..frozen import StatesHead
from ..frozen.fingerprints import weights_fingerprint
from ..models.modeling import DLFAModel
from ..models.positions import check_length
from ..models.pretrained import no_encoder
from ..processes import default_device, process_state
from ..runs.checkpoints import newest_checkpoint
from ..runs.directory_lock import exclusive
from ..runs.run_config import CompleteRunConfig, RunConfig
from ..runs.run_directory import RunDirectory, recorded_files
from ..tasks import Feature, Task
from .embedding_rows import merge_rows, train_rows
from .intermediate import IntermediateRun
from .model_card import write_model_card
from .partial_training import add_adapters, freeze_layers, merge_adapters
from .shared_inputs import SharedInputs, encode_all, load_data, load_shared_inputs
from .trainer import task_trainer


@dataclass(frozen=True)
class PreparedRun:
    """A run that has passed every check and is ready to train."""

    config: CompleteRunConfig
    task: Task
    shared: SharedInputs
    model: PreTrainedModel
    encoder_sha256: str  # of the encoder's weights before training
    features: list[Feature]  # of the training data
    directory: RunDirectory
    checkpoint: Path | None
    intermediate_run: IntermediateRun | None  # the run on an intermediate task that comes first
    progress: bool

    def new_trained_module(self) -> PreTrainedModel | StatesHead:
        """Return the module to train and evaluate: the model, or its part after a frozen encoder."""
        return StatesHead(self.model) if self.config.freeze_encoder else self.model  # type: ignore[arg-type]


def train(
    config: RunConfig, *, overwrite: bool = False, resume: bool = False, progress: bool = False
) -> dict[str, Any]:
    """Train and evaluate the run of `config`, and write everything to its `output_dir`.

    Args:
        config: the run.
        overwrite: replace the run in `output_dir`.
        resume: continue the run in `output_dir` from its newest complete checkpoint. A complete run is returned without
            a check of its encoder; an empty directory starts from the beginning.
        progress: show progress bars.

    Returns:
        The content of results.json, on every process.

    Raises:
        ValueError, TypeError: invalid input; raised before any training.
        FloatingPointError: the loss, or scores of the trained model, became NaN or infinite.
    """
    directory = RunDirectory(config.output_dir)
    with exclusive(directory.path):
        prepared = prepare(config, overwrite=overwrite, resume=resume, progress=progress)
        if prepared is not None:
            return fit(prepared)
        return read_object(directory.results_file, ("languages", "averages"))


def prepare(
    config: RunConfig,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = False,
    shared: SharedInputs | None = None,
) -> PreparedRun | None:
    """Check the run, read and encode all of its data, load tokenizer and encoder, and claim the output directory.

    All input is checked before anything in that directory is removed.

    Args:
        config, overwrite, resume, progress: see `train`.
        shared: the result of `load_shared_inputs` for a configuration that differs from this one only in model options
            (except `label_subword`), hyper-parameters (except `max_length`), seed and output directory.

    Returns:
        The input of `fit`; None if `resume` finds the run complete.

    Raises:
        ValueError, TypeError, OSError: invalid input of any kind.
    """
    if config.fp16 and not torch.accelerator.is_available():
        raise ValueError("fp16 needs a GPU, and there is none; bf16 runs on the CPU too")
    intermediate_run = IntermediateRun.of(config)
    config = config.with_presets()
    task = config.task_object
    directory = RunDirectory(config.output_dir)
    directory.check(config.model, overwrite, resume)
    data = load_data(config) if shared is None else shared.data
    config = dataclasses.replace(config, languages=tuple(data.test))
    run = {
        "config": config.to_json(),
        "processes": process_state().num_processes,
        "data_sha256": data.sha256,
        "dlfa": installed_version("dlfa"),
    }
    resumed = resume and directory.run_file.exists()
    if resumed:
        directory.check_same_run(run)
        if directory.results_file.exists():
            if process_state().is_main_process:
                directory.remove_leftovers()
            return None
    shared = shared or load_shared_inputs(config, data)
    set_seed(config.seed)
    model = new_model(config, shared.encoder)
    backend_of(model, default_device(), config.autocast)  # raises where AIF could not run
    encoder_sha256 = shared.encoder_sha256 or weights_fingerprint(model.base_model)
    if resumed:
        directory.check_same_encoder(encoder_sha256)
    limit_training(model, config)
    encoder = cast(PreTrainedModel, model.encoder)
    if intermediate_run is not None:
        intermediate_run.check(encoder, progress=progress)
    features = encode_all(config, shared, encoder, progress=progress)
    files = recorded_files(directory.run_file) if resumed else []
    run_text = atomic.json_text({**run, "encoder_sha256": encoder_sha256, "files": files})
    process_state().wait_for_everyone()  # no process may look at the directory after one has claimed it
    if process_state().is_main_process:
        if overwrite:
            directory.clear()
        directory.remove_leftovers()
        # A run that goes on may do so with its data in another place.
        atomic.write_text(directory.run_file, run_text)
    checkpoint = newest_checkpoint(directory.checkpoints) if resumed else None
    return PreparedRun(
        config, task, shared, model, encoder_sha256, features, directory, checkpoint, intermediate_run, progress
    )


def new_model(config: CompleteRunConfig, encoder: DLFAModel | None = None) -> PreTrainedModel:
    """Build a model for the task and encoder of `config`; torch's generator initialises the new parameters.

    Args:
        config: the run.
        encoder: a model whose encoder becomes part of the new one; None loads the encoder.

    Raises:
        ValueError: there is no such encoder, or an option does not fit it.
        TypeError: the model does not know an option.
    """
    task, options = config.task_object, dict(config.model_options)
    if task.labels:
        options["id2label"] = dict(enumerate(task.labels))
        options["label2id"] = {label: index for index, label in enumerate(task.labels)}
    try:
        source = config.model if encoder is None else encoder.encoder
        model: PreTrainedModel = model_for(task).from_encoder(source, **options)  # type: ignore[attr-defined]
    except OSError as error:
        raise no_encoder(config.model, error) from error
    check_length(cast(PreTrainedModel, model.base_model), config.model, config.max_length)
    return model


def limit_training(model: PreTrainedModel, config: RunConfig) -> None:
    """Freeze the encoder, add adapters or enable gradient checkpointing, according to `config`.

    Raises:
        ValueError: the encoder does not have the layers to freeze or to adapt.
    """
    if config.gradient_checkpointing:
        # transformers renamed it amid version 5, and warns of the name that its older releases know.
        renamed = hasattr(model, "activation_checkpointing_enable")
        enable: Any = model.activation_checkpointing_enable if renamed else model.gradient_checkpointing_enable
        enable()
    if config.freeze_encoder:
        model.encoder.requires_grad_(False)
    if config.freeze_layers is not None:
        freeze_layers(model, config.freeze_layers)
    if config.lora_rank is not None:
        add_adapters(model, config.lora_rank, config.lora_alpha, config.lora_targets)


def fit(prepared: PreparedRun, *, keep_model: bool = True) -> dict[str, Any]:
    """Train, evaluate on every language, write the results and return them.

    Args:
        prepared: the run.
        keep_model: write the trained model.

    Raises:
        FloatingPointError: the loss, or scores of the trained model, became NaN or infinite.
    """
    config, task, model, directory = prepared.config, prepared.task, prepared.model, prepared.directory
    more: dict[str, Any] = {}
    if prepared.intermediate_run is not None:
        more["intermediate"] = prepared.intermediate_run.train(progress=prepared.progress)
        prepared.intermediate_run.hand_over(model)
        set_seed(config.seed)
        limit_training(model, config)
    if config.weight_decay == 0:
        train_rows(model, (feature.inputs["input_ids"] for feature in prepared.features))
    trainer = task_trainer(prepared)
    trained_module = trainer.trained_module
    trainer.train(resume_from_checkpoint=None if prepared.checkpoint is None else str(prepared.checkpoint))
    merge_rows(model)
    if config.lora_rank is not None:  # the model that is evaluated is the one that is saved
        merge_adapters(model)
    train_facts = trainer.record.facts(trainer.state)
    evaluations = evaluate(
        trained_module,
        prepared.shared.inputs,
        prepared.shared.data.test,
        batch_size=config.eval_batch_size,
        autocast=config.autocast,
        progress=prepared.progress,
    )
    results = summary(
        task,
        model,
        config.model,
        evaluations,
        seed=config.seed,
        autocast=config.autocast,
        encoder_sha256=prepared.encoder_sha256,
        train=train_facts,
        config=recorded_config(config) | {"processes": process_state().num_processes},
        **more,
    )
    if process_state().is_main_process:
        if keep_model:
            write_model(directory.path, model, prepared.shared.inputs.tokenizer, directory.record)
        elif prepared.intermediate_run is not None:
            directory.clear_intermediate()
        card = ["README.md"] if keep_model and evaluations else []
        predictions = [f"{directory.predictions.name}/{prediction_name(task, language)}" for language in evaluations]
        directory.record([*card, *predictions])
        write_predictions(directory.predictions, task, evaluations)
        atomic.write_json(directory.path / "training.json", trainer.state.log_history)
        if card:
            write_model_card(directory.path, results)
        atomic.write_json(directory.results_file, results)
        directory.remove_checkpoints()
        if evaluations:  # last: whatever happens to the chart, the run is complete
            bar_chart(results, directory.chart_file)
    process_state().wait_for_everyone()
    return results


def write_model(
    path: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    record: Callable[[list[str]], None],
) -> None:
    """Save model and tokenizer to `path`. config.json is written last, since nothing loads without it.

    Args:
        path: an existing directory.
        model, tokenizer: the objects to save.
        record: called with the names of the files before they are moved into place.
    """
    partial = atomic.temporary(path / "model")
    partial.mkdir(parents=True, exist_ok=True)
    try:
        tokenizer.save_pretrained(partial)
    except Exception as error:  # of tokenizers, which has no type of its own for a full disk
        raise OSError(f"{path}: the tokenizer cannot be saved: {error}") from error
    model.save_pretrained(partial)
    files = sorted(partial.iterdir(), key=lambda file: file.name == "config.json")
    record([file.name for file in files])
    for file in files:
        if file.is_file():
            atomic.sync(file)
        file.replace(path / file.name)
    partial.rmdir()
