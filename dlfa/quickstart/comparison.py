"""Compare the last layer with DLFA: fine-tune both from one encoder on one language, and test on all languages."""

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
    """Fine-tuning settings of both models, chosen for the last-layer baseline."""

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
    """Fine-tune the baseline and DLFA with the seeds `seed`, `seed + 1`, ... by `dlfa.training.train`.

    Args:
        encoder: directory of the pre-trained encoder.
        data: directory in XTREME's layout.
        folder: output folder, with one subfolder per run.
        settings: hyper-parameters, the same for both.
        seed: seed of the first run of each.
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
    """Compute both models' accuracy by language, and the difference between their means over the seeds.

    Args:
        results: the output of `fine_tune`.

    Returns:
        `languages`: by language "last" and "dlfa", lists of accuracies in 0..1 in the order of the seeds, and
        "difference", the mean of "dlfa" minus that of "last". `average_zero_shot`: the same for the unweighted mean
        over all languages except the first, which is the training language.
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
    """Return the accuracy in 0..1, by language, of always predicting the training data's most frequent tag."""
    counts = Counter(_tags(data / f"train-{LANGUAGES[0].name}.tsv"))
    ((frequent, _),) = counts.most_common(1)
    tags = {language.name: _tags(data / f"test-{language.name}.tsv") for language in LANGUAGES}
    return {language: found.count(frequent) / len(found) for language, found in tags.items()}


def _tags(path: Path) -> list[str]:
    return [tag for sentence in read_token_file(path, get_task(TASK).labels) for tag in sentence.tags]
