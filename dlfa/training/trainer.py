"""transformers' Trainer with the task's evaluation, learning rates for new parameters, and a record of the run."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch.utils.data import Sampler
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from ..evaluation.evaluate import example_scores, score_language
from ..frozen import StatesHead
from ..processes import process_state
from ..progress import on_terminal
from ..runs.checkpoints import checkpoints_in, complete_facts, mark_complete, remove_checkpoint, step_of
from ..runs.run_config import CompleteRunConfig
from .length_batches import LengthGroupedSampler

if TYPE_CHECKING:
    from .train import PreparedRun


def task_trainer(prepared: PreparedRun) -> TaskTrainer:
    """Build the Trainer of a run, with XTREME's optimiser and schedule: AdamW, linear decay, gradients clipped to 1."""
    config, task = prepared.config, prepared.task
    strategy = "epoch" if config.save_steps is None else "steps"
    select = task.preset.select_best
    arguments = TrainingArguments(
        output_dir=str(prepared.directory.checkpoints.resolve()),
        learning_rate=config.learning_rate,
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        weight_decay=config.weight_decay,
        warmup_steps=config.warmup_steps,
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
    if arguments.n_gpu > 1:
        # One process trains on one GPU. On several the Trainer would put the model into nn.DataParallel: batches that
        # many times as large as was said, and copies of a module that a StatesHead cannot be called in.
        arguments._n_gpu = 1
    record = TrainingRecord(prepared.checkpoint)
    trained_module, shared = prepared.new_trained_module(), prepared.shared
    trainer = TaskTrainer(
        prepared,
        trained_module,
        record,
        args=arguments,
        data_collator=shared.inputs.batches(prepared.features, prepared.model.config),
        train_dataset=range(len(prepared.features)),
        eval_dataset=shared.data.dev,
        processing_class=shared.inputs.tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(LossOnBar)
    return trainer


class TaskTrainer(Trainer):
    """Trainer with the task's own evaluation of whole examples and separate rates for old and new parameters."""

    def __init__(
        self,
        prepared: PreparedRun,
        trained_module: PreTrainedModel | StatesHead,
        record: TrainingRecord,
        **arguments: Any,
    ) -> None:
        super().__init__(model=trained_module, callbacks=[record], **arguments)
        self.prepared = prepared
        self.trained_module = trained_module
        self.record = record

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            trained = self.trained_module if model is None else model
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
        # Trainer checks max_steps only after a step, so resuming a finished run with a partial last epoch would train
        # one step too many.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*arguments, **more)

    def _save_checkpoint(self, *arguments: Any, **more: Any) -> None:
        """Save a checkpoint.

        Raises:
            OSError: it cannot be written; the errors of safetensors and torch for that are of other kinds.
        """
        try:
            super()._save_checkpoint(*arguments, **more)
        except (SafetensorError, RuntimeError) as error:
            writing = any(word in str(error) for word in ("inline_container", "iostream"))  # torch.save's file
            if isinstance(error, RuntimeError) and not writing:
                raise
            folder = Path(self.args.output_dir or "") / f"checkpoint-{self.state.global_step}"
            raise OSError(f"no checkpoint can be written to {folder}; is the disk full?") from error

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Return the task's metrics on the development data."""
        prepared, task, examples = self.prepared, self.prepared.task, self.prepared.shared.data.dev
        scores = example_scores(
            self.trained_module,
            prepared.shared.inputs,
            examples,
            batch_size=prepared.config.eval_batch_size,
            autocast=prepared.config.autocast,
            on_batch=self._show_batch if on_terminal() else None,
        )
        result = score_language(task, task.train_language, examples, scores)
        metrics = {f"eval_{name}": value for name, value in result.metrics.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _show_batch(self, _: int, of: int) -> None:
        """Advance the bar that transformers shows during an evaluation by its own loop, below that of the training.

        In a file, the control characters that move the cursor between the two would stay.
        """
        self.callback_handler.eval_dataloader = range(of)
        self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)


def parameter_groups(model: torch.nn.Module, config: CompleteRunConfig, decayed: set[str]) -> list[dict[str, Any]]:
    """Return AdamW's parameter groups: encoder or new (fusion and head), with or without weight decay (biases, norms).

    Args:
        model: a module whose encoder is the attribute `encoder`.
        config: provides `learning_rate`, `head_learning_rate` and `weight_decay`.
        decayed: names of the parameters with weight decay.
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


class LossOnBar(ProgressCallback):
    """The Trainer's progress bar with the latest loss, which transformers would print to standard output."""

    def on_log(self, *_: Any, logs: dict[str, Any] | None = None, **__: Any) -> None:
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.4g}")


class TrainingRecord(TrainerCallback):
    """Records time, loss and complete checkpoints across interruptions; stops a run that diverged."""

    def __init__(self, checkpoint: Path | None) -> None:
        self.seconds_before = 0.0 if checkpoint is None else float(complete_facts(checkpoint)["seconds"])
        self.start = time.monotonic()
        self._finished = self.seconds_before

    @property
    def seconds(self) -> float:
        """Training time so far over all parts of the run, including development evaluations and checkpoints."""
        return self.seconds_before + time.monotonic() - self.start

    def facts(self, state: TrainerState) -> dict[str, Any]:
        """Return results.json's "train": steps, seconds, mean loss over all steps, the best checkpoint's dev score."""
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
        process_state().wait_for_everyone()  # each writes its own rng_state_N.pth
        if not state.is_world_process_zero or args.output_dir is None:
            return
        folder = Path(args.output_dir)
        newest = folder / f"checkpoint-{state.global_step}"
        mark_complete(newest, {"seconds": round(self.seconds, 2)})
        kept = {state.global_step, step_of(Path(state.best_model_checkpoint or newest.name))}
        for checkpoint in checkpoints_in(folder):
            if step_of(checkpoint) not in kept:
                remove_checkpoint(checkpoint)
