"""The last layer against DLFA: fine-tuned side by side from one encoder, on one language, tested on all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from ..data.token_files import read_token_file
from ..runs.run_config import RunConfig
from ..tasks import get_task
from ..training.train import train
from .corpus import LANGUAGES

TASK, METRIC = "udpos", "accuracy"
LAST, DLFA = "last", "dlfa"


@dataclass(frozen=True)
class FineTuning:
    """How both models are fine-tuned: chosen for the last-layer baseline, and the same for DLFA."""

    fusion_layer: int = 2
    runs: int = 2
    epochs: int = 6
    batch: int = 32
    learning_rate: float = 1e-4
    head_learning_rate: float = 2e-3


def fine_tune(
    encoder: Path,
    data: Path,
    folder: Path,
    settings: FineTuning,
    seed: int,
    on_run: Callable[[str], None],
) -> dict[str, list[dict[str, Any]]]:
    """Fine-tune baseline and DLFA with the seeds `seed`, `seed + 1`, ... by `dlfa.training.train`.

    Args:
        encoder: directory of the pre-trained encoder.
        data: directory in XTREME's layout.
        folder: takes one run a subfolder.
        settings: hyper-parameters, the same for both.
        seed: of the first run of each.
        on_run: called with a description before each run.

    Returns:
        The content of each run's results.json, for "last" and "dlfa", in the order of the seeds.
    """
    results: dict[str, list[dict[str, Any]]] = {LAST: [], DLFA: []}
    for run_seed in range(seed, seed + settings.runs):
        for name, layer in ((LAST, None), (DLFA, settings.fusion_layer)):
            on_run(f"{name}, seed {run_seed}")
            config = RunConfig(
                task=TASK,
                model=str(encoder),
                output_dir=folder / f"{name}-seed{run_seed}",
                data_dir=data,
                model_options={"fusion_layer": layer},
                learning_rate=settings.learning_rate,
                head_learning_rate=settings.head_learning_rate,
                epochs=settings.epochs,
                batch_size=settings.batch,
                gradient_accumulation=1,
                seed=run_seed,
            )
            results[name].append(train(config))
    return results


def compare(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Accuracy by language of both models, and the difference between their means over the seeds.

    Args:
        results: as `fine_tune` returns them.

    Returns:
        `languages`: by language "last" and "dlfa", a list of accuracies in 0..1 in the order of the seeds, and
        "difference", the mean of "dlfa" less that of "last"; `average_zero_shot`: the same for the unweighted mean
        over all languages but the first, the one that was trained on.
    """
    source, *others = (language.name for language in LANGUAGES)
    languages = {
        language: _row({name: [run["languages"][language][METRIC] for run in runs] for name, runs in results.items()})
        for language in (source, *others)
    }
    zero_shot = {
        name: [mean(run["languages"][language][METRIC] for language in others) for run in runs]
        for name, runs in results.items()
    }
    return {"languages": languages, "average_zero_shot": _row(zero_shot)}


def _row(values: Mapping[str, list[float]]) -> dict[str, Any]:
    return {**values, "difference": mean(values[DLFA]) - mean(values[LAST])}


def most_frequent_tag(data: Path) -> dict[str, float]:
    """What always answering with the training data's most frequent tag scores, by language, in 0..1."""
    counts = Counter(_tags(data / f"train-{LANGUAGES[0].name}.tsv"))
    ((frequent, _),) = counts.most_common(1)
    tags = {language.name: _tags(data / f"test-{language.name}.tsv") for language in LANGUAGES}
    return {language: found.count(frequent) / len(found) for language, found in tags.items()}


def _tags(path: Path) -> list[str]:
    return [tag for sentence in read_token_file(path, get_task(TASK).labels) for tag in sentence.tags]
