"""The model under analysis: a saved run, or a plain encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from ..evaluation.saved_runs import load_run
from ..models.config_files import load_config
from ..models.configuration import LABEL_SUBWORDS
from ..models.positions import check_length
from ..models.pretrained import DLFAPreTrainedModel, no_encoder
from ..models.tokenizer import load_tokenizer
from ..processes import default_device
from ..tasks import Task, get_task
from ..training.shared_inputs import load_encoder

FUSED = "fused"  # the name of the fusion's output among the layers


@dataclass(frozen=True)
class AnalyzedModel:
    """A model in evaluation mode with what it takes to feed it.

    Attributes:
        name: the last part of its directory, or its Hub id.
        task: whose data it is fed with and whose labels are probed for.
        model: encoder and fusion; a plain encoder has the fusion "last".
        tokenizer: its own.
        max_length: tokens a sequence.
        label_subword: where a word's state is read: on its first or last sub-word, or the mean of them.
        data_dir: where the run read its data; None for the Hub and for a plain encoder.
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
        """Of every probed layer: 0 is the embeddings, L the last layer; "fused" where there is a fusion."""
        names = [str(layer) for layer in range(self.model.config.num_hidden_layers + 1)]
        return names if self.model.config.fusion == "last" else [*names, FUSED]


def load_analyzed_model(
    model: str, task: str | None = None, *, max_length: int | None = None, label_subword: str | None = None
) -> AnalyzedModel:
    """Load a directory of `dlfa train`, or any encoder, on the GPU where there is one.

    Args:
        model: directory or Hub id.
        task: needed where the directory does not tell.
        max_length: None takes the run's, else the task's preset.
        label_subword: None takes the run's; a plain encoder's words are the mean of their sub-words.

    Raises:
        ValueError: no model there, a task that is not given or not the run's, an option out of its set, a model that
            takes its second input from outside.
    """
    if label_subword is not None and label_subword not in LABEL_SUBWORDS:
        raise ValueError(f"label_subword must be one of {', '.join(LABEL_SUBWORDS)}, got {label_subword!r}")
    path = Path(model)
    if _is_run(path):
        run = load_run(path, task, max_length)
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
    length = max_length or chosen.preset.max_length
    tokenizer = load_tokenizer(model, length)
    encoder = load_encoder(model)
    check_length(encoder.encoder, model, length)
    name = path.resolve().name if path.is_dir() else model
    encoder.to(default_device())  # type: ignore[arg-type]
    return AnalyzedModel(name, chosen, encoder.eval(), tokenizer, length, label_subword or "mean")


def _is_run(path: Path) -> bool:
    """Whether a DLFA model lies there, whole or not."""
    if not path.is_dir():
        if path.is_absolute() or str(path).startswith("."):
            raise ValueError(f"model directory {path} does not exist")
        return False
    if (path / "run.json").exists():
        return True
    try:
        return load_config(path).model_type == "dlfa"
    except (OSError, ValueError) as error:
        raise no_encoder(str(path), error) from error
