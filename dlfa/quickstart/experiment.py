"""The complete quickstart: corpus, pre-training, comparison and results, from one seed, in one directory."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..files import atomic
from ..progress import progress_bar
from ..runs.output_paths import make_folder
from ..runs.run_directory import RunDirectory, remove_if_empty
from .comparison import DLFA, LAST, METRIC, TASK, FineTuning, compare, fine_tune, most_frequent_tag
from .corpus import LANGUAGES, Corpus, CorpusSize, corpus_files
from .presentation import comparison_chart, comparison_table
from .pretraining import ENCODER_FILES, Pretraining, pretrain

# The settings are written first, so their file marks a directory as a quickstart's. The results are written last.
MARKER, RESULTS, CHART = "quickstart.json", "results.json", "comparison.png"
FOLDERS = ("data", "encoder", "runs")


@dataclass(frozen=True)
class Settings:
    """All settings except the seed; the defaults take a minute and a half."""

    corpus: CorpusSize = field(default_factory=CorpusSize)
    pretraining: Pretraining = field(default_factory=Pretraining)
    fine_tuning: FineTuning = field(default_factory=FineTuning)


def run(
    output_dir: Path, seed: int = 1, *, overwrite: bool = False, settings: Settings | None = None
) -> dict[str, Any]:
    """Make a corpus, pre-train an encoder on it, compare last layer and DLFA, print the table and draw the chart.

    It needs no network and no GPU. On one machine, the same seed gives the same results.

    Args:
        output_dir: directory for results.json, comparison.png, data/ (XTREME's layout), encoder/ and runs/, which
            `dlfa evaluate` and `dlfa predict` can read.
        seed: seed of grammar, corpus and pre-training, and the first fine-tuning seed.
        overwrite: replace an existing quickstart in `output_dir`.
        settings: sizes and hyper-parameters; None uses the defaults.

    Returns:
        The content of results.json; scores are fractions in 0..1.

    Raises:
        ValueError: `output_dir` cannot be used (see `claim`), or the seed is out of range.
    """
    settings = settings or Settings()
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise ValueError(f"seed must be an integer in 0..2^31-1, got {seed!r}")
    claim(output_dir, overwrite)
    facts = {"seed": seed, "settings": dataclasses.asdict(settings)}
    atomic.write_json(output_dir / MARKER, facts)
    with _one_thread_on_the_cpu():
        results = {**facts, **_measure(output_dir, seed, settings)}
    comparison_chart(results, output_dir / CHART)
    atomic.write_json(output_dir / RESULTS, results)
    console = Console()
    console.print(comparison_table(results))
    console.print(f"chart: {output_dir / CHART}, figures: {output_dir / RESULTS}", soft_wrap=True, highlight=False)
    return results


def claim(output_dir: Path, overwrite: bool) -> None:
    """Prepare `output_dir`: create it if missing; with `overwrite`, remove an earlier quickstart but nothing else.

    Raises:
        ValueError: it is a file, cannot be created, contains a quickstart without `overwrite`, or contains other files
            with the same names, which are never removed.
    """
    ours = (output_dir / MARKER).exists()
    taken = [name for name in (*FOLDERS, RESULTS, CHART, "run.json", "config.json") if (output_dir / name).exists()]
    if ours and not overwrite:
        raise ValueError(f"--output-dir {output_dir} holds a quickstart already; use --overwrite or another directory")
    if taken and not ours:
        raise ValueError(
            f"--output-dir {output_dir} holds {', '.join(taken)} of something else than a quickstart; "
            "give another directory"
        )
    make_folder("--output-dir", output_dir)
    data, encoder, runs = (output_dir / name for name in FOLDERS)
    results, pretrained = (output_dir / RESULTS, output_dir / CHART), (encoder / name for name in ENCODER_FILES)
    for path in (*results, *corpus_files(data), *pretrained):
        path.unlink(missing_ok=True)
    for run in [RunDirectory(path) for name in (LAST, DLFA) for path in runs.glob(f"{name}-seed*")]:
        if run.run_file.exists():
            run.clear()
        remove_if_empty(run.path)
    for folder in (data, encoder, runs):
        remove_if_empty(folder)


def _measure(output_dir: Path, seed: int, settings: Settings) -> dict[str, Any]:
    """Write corpus, encoder and runs to `output_dir`, and return the measurements for results.json."""
    data, encoder, runs = (output_dir / name for name in FOLDERS)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with progress_bar(*columns, TimeRemainingColumn(), shown=True) as progress:
        clock = _Clock()
        making = progress.add_task("corpus", total=len(LANGUAGES))
        corpus = Corpus(seed, settings.corpus)
        corpus.write(data)
        texts = {}
        for language in LANGUAGES:
            texts[language.name] = corpus.text(language)
            progress.advance(making)
        clock.lap("corpus")

        learning = progress.add_task("pre-training on all languages", total=settings.pretraining.steps)

        def show_step(step: int, loss: float) -> None:
            progress.update(learning, completed=step, description=f"pre-training on all languages, loss {loss:.2f}")

        pretraining = pretrain(texts, encoder, settings.pretraining, seed, show_step)
        clock.lap("pretraining")

        tuning = progress.add_task("fine-tuning on en", total=2 * settings.fine_tuning.runs)
        started = 0

        def show_run(description: str) -> None:
            nonlocal started
            progress.update(tuning, completed=started, description=f"fine-tuning on en: {description}")
            started += 1

        results = fine_tune(encoder, data, runs, settings.fine_tuning, seed, show_run)
        progress.update(tuning, completed=started)
        clock.lap("fine_tuning")
    first = results[DLFA][0]
    return {
        "task": TASK,
        "metric": METRIC,
        "train_language": LANGUAGES[0].name,
        "fusion_layer": settings.fine_tuning.fusion_layer,
        "fuse": first["fuse"],
        "fine_tuning_seeds": [result["seed"] for result in results[DLFA]],
        "pretraining": pretraining,
        "most_frequent_tag": most_frequent_tag(data),
        **compare(results),
        "seconds": clock.seconds,
        "environment": first["environment"],
    }


class _Clock:
    """Measures seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.monotonic()

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage], self._start = round(now - self._start, 1), now


@contextmanager
def _one_thread_on_the_cpu() -> Iterator[None]:
    """Run on one CPU thread, even if there is a GPU.

    Such small matrices gain little from more threads and are much slower on a shared machine. A GPU or more threads
    would also change the order of sums, and so the results.
    """
    threads, name = torch.get_num_threads(), "ACCELERATE_USE_CPU"
    before = os.environ.get(name)
    torch.set_num_threads(1)
    os.environ[name] = "true"
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
