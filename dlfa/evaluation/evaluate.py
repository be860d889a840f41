"""Evaluation: scores and predictions per example, metrics per language."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import PreTrainedModel

from ..data.batching import by_length
from ..data.examples import Example
from ..processes import process_state
from ..progress import advance_by_share, progress_bar
from ..runs.run_config import EVAL_BATCH_SIZE
from ..tasks import Task
from ..tasks.model_inputs import ModelInputs

if TYPE_CHECKING:
    from ..frozen import StatesHead


@dataclass(frozen=True)
class LanguageEvaluation:
    """The metrics of one language, and the scores and predictions of its examples in the order of the data."""

    metrics: dict[str, float]
    examples: list[Example]
    scores: list[Any]
    predictions: list[Any]


def example_scores(
    model: PreTrainedModel | StatesHead,
    inputs: ModelInputs,
    examples: Sequence[Example],
    *,
    batch_size: int = EVAL_BATCH_SIZE,
    autocast: torch.dtype | None = None,
    on_batch: Callable[[int, int], object] | None = None,
) -> list[Any]:
    """Run `model` on `examples` without gradients, in batches of similar length, and return each example's scores.

    With several processes (torchrun, accelerate launch), each runs its share and all return the full result.

    Args:
        model: a model with the head for the task; its mode (train or eval) is restored.
        inputs: the inputs that the model was trained with. They make features, which are cached between calls, and
            batches of them; for a `StatesHead`, batches of cached states.
        examples: the examples to score. The task splits or truncates those that are too long.
        batch_size: sequences per batch.
        autocast: bfloat16 or float16 for autocast; None runs in the model's dtype.
        on_batch: called after each batch with the number of batches that this process has done, and of all it will do.

    Returns:
        One entry per example: (words, labels) or (labels,) float32 log probabilities, or the best answer spans.

    Raises:
        FloatingPointError: scores that allow no decision, such as NaN; raised on every process.
    """
    task = inputs.task
    features = inputs.features(examples, training=False)
    batches = by_length([len(feature.inputs["input_ids"]) for feature in features], batch_size)
    state = process_state()
    make_batch, device = inputs.batches(features, model.config), model.device
    casting = torch.autocast(device.type, autocast) if autocast is not None else contextlib.nullcontext()
    done: list[tuple[int, Any]] = []
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), casting:
            share = batches[state.process_index :: state.num_processes]
            for number, batch in enumerate(share, start=1):
                outputs = model(**{name: values.to(device) for name, values in make_batch(batch).items()})
                arrays = {
                    name: value.float().cpu().numpy()
                    for name, value in outputs.items()
                    if name.endswith("logits") and value is not None
                }
                done += [(index, task.feature_scores(features[index], arrays, row)) for row, index in enumerate(batch)]
                if on_batch is not None:
                    on_batch(number, len(share))
    finally:
        model.train(was_training)
    if state.num_processes > 1:
        done = gather_object(done)
    undecided = sum(score is None for _, score in done)
    if undecided:
        raise FloatingPointError(
            f"the model's scores of {undecided} of {len(features)} sequences are NaN or infinite: its training "
            "diverged (try a lower learning rate), or its weights are damaged"
        )
    scores: list[Any] = [None] * len(features)
    for index, score in done:
        scores[index] = score
    return task.example_scores(examples, features, scores)


def evaluate(
    model: PreTrainedModel | StatesHead,
    inputs: ModelInputs,
    data: Mapping[str, Sequence[Example]],
    *,
    batch_size: int = EVAL_BATCH_SIZE,
    autocast: torch.dtype | None = None,
    progress: bool = False,
) -> dict[str, LanguageEvaluation]:
    """Evaluate `model` on each language of `data`.

    Args:
        data: labelled examples by language.
        progress: show a bar on standard error, on the main process only.
        model, inputs, batch_size, autocast: see `example_scores`.

    Returns:
        By language, in the order of `data`: the metrics, and the scores and predictions of every example.

    Raises:
        FloatingPointError: see `example_scores` and `score_language`.
    """
    results = {}
    with progress_bar(shown=progress) as bar:
        todo = bar.add_task("evaluate", total=sum(map(len, data.values())))
        before = 0
        for language, examples in data.items():
            bar.update(todo, description=f"evaluate {language}")
            show = advance_by_share(bar, todo, before, len(examples))
            scores = example_scores(model, inputs, examples, batch_size=batch_size, autocast=autocast, on_batch=show)
            results[language] = score_language(inputs.task, language, list(examples), scores)
            before += len(examples)
    return results


def score_language(task: Task, language: str, examples: list[Example], scores: list[Any]) -> LanguageEvaluation:
    """Compute predictions and metrics from one language's scores.

    Raises:
        FloatingPointError: a metric is NaN or infinite.
    """
    predictions = task.decide(examples, scores)
    metrics = {name: float(value) for name, value in task.score(examples, predictions, language).items()}
    bad = [name for name, value in metrics.items() if not np.isfinite(value)]
    if bad:
        raise FloatingPointError(f"{language}: {', '.join(bad)} of {task.name} came out as no finite number")
    return LanguageEvaluation(metrics, examples, scores, predictions)


def model_for(task: Task) -> type[PreTrainedModel]:
    """Return the DLFA model class with the head for `task`."""
    import dlfa

    return getattr(dlfa, task.model_class)
