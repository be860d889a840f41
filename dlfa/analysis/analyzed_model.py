"""The model under analysis: a saved run, or a plain encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from dlfa_kernels.checks import check_one_of

from ..evaluation.saved_runs import load_run
from ..models.config_files import load_config
from ..models.configuration import LABEL_SUBWORDS
from ..models.positions import check_length
from ..models.pretrained import DLFAPreTrainedModel, no_encoder
from ..models.tokenizer import load_tokenizer
from ..processes import default_device
from ..runs.run_directory import RunDirectory
from ..tasks import Task, get_task
from ..training.shared_inputs import load_encoder

FUSED = "fused"  # the name of the fusion's output among the layers


@dataclass(frozen=True)
class AnalyzedModel:
    """A model in evaluation mode, with everything needed to run it on data.

    Attributes:
        name: the last part of its directory, or its Hub id.
        task: the task whose data and labels are used.
        model: encoder and fusion; a plain encoder has the fusion "last".
        tokenizer: the model's tokenizer.
        max_length: maximum tokens per sequence.
        label_subword: which sub-words give a word's state: "first", "last", or "mean" of all.
        data_dir: folder that the run read its data from; None for the Hub and for a plain encoder.
    """

    name: str
    task: Task
    model: DLFAPreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    label_subword: str
    data_dir: Path | None = None

    @property
    def layer_names(self) -> list[str]:
        """Return the names of all probed layers: "0" (embeddings) to "L" (last), and "fused" if there is a fusion."""
        names = [str(layer) for layer in range(self.model.config.num_hidden_layers + 1)]
        return names if self.model.config.fusion == "last" else [*names, FUSED]


def load_analyzed_model(
    model: str, task: str | None = None, *, max_length: int | None = None, label_subword: str | None = None
) -> AnalyzedModel:
    """Load an output directory of `dlfa train`, or any encoder, onto the GPU if there is one.

    Args:
        model: directory or Hub id.
        task: required if the directory does not record it.
        max_length: None uses the run's, else the task's preset.
        label_subword: for tagging; None uses the run's, or "mean" for a plain encoder.

    Raises:
        ValueError: there is no model, the task is missing or differs from the run's, an option has an invalid value
            or does not fit the task, or the model takes an external second input.
    """
    if label_subword is not None:
        check_one_of("label_subword", label_subword, LABEL_SUBWORDS)
    path = Path(model)
    if _is_run(path):
        run = load_run(path, task, max_length)
        _check_tagging(run.task, label_subword)
        config = run.model.config
        if not isinstance(run.model, DLFAPreTrainedModel) or config.feature_dim is not None:
            raise ValueError(f"the model in {model} must be a DLFA model over layers of its encoder (no feature_dim)")
        return AnalyzedModel(
            path.resolve().name, run.task, run.model, run.tokenizer, run.max_length,
            label_subword or config.label_subword, None if run.config is None else run.config.data_dir,
        )  # fmt: skip
    if task is None:
        if not path.exists():
            raise ValueError(f"there is no directory {model}; for an encoder of the Hub, --task must be given")
        raise ValueError(f"--task must be given: {model} is a plain encoder, which has none")
    chosen = get_task(task)
    _check_tagging(chosen, label_subword)
    length = max_length or chosen.preset.max_length
    tokenizer = load_tokenizer(model, length)
    encoder = load_encoder(model)
    check_length(encoder.encoder, model, length)
    name = path.resolve().name if path.is_dir() else model
    encoder.to(default_device())  # type: ignore[arg-type]
    return AnalyzedModel(name, chosen, encoder.eval(), tokenizer, length, label_subword or "mean")


def _check_tagging(task: Task, label_subword: str | None) -> None:
    if label_subword is not None and task.kind != "token":
        raise ValueError(f"label_subword is for tagging, got the task {task.name}")


def _is_run(path: Path) -> bool:
    """Return whether the directory contains a DLFA model, complete or not."""
    directory = RunDirectory(path)
    if not path.is_dir():
        if path.exists() or path.is_absolute() or str(path).startswith("."):
            directory.check_there()
        return False  # a Hub id
    directory.check_one_run()
    if directory.run_file.exists():
        return True
    try:
        return load_config(path).model_type == "dlfa"
    except (OSError, ValueError) as error:
        raise no_encoder(str(path), error) from error
