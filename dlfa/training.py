"""Training: a model over an encoder, by transformers' Trainer, evaluated on every language, written as a whole."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import Sampler
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback

from . import atomic
from .cache_directory import cache_directory
from .charts import bar_chart
from .configuration import DLFAConfig
from .data.loading import TaskData, choose_languages, load_task_data
from .directory_lock import held
from .embedding_rows import merge_rows, train_rows
from .error_lines import first_line
from .evaluation import LanguageEvaluation, evaluate, model_for
from .frozen import StateInputs, StatesHead, StateStore
from .frozen.fingerprints import weights_fingerprint
from .intermediate import Predecessor
from .json_files import read_object
from .length_batches import LengthGroupedSampler
from .model_card import write_model_card
from .model_inputs import ModelInputs
from .modeling import DLFAModel
from .partial_training import add_adapters, freeze_layers, merge_adapters
from .positions import check_length
from .processes import default_device, process_state
from .results import summary
from .run_config import RunConfig
from .run_directory import (
    RunDirectory,
    complete_facts,
    mark_complete,
    remove_checkpoint,
    step_of,
)
from .tasks import Encoding, Feature, Task


@dataclass(frozen=True)
class Materials:
    """What runs on the same data, tokenizer and frozen encoder share, read once for all of them."""

    data: TaskData
    tokenizer: PreTrainedTokenizerBase
    inputs: ModelInputs
    encoder: DLFAModel | None  # where it is frozen: a model without fusion around it
    encoder_sha256: str | None  # of its weights


@dataclass(frozen=True)
class Prepared:
    """A run that has passed every check: only training is left to do."""

    config: RunConfig
    task: Task
    materials: Materials
    model: PreTrainedModel
    encoder_sha256: str  # of the encoder's weights before training
    features: list[Feature]  # of the training data
    directory: RunDirectory
    checkpoint: Path | None
    predecessor: Predecessor | None  # the run on an intermediate task that comes first
    progress: bool

    @property
    def learner(self) -> PreTrainedModel | StatesHead:
        """What is trained and evaluated: the model, or what lies over its frozen encoder."""
        return StatesHead(self.model) if self.config.freeze_encoder else self.model  # type: ignore[arg-type]


def train(
    config: RunConfig, *, overwrite: bool = False, resume: bool = False, progress: bool = False
) -> dict[str, Any]:
    """Train and evaluate as `config` says, and write everything to its `output_dir`.

    Args:
        config: the run.
        overwrite: replace a run that lies in `output_dir`.
        resume: go on with the run that lies there, from its newest complete checkpoint; a run that is complete is
            returned as it is, and an empty directory starts from the beginning.
        progress: show progress bars.

    Returns:
        The content of results.json, on every process.

    Raises:
        ValueError, TypeError: bad input; raised before any training.
        FloatingPointError: the loss became NaN or infinite.
    """
    directory = RunDirectory(config.output_dir)
    with held(directory.path):
        prepared = prepare(config, overwrite=overwrite, resume=resume, progress=progress)
        return read_object(directory.results_file, ("languages",)) if prepared is None else fit(prepared)


def prepare(
    config: RunConfig,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = False,
    materials: Materials | None = None,
) -> Prepared | None:
    """Check the run, read and encode all of its data, load tokenizer and encoder, and claim the output directory.

    Whatever can be wrong with the input is found before anything in that directory is removed.

    Args:
        config, overwrite, resume, progress: as `train`.
        materials: of `load_materials`, for a configuration that differs from this one in nothing but model options
            other than `label_subword`, hyper-parameters other than `max_length`, seed and output directory.

    Returns:
        What `fit` needs; None where `resume` finds the run complete.

    Raises:
        ValueError, TypeError, OSError: bad input, of whatever kind.
    """
    if config.fp16 and not torch.accelerator.is_available():
        raise ValueError("fp16 needs a GPU, and there is none; bf16 runs on the CPU too")
    predecessor = Predecessor.of(config)
    config = config.with_presets()
    task = config.task_object
    directory = RunDirectory(config.output_dir)
    directory.check(config.model, overwrite, resume)
    data = load_data(config) if materials is None else materials.data
    config = dataclasses.replace(config, languages=tuple(data.test))
    run = {"config": config.to_json(), "data_sha256": data.sha256(), "dlfa": metadata.version("dlfa")}
    resumed = resume and directory.run_file.exists()
    if resumed:
        directory.check_same_run(run)
        if directory.results_file.exists():
            if process_state().is_main_process:
                directory.remove_leftovers()
            return None
    if predecessor is not None:
        predecessor.check()
    materials = materials or load_materials(config, data, progress=progress)
    set_seed(config.seed)
    model = new_model(config, task, materials.encoder)
    encoder_sha256 = materials.encoder_sha256 or weights_fingerprint(model.base_model)
    limit_training(model, config)
    features = encode_all(config, materials)
    process_state().wait_for_everyone()  # no process may look at the directory after one has claimed it
    if process_state().is_main_process:
        if resumed:
            directory.remove_leftovers()
        else:
            if overwrite:
                directory.clear()
            atomic.write_json(directory.run_file, run)
    checkpoint = directory.newest_checkpoint() if resumed else None
    return Prepared(
        config, task, materials, model, encoder_sha256, features, directory, checkpoint, predecessor, progress
    )


def load_data(config: RunConfig) -> TaskData:
    """All data of a run, in the languages that it is tested on.

    Raises:
        DataError: whatever is wrong with the data.
    """
    task = config.task_object
    return load_task_data(
        task,
        config.data_dir,
        choose_languages(task, config.data_dir, config.languages, "test"),
        max_train_examples=config.max_train_examples,
        max_eval_examples=config.max_eval_examples,
    )


def load_materials(config: RunConfig, data: TaskData, *, progress: bool = False) -> Materials:
    """What runs on `data` share: the tokenizer, and where the encoder is frozen the encoder and its states.

    Args:
        config: one of the runs, its presets filled in.
        data: of the runs.
        progress: show a bar while hidden states are computed.

    Raises:
        ValueError: tokenizer or encoder cannot be loaded, or do not allow `max_length` tokens.
    """
    tokenizer = load_tokenizer(config.model, config.max_length or 0)
    encoding = Encoding(config.max_length or 0, config.model_options.get("label_subword", "first"))
    if not config.freeze_encoder:
        return Materials(data, tokenizer, ModelInputs(config.task_object, tokenizer, encoding), None, None)
    try:
        encoder = DLFAModel.from_encoder(config.model, None)
    except OSError as error:
        raise ValueError(f"no encoder can be loaded from {config.model!r}: {first_line(error)}") from error
    store = StateStore(
        encoder.to(default_device()),  # type: ignore[arg-type]
        tokenizer,
        (config.states_cache or cache_directory()) / "states",
        dtype=config.states_dtype,
        batch_size=config.eval_batch_size,
        autocast=autocast_dtype(config),
        progress=progress,
    )
    inputs = StateInputs(config.task_object, tokenizer, encoding, store)
    return Materials(data, tokenizer, inputs, encoder, store.weights_sha256)


def compute_states(materials: Materials, several: Iterable[Mapping[str, Any]]) -> None:
    """Compute a frozen encoder's states in one pass for all layers that any run needs.

    Args:
        materials: of the runs; where their encoder is not frozen, there is nothing to do.
        several: the model options of each run.

    Raises:
        ValueError, OSError: the states cannot be kept in the precision or the place that was chosen.
    """
    if not isinstance(materials.inputs, StateInputs) or materials.encoder is None:
        return
    encoder_config = materials.encoder.config.encoder_config
    layers = {
        layer for options in several for layer in DLFAConfig(encoder_config=encoder_config, **options).lower_layers
    }
    data = materials.data
    parts = [(data.train, True), (data.dev, False), *((examples, False) for examples in data.test.values())]
    materials.inputs.compute(parts, sorted(layers))


def encode_all(config: RunConfig, materials: Materials) -> list[Feature]:
    """Encode all data of a run, over a frozen encoder up to its states, and return the features of the training data.

    Raises:
        ValueError: a `max_length` that some example does not fit in, or no example that can be trained on.
        OSError: the states cannot be kept where they should be.
    """
    data, inputs = materials.data, materials.inputs
    features = inputs.features(data.train, training=True)
    if not features:
        raise ValueError(
            f"{config.data_dir or 'the Hub'}: none of the training data of {config.task} can be trained on; a question "
            "needs an answer that its passage holds"
        )
    for examples in (data.dev, *data.test.values()):
        inputs.features(examples, training=False)
    compute_states(materials, [config.model_options])
    return features


def load_tokenizer(name: str, max_length: int) -> PreTrainedTokenizerBase:
    """The tokenizer of `name`, a Hub id or directory.

    Raises:
        ValueError: there is none, it is no fast one, or it does not allow `max_length` tokens.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"no tokenizer can be loaded from {name!r}: {first_line(error)}") from error
    if not tokenizer.is_fast:
        raise ValueError(f"the tokenizer of {name!r} is no fast one (tokenizers library), which words need")
    if max_length > tokenizer.model_max_length:
        raise ValueError(f"max_length must be at most {tokenizer.model_max_length} for {name!r}, got {max_length}")
    return tokenizer


def new_model(config: RunConfig, task: Task, encoder: DLFAModel | None = None) -> PreTrainedModel:
    """A model for `task` over the encoder of `config`, its new parameters drawn from torch's generator.

    Args:
        config: the run.
        task: gives head and labels.
        encoder: a model whose encoder is to be part of the new one, in place of one that is loaded.

    Raises:
        ValueError: there is no such encoder, or an option does not fit it.
        TypeError: an option that the model does not know.
    """
    options = dict(config.model_options)
    if task.labels:
        options["id2label"] = dict(enumerate(task.labels))
        options["label2id"] = {label: index for index, label in enumerate(task.labels)}
    try:
        source = config.model if encoder is None else encoder.encoder
        model: PreTrainedModel = model_for(task).from_encoder(source, **options)  # type: ignore[attr-defined]
    except OSError as error:
        raise ValueError(f"no encoder can be loaded from {config.model!r}: {first_line(error)}") from error
    check_length(cast(PreTrainedModel, model.base_model), config.model, config.max_length or 0)
    return model


def limit_training(model: PreTrainedModel, config: RunConfig) -> None:
    """Freeze, adapt or checkpoint the encoder as `config` says.

    Raises:
        ValueError: layers or adapters that the encoder has no place for.
    """
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    if config.freeze_encoder:
        model.encoder.requires_grad_(False)
    if config.freeze_layers is not None:
        freeze_layers(model, config.freeze_layers)
    if config.lora_rank is not None:
        add_adapters(model, config.lora_rank, config.lora_alpha, config.lora_targets)


def fit(prepared: Prepared, *, keep_model: bool = True) -> dict[str, Any]:
    """Train, evaluate on every language and write the results, which are returned.

    Args:
        prepared: the run.
        keep_model: write the trained model.

    Raises:
        FloatingPointError: the loss became NaN or infinite.
    """
    config, task, model, directory = prepared.config, prepared.task, prepared.model, prepared.directory
    more: dict[str, Any] = {}
    if prepared.predecessor is not None:
        more["intermediate"] = prepared.predecessor.train(progress=prepared.progress)
        prepared.predecessor.hand_over(model)
        set_seed(config.seed)
        limit_training(model, config)
    if config.weight_decay == 0:
        train_rows(model, (feature.inputs["input_ids"] for feature in prepared.features))
    trainer = _trainer(prepared)
    learner = trainer.learner
    trainer.train(resume_from_checkpoint=None if prepared.checkpoint is None else str(prepared.checkpoint))
    merge_rows(model)
    train_facts = trainer.record.facts(trainer.state)
    evaluations = evaluate(
        learner,
        prepared.materials.tokenizer,
        task,
        prepared.materials.data.test,
        max_length=config.max_length or 0,
        batch_size=config.eval_batch_size,
        autocast=autocast_dtype(config),
        inputs=prepared.materials.inputs,
        progress=prepared.progress,
    )
    if config.lora_rank is not None:
        merge_adapters(model)
    results = summary(
        task,
        model,
        config.model,
        evaluations,
        seed=config.seed,
        autocast=autocast_dtype(config),
        encoder_sha256=prepared.encoder_sha256,
        train=train_facts,
        config=public(config),
        **more,
    )
    if process_state().is_main_process:
        if keep_model:
            write_model(directory.path, model, prepared.materials.tokenizer)
        elif prepared.predecessor is not None:
            prepared.predecessor.remove()
        write_predictions(directory.predictions, task, evaluations)
        atomic.write_json(directory.path / "training.json", trainer.state.log_history)
        if keep_model and evaluations:
            write_model_card(directory.path, results)
        if evaluations:
            bar_chart(results, directory.chart_file)
        atomic.write_json(directory.results_file, results)
        for checkpoint in directory.checkpoints.glob("checkpoint-*"):
            remove_checkpoint(checkpoint)
        if directory.checkpoints.is_dir():
            directory.checkpoints.rmdir()
    process_state().wait_for_everyone()
    return results


def autocast_dtype(config: RunConfig) -> torch.dtype | None:
    """The dtype that training and evaluation are cast to; None for the model's own."""
    return torch.bfloat16 if config.bf16 else torch.float16 if config.fp16 else None


def write_model(path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Save model and tokenizer to `path`; config.json, without which nothing loads, comes last."""
    partial = atomic.temporary(path / "model")
    partial.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(partial)
    model.save_pretrained(partial)
    for file in sorted(partial.iterdir(), key=lambda file: file.name == "config.json"):
        if file.is_file():
            atomic.sync(file)
        file.replace(path / file.name)
    partial.rmdir()


def write_predictions(
    path: Path, task: Task, evaluations: Mapping[str, LanguageEvaluation], split: str = "test"
) -> None:
    """Write test-XX (or dev-XX) files below `path`, one a language, in the format of XTREME's scorer."""
    for language, result in evaluations.items():
        text = task.prediction_text(result.examples, result.predictions)
        atomic.write_text(path / f"{split}-{language}{task.prediction_suffix}", text)


def public(config: RunConfig) -> dict[str, Any]:
    """The configuration for results.json: without the places of this machine."""
    places = ("model", "data_dir", "languages", "states_cache", "intermediate")
    return {name: value for name, value in config.to_json().items() if name not in places}


def _trainer(prepared: Prepared) -> _TaskTrainer:
    config, task = prepared.config, prepared.task
    strategy = "epoch" if config.save_steps is None else "steps"
    select = task.preset.select_best
    arguments = TrainingArguments(
        output_dir=str(prepared.directory.checkpoints.resolve()),
        learning_rate=config.learning_rate or 0.0,
        num_train_epochs=config.epochs or 0.0,
        per_device_train_batch_size=config.batch_size or 1,
        gradient_accumulation_steps=config.gradient_accumulation or 1,
        weight_decay=config.weight_decay,
        warmup_steps=config.warmup_steps or 0,
        lr_scheduler_type="linear",
        adam_epsilon=1e-8,
        max_grad_norm=1.0,
        seed=config.seed,
        bf16=config.bf16,
        fp16=config.fp16,
        save_strategy=strategy,
        eval_strategy=strategy if select else "no",
        save_steps=config.save_steps or 500,
        eval_steps=config.save_steps,
        load_best_model_at_end=select,
        metric_for_best_model=task.metric if select else None,
        greater_is_better=True if select else None,
        logging_steps=20,
        logging_nan_inf_filter=False,
        use_cpu=not torch.accelerator.is_available(),
        remove_unused_columns=False,
        dataloader_pin_memory=torch.accelerator.is_available(),
        disable_tqdm=not prepared.progress,
        report_to="none",
    )
    record = _TrainingRecord(prepared.checkpoint)
    learner, materials = prepared.learner, prepared.materials
    trainer = _TaskTrainer(
        prepared,
        learner,
        record,
        model=learner,
        args=arguments,
        data_collator=materials.inputs.batches(prepared.features, prepared.model.config),
        train_dataset=range(len(prepared.features)),
        eval_dataset=materials.data.dev,
        processing_class=materials.tokenizer,
        callbacks=[record],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


class _TaskTrainer(Trainer):
    """The Trainer with the task's own evaluation, by whole examples, and separate rates for old and new parameters."""

    def __init__(
        self, prepared: Prepared, learner: PreTrainedModel | StatesHead, record: _TrainingRecord, **arguments: Any
    ) -> None:
        super().__init__(**arguments)
        self.prepared = prepared
        self.learner = learner
        self.record = record

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            trained = self.learner if model is None else model
            optimizer_class, arguments = self.get_optimizer_cls_and_kwargs(self.args, self.prepared.model)
            decayed = set(self.get_decay_parameter_names(trained))
            groups = parameter_groups(trained, self.prepared.config, decayed)
            self.optimizer = optimizer_class(groups, **arguments)
        return self.optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        if not self.prepared.config.group_by_length:
            sampler: Sampler[int] | None = super()._get_train_sampler(train_dataset)
            return sampler
        lengths = [len(feature.inputs["input_ids"]) for feature in self.prepared.features]
        return LengthGroupedSampler(lengths, self.args.train_batch_size * self.args.world_size, self.args.seed)

    def _run_epoch(self, *arguments: Any, **more: Any) -> None:
        # The Trainer looks at the number of steps after each of them: a run that goes on from its last step, and whose
        # last epoch is not a whole one, would take one more.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*arguments, **more)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The task's metrics on the development data."""
        prepared, language = self.prepared, self.prepared.task.train_language
        result = evaluate(
            self.learner,
            prepared.materials.tokenizer,
            prepared.task,
            {language: prepared.materials.data.dev},
            max_length=prepared.config.max_length or 0,
            batch_size=prepared.config.eval_batch_size,
            autocast=autocast_dtype(prepared.config),
            inputs=prepared.materials.inputs,
        )[language]
        metrics = {f"eval_{name}": value for name, value in result.metrics.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def parameter_groups(model: torch.nn.Module, config: RunConfig, decayed: set[str]) -> list[dict[str, Any]]:
    """AdamW's groups: encoder or new (fusion and head), with weight decay or (biases, norms) without.

    Args:
        model: its encoder is the attribute `encoder`.
        config: gives `learning_rate`, `head_learning_rate` and `weight_decay`.
        decayed: names of the parameters under weight decay.
    """
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            new = not name.removeprefix("module.").startswith("encoder.")
            groups.setdefault((new, name in decayed), []).append(parameter)
    rates = {False: config.learning_rate, True: config.head_learning_rate or config.learning_rate}
    return [
        {"params": parameters, "lr": rates[new], "weight_decay": config.weight_decay if decay else 0.0}
        for (new, decay), parameters in groups.items()
    ]


class _TrainingRecord(TrainerCallback):
    """Records time, loss and which checkpoints are complete, over interruptions; stops a run that diverged."""

    def __init__(self, checkpoint: Path | None) -> None:
        self.seconds_before = 0.0 if checkpoint is None else float(complete_facts(checkpoint)["seconds"])
        self.start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Training time so far, development evaluations and checkpoints included, over all parts of the run."""
        return self.seconds_before + time.monotonic() - self.start

    def facts(self, state: TrainerState) -> dict[str, Any]:
        """results.json's "train": steps, seconds, the mean loss over all steps, and the best checkpoint's dev score."""
        total, done = 0.0, 0.0
        for entry in state.log_history:
            if "loss" in entry:
                total += entry["loss"] * (entry["step"] - done)
                done = entry["step"]
        facts: dict[str, Any] = {
            "steps": state.global_step,
            "seconds": round(self._finished, 2),
            "loss": total / max(done, 1),
        }
        if state.best_metric is not None:
            facts |= {"best_step": state.best_global_step, "best_dev": float(state.best_metric)}
        return facts

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.start = time.monotonic()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._finished = self.seconds

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # A loss that is not logged before a checkpoint would be lost to a run that goes on from there.
        control.should_log |= control.should_save or control.should_training_stop

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        control.should_log |= control.should_save

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise FloatingPointError(
                f"the training loss became {loss} by step {state.global_step}; try a lower learning rate"
            )

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not state.is_world_process_zero or args.output_dir is None:
            return
        folder = Path(args.output_dir)
        newest = folder / f"checkpoint-{state.global_step}"
        mark_complete(newest, {"seconds": round(self.seconds, 2)})
        kept = {state.global_step, step_of(Path(state.best_model_checkpoint or newest.name))}
        for checkpoint in folder.glob("checkpoint-*"):
            if step_of(checkpoint) not in kept:
                remove_checkpoint(checkpoint)
