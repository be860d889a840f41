"""The command-line options of a run, shared by all commands that train."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..models.fusion_names import READERS
from ..runs.run_config import EVAL_BATCH_SIZE, STATES_DTYPES
from ..tasks import get_task

# Which kind of task reads a model option.
_KIND_WITH = {"label_subword": ("token", "tagging"), "classifier_pooling": ("pair", "sentence pairs")}

Languages = Annotated[
    str | None, typer.Option("--languages", help="Languages to test on, such as en,de,zh; default: all that have data.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder in XTREME's layout (train-en.tsv, dev-en.tsv, test-XX.tsv); default: load from the Hub."),
]
# Options of commands on saved runs
RunLanguages = Annotated[
    str | None,
    typer.Option(
        "--languages",
        help="Languages, such as en,de,zh; default: those of the run, of another --data-dir all; for dev the training "
        "one.",
    ),
]
RunDataDir = Annotated[
    Path | None, typer.Option(help="Folder in XTREME's layout; default: the run's own data, without a run the Hub.")
]
MaxEvalExamples = Annotated[
    int | None,
    typer.Option(
        min=0, help="Use a fixed random subset of this size of each language; 0: all; default: as in the (first) run."
    ),
]
Split = Annotated[Literal["test", "dev"], typer.Option(help="Split to use.")]
MaxLength = Annotated[int | None, typer.Option(min=1, help="Most tokens in a sequence; default: as in training.")]
EvalBatchSize = Annotated[int, typer.Option(min=1, help="Sequences per batch.")]
ReplaceFiles = Annotated[
    bool, typer.Option("--overwrite", help="Replace files in --output that this command did not write.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress bars.")]


def output_path(help: str) -> Any:
    """Return an option for a path to write to.

    An empty path, for example from an unset shell variable, is an error, because `Path` would interpret it as the
    current directory. So is one that is not UTF-8, to which safetensors cannot write.
    """
    return typer.Option(help=help, parser=_writable_path, metavar="<path>")


def _writable_path(path: str | Path) -> Path:
    if not str(path):
        raise typer.BadParameter("it must not be empty")
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        raise typer.BadParameter(f"it must be UTF-8, got {str(path)!r}") from None
    return Path(path)


def run_fields(
    *,
    task: Annotated[str, typer.Option(help="A task that `dlfa tasks` lists.")],
    model: Annotated[str, typer.Option(help="Encoder: Hub id or directory.")],
    data_dir: DataDir = None,
    languages: Languages = None,
    kernel_size: Annotated[
        int | None, typer.Option(help="AIF, residual: tokens that the local branch sees, odd; default: 1.")
    ] = None,
    reduction: Annotated[
        int | None,
        typer.Option(help="AIF, residual: the squeeze width is the hidden size / reduction, at least 16; default: 4."),
    ] = None,
    squeeze_dim: Annotated[
        int | None, typer.Option(help="AIF, residual: the squeeze width itself, in place of --reduction.")
    ] = None,
    gate_bias: Annotated[float | None, typer.Option(help="AIF: initial bias of the gate; default: 0.")] = None,
    activation: Annotated[
        str | None,
        typer.Option(help="AIF, residual: activation of the squeeze; default: relu.", metavar="<relu|gelu|silu>"),
    ] = None,
    layer_dropout: Annotated[
        float | None, typer.Option(help="Scalar mix: probability of leaving a layer out during training; default: 0.")
    ] = None,
    scalar_mix_layer_norm: Annotated[
        bool, typer.Option("--scalar-mix-layer-norm", help="Scalar mix: normalise every layer before mixing.")
    ] = False,
    label_subword: Annotated[
        str | None,
        typer.Option(help="Tagging: sub-words that stand for a word; default: first.", metavar="<first|last|mean>"),
    ] = None,
    classifier_pooling: Annotated[
        str | None,
        typer.Option(
            help="Sentence pairs: classify the first token or the mean of all; default: first.", metavar="<first|mean>"
        ),
    ] = None,
    freeze_encoder: Annotated[
        bool,
        typer.Option(
            "--freeze-encoder", help="Train fusion and head only, on hidden states that are computed once and cached."
        ),
    ] = False,
    states_cache: Annotated[
        Path | None,
        output_path("Folder for cached hidden states; default: $DLFA_CACHE, else the user's cache folder."),
    ] = None,
    states_dtype: Annotated[
        str,
        typer.Option(
            help="Dtype of cached hidden states; float16 takes half the space.", metavar=f"<{'|'.join(STATES_DTYPES)}>"
        ),
    ] = "float32",
    freeze_layers: Annotated[
        int | None, typer.Option(help="Freeze the embeddings and the encoder's first N blocks.")
    ] = None,
    lora_rank: Annotated[
        int | None,
        typer.Option(help="Train LoRA adapters of this rank in the encoder; they are merged when the model is saved."),
    ] = None,
    lora_alpha: Annotated[
        int | None, typer.Option(help="LoRA adapters are scaled by alpha / rank; default: twice the rank.")
    ] = None,
    lora_targets: Annotated[
        str | None,
        typer.Option(help="Linear layers that get LoRA adapters, such as query,value; default: all of the encoder."),
    ] = None,
    intermediate: Annotated[
        list[str] | None,
        typer.Option(help="TASK or TASK:DATA_DIR to train on first; encoder and fusion are kept. Repeatable."),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Peak learning rate; default: the task's, 1e-3 with a frozen encoder, 2e-4 with LoRA."),
    ] = None,
    head_learning_rate: Annotated[
        float | None,
        typer.Option(help="Peak learning rate of the new parameters (fusion and head); default: --learning-rate."),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Epochs; default: the task's.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Sequences per batch and process; default: the task's.")
    ] = None,
    gradient_accumulation: Annotated[
        int | None, typer.Option(help="Batches per optimiser step; default: the task's.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Most tokens in a sequence; default: the task's.")] = None,
    weight_decay: Annotated[float, typer.Option(help="Weight decay; not applied to biases and norms.")] = 0.0,
    warmup_steps: Annotated[
        int | None, typer.Option(help="Warm-up steps; default: the task's (0 except for question answering).")
    ] = None,
    max_train_examples: Annotated[int | None, typer.Option(help="Train on a fixed random subset of this size.")] = None,
    max_eval_examples: Annotated[
        int | None,
        typer.Option(help="Evaluate on a fixed random subset of this size of the dev set and of each test set."),
    ] = None,
    save_steps: Annotated[
        int | None,
        typer.Option(
            help="Steps between checkpoints, and between dev evaluations of tasks that keep the best checkpoint; "
            "default: an epoch."
        ),
    ] = None,
    eval_batch_size: Annotated[int, typer.Option(help="Sequences per batch in evaluation.")] = EVAL_BATCH_SIZE,
    bf16: Annotated[bool, typer.Option("--bf16", help="Use bfloat16 autocast.")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Use float16 autocast with loss scaling (GPU).")] = False,
    gradient_checkpointing: Annotated[
        bool,
        typer.Option("--gradient-checkpointing", help="Recompute activations in the backward: less memory, more time."),
    ] = False,
    group_by_length: Annotated[
        bool, typer.Option("--group-by-length", help="Batch sequences of similar length: less padding.")
    ] = False,
) -> dict[str, Any]:
    """Return the options as fields of RunConfig.

    Raises:
        ValueError: a list has no entries, or two options contradict each other.
    """
    fields = dict(locals())
    if squeeze_dim is not None and reduction is not None:
        raise ValueError(f"--reduction and --squeeze-dim cannot be given together, got {reduction} and {squeeze_dim}")
    names = (
        "kernel_size", "reduction", "squeeze_dim", "gate_bias", "activation", "layer_dropout", "scalar_mix_layer_norm",
        "label_subword", "classifier_pooling",
    )  # fmt: skip
    options = {name: fields.pop(name) for name in names}
    options["scalar_mix_layer_norm"] = scalar_mix_layer_norm or None
    fields["model_options"] = {name: value for name, value in options.items() if value is not None}
    fields["languages"] = None if languages is None else split_list("languages", languages)
    fields["lora_targets"] = None if lora_targets is None else split_list("lora-targets", lora_targets)
    fields["intermediate"] = tuple(intermediate or ())
    return fields


def check_used(fields: dict[str, Any], fusions: Iterable[str]) -> None:
    """Raise ValueError if an option among `fields`, those of `run_fields`, changes nothing.

    Args:
        fields: the options that were given.
        fusions: the fusions of all runs; a sweep's options need to fit one of them only.
    """
    given, there = fields["model_options"], sorted(set(fusions))
    for name, readers in READERS.items():
        if name in given and not set(readers).intersection(there):
            raise ValueError(f"{_option(name)} needs the fusion {' or '.join(readers)}, got {', '.join(there)}")
    tasks = [get_task(stage.partition(":")[0]) for stage in (*fields["intermediate"], fields["task"])]
    for name, (kind, words) in _KIND_WITH.items():
        if name in given and all(task.kind != kind for task in tasks):
            raise ValueError(f"{_option(name)} is for {words}, got the task {fields['task']}")
    for name, default in (("states_cache", None), ("states_dtype", "float32")):
        if fields[name] != default and not fields["freeze_encoder"]:
            raise ValueError(f"{_option(name)} needs --freeze-encoder, whose hidden states it is about")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def split_list(option: str, text: str) -> tuple[str, ...]:
    """Return the entries of a comma-separated `--option`, whose name is plural.

    Raises:
        ValueError: there are no entries.
    """
    entries = tuple(part.strip() for part in text.split(",") if part.strip())
    if not entries:
        one = option.removesuffix("s").replace("-", " ")
        raise ValueError(f"--{option} must name at least one {one}, got {text!r}")
    return entries


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `run_fields` to a command, required ones first; it gets them as its argument `options`."""
    shared = inspect.signature(run_fields, eval_str=True).parameters
    own = dict(inspect.signature(command, eval_str=True).parameters)
    del own["options"]
    together = sorted((*own.values(), *shared.values()), key=lambda each: each.default is not inspect.Parameter.empty)
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in together]

    @functools.wraps(command)
    def wrapped(**values: Any) -> None:
        options = {name: values.pop(name) for name in shared}
        command(options=options, **values)

    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {each.name: each.annotation for each in parameters}
    return wrapped
