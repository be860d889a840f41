"""The analysis of one model: probes of every layer, gates and contributions, by language."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.examples import Example
from ..tasks.language_families import by_family
from ..tasks.layout import languages_on_disk
from ..tasks.loading import choose_languages, read_split, subset
from .analyzed_model import AnalyzedModel
from .gate_statistics import FusionWatcher, gate_summary
from .probes import FOLDS, STRENGTH, language_probe, score_label_probes, train_label_probes
from .states import language_states


@dataclass(frozen=True)
class ProbeData:
    """The data for an analysis.

    Attributes:
        train: labelled examples in the training language, for the label probe.
        test: examples by language.
        notes: notes on data used in place of missing data.
    """

    train: list[Example]
    test: dict[str, list[Example]]
    notes: list[str] = field(default_factory=list)


def load_probe_data(
    analyzed: AnalyzedModel,
    data_dir: Path | None,
    languages: Sequence[str] | None = None,
    *,
    max_examples: int | None,
    probe_examples: int | None,
) -> ProbeData:
    """Read and check all data, before the model is run.

    The training language is always included; if it has no test data, its development data are used.

    Args:
        analyzed: the model and its task.
        data_dir: data in XTREME's layout; None loads from the Hub.
        languages: None uses all that have test data.
        max_examples: number of examples per language; None uses all.
        probe_examples: number of training examples; None uses all.

    Raises:
        DataError: the data are invalid, or a language has none.
    """
    task, source, notes = analyzed.task, analyzed.task.train_language, []
    tested = task.languages if data_dir is None else languages_on_disk(task, data_dir, "test")
    asked = None if languages is None else [language for language in languages if language != source]
    chosen = choose_languages(task, data_dir, asked, "test") if asked is None or asked else []
    test = {}
    for language in sorted({source, *chosen}, key=by_family):
        split = "test"
        if language not in tested:
            split = "dev"
            notes.append(f"{language} has no test data; its development data stand in")
        test[language] = subset(read_split(task, data_dir, split, language), max_examples)
    train = [] if task.kind == "qa" else subset(read_split(task, data_dir, "train", source), probe_examples)
    return ProbeData(train, test, notes)


def analyze(
    analyzed: AnalyzedModel, data: ProbeData, on_language: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Run the model over the data once and compute all measurements.

    Args:
        analyzed: the model.
        data: the output of `load_probe_data`.
        on_language: called with each language before it is run.

    Returns:
        The content of analysis.json: "label_probe" (scores by language, metric and layer), "language_probe", "gates"
        (one for each lower input of AIF), "contributions" (by language and layer), and a description of the model.
    """
    task, source = analyzed.task, analyzed.task.train_language
    notes, start = list(data.notes), time.monotonic()

    def announce(what: str) -> None:
        if on_language is not None:
            on_language(what)

    probes = None
    if data.train:
        announce(f"{source}, for the probes")
        probes = train_label_probes(language_states(analyzed, data.train))
    else:
        notes.append(f"no label probe: {task.name} has no label a word or text")
    scores, sentences, watchers = {}, {}, {}
    for language, examples in data.test.items():
        announce(language)
        watchers[language] = FusionWatcher()
        states = language_states(analyzed, examples, watchers[language])
        if probes is not None:
            scores[language] = score_label_probes(probes, states, examples, task, language)
        sentences[language] = states.sentences
    announce("language probe")
    try:
        languages_told = language_probe(sentences)
    except ValueError as error:
        languages_told = None
        notes.append(f"no language probe: {error}")
    config = analyzed.model.config
    gates = [
        gate_summary(str(layer), config.fuse, {language: watcher.gates[step] for language, watcher in watchers.items()})
        for step, layer in enumerate(config.lower_layers)
        if config.fusion == "aif"
    ]
    return {
        "model": analyzed.name,
        "task": task.name,
        "metric": task.metric,
        "train_language": source,
        "fusion": config.fusion,
        "fusion_layer": config.fusion_layer,
        "fuse": config.fuse if config.fusion == "aif" else None,
        "label_subword": analyzed.label_subword if task.kind == "token" else None,
        "probe_examples": len(data.train),
        "probe_strength": STRENGTH,
        "folds": FOLDS,
        "examples": {language: len(examples) for language, examples in data.test.items()},
        "layers": analyzed.layer_names,
        "label_probe": scores or None,
        "language_probe": languages_told,
        "gates": gates,
        "contributions": {language: watcher.contributions.summary() for language, watcher in watchers.items()},
        "notes": notes,
        "seconds": round(time.monotonic() - start, 1),
    }


def zero_shot_mean(findings: dict[str, Any], metric: str) -> list[float] | None:
    """Return the label probe's mean over the languages it was not trained on, by layer; None if there are none."""
    others = [
        scores[metric] for language, scores in findings["label_probe"].items() if language != findings["train_language"]
    ]
    return [float(value) for value in np.mean(others, axis=0)] if others else None
