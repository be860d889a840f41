"""Find runs below directories and read their results.json, checking each field."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..files.json_files import read_object
from ..runs.run_config import Role, fields_of
from .encoders import told_apart
from .ensembles import Ensemble, read_ensemble
from .fields import Fields
from .variants import Variant

RESULTS = "results.json"
_TRACES = (RESULTS, "run.json", "error.txt")  # any of these files marks a run's folder


@dataclass(frozen=True)
class Run:
    """A run, read from its results.json.

    Attributes:
        path: path of the file.
        task, model, split, metric, train_language: as in the file; `metric` is the metric of record.
        variant: the fusion of the run.
        seed: None if not recorded.
        protocol: everything else that affects the result, by name.
        scores: by language and metric, fractions in 0..1.
        examples: number of evaluated examples by language; None if not recorded.
        train: `steps`, `seconds`, `best_dev`, ...; empty if the run was only evaluated.
        environment: device, versions, precision, backend.
        data_dir: folder that the run read its data from; None for the Hub or without a run.json.
        has_run_file: whether there is a run.json next to the results.
        encoder: fingerprint of the weights of the encoder that it started from; None if not recorded.
    """

    path: Path
    task: str
    model: str
    split: str
    metric: str
    train_language: str
    variant: Variant
    seed: int | None
    protocol: Mapping[str, Any]
    scores: Mapping[str, Mapping[str, float]]
    examples: Mapping[str, int | None]
    train: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    data_dir: Path | None = None
    has_run_file: bool = False
    encoder: str | None = None

    @property
    def name(self) -> str:
        """Return the run's folder, or the file if it is not named results.json."""
        return str(self.path.parent if self.path.name == RESULTS else self.path)

    @property
    def predictions(self) -> Path:
        """Return the folder of the prediction files for these results."""
        return self.path.parent / "predictions"

    def mean(self, metric: str, languages: Sequence[str]) -> float:
        """Return the unweighted mean of `metric` over `languages`.

        Raises:
            ValueError: there is no language, or this run was not evaluated on all of them.
        """
        if not languages:
            raise ValueError("languages must name at least one language, got none")
        missing = [language for language in languages if language not in self.scores]
        if missing:
            raise ValueError(
                f"{self.path}: no mean over {', '.join(languages)}: the run was not evaluated on {', '.join(missing)}"
            )
        return statistics.fmean(self.score(metric, language) for language in languages)

    def score(self, metric: str, language: str) -> float:
        """Return one score.

        Raises:
            ValueError: the results do not contain it.
        """
        if metric not in self.scores[language]:
            raise ValueError(f"{self.path}: field languages.{language}.{metric} is missing")
        return self.scores[language][metric]


class Loaded(NamedTuple):
    """Runs and ensembles from results files, and notes on what was left out or renamed."""

    runs: list[Run]
    ensembles: list[Ensemble]
    notes: list[str]


def load_runs(paths: Iterable[Path], compare: Sequence[str] = ()) -> Loaded:
    """Read results files and every results.json below directories.

    Runs on intermediate tasks inside another run's folder are not read.

    Args:
        paths: files or directories.
        compare: configuration fields to compare runs by; they become part of the variant.

    Returns:
        Runs and ensembles in the order of their paths, and notes.

    Raises:
        ValueError: a path does not exist or has no results; a file in `paths` is malformed (the message names the
            field; malformed files found below a directory are left out with a note); no run has a field of `compare`.
    """
    files: dict[Path, Path] = {}
    given: set[Path] = set()
    notes: list[str] = []
    for path in paths:
        if path.is_dir():
            folders = sorted({file.parent for name in _TRACES for file in path.rglob(name)} - _stages(path))
            found = [folder / RESULTS for folder in folders if (folder / RESULTS).exists()]
            unfinished = [folder for folder in folders if not (folder / RESULTS).exists()]
            notes += map(_unfinished, unfinished)
            if not found and not unfinished:
                raise ValueError(f"{path}: no {RESULTS} in this directory or below")
        elif path.is_file():
            found = [path]
            given.add(path.resolve())
        else:
            raise ValueError(f"{path}: no such file or directory; needed {RESULTS} files, or directories with runs")
        for file in found:
            files.setdefault(file.resolve(), file)
    runs, ensembles = [], []
    for place, file in files.items():
        try:
            values = read_object(file)
            if "ensemble" in values:
                ensembles.append(read_ensemble(file, values))
            else:
                runs.append(read_run(file, values, compare))
        except ValueError as error:
            if place in given:
                raise
            notes.append(f"{error}; it is left out")
    if not runs and not ensembles:
        raise ValueError("there is no complete run: " + "; ".join(notes))
    for name in compare:
        if not any(name in dict(run.variant.compared) for run in runs):
            known = sorted({name for run in runs for name in run.protocol})
            raise ValueError(f"--compare: no run has a field {name!r}; fields are {', '.join(known) or 'none'}")
    runs, more = told_apart(runs)
    return Loaded(runs, ensembles, notes + more)


def _stages(path: Path) -> set[Path]:
    """Return the folders of runs on intermediate tasks, which are inside the folder of the following run."""
    return {folder for folder in path.rglob("intermediate") if (folder.parent / "run.json").exists()}


def _unfinished(folder: Path) -> str:
    """Return the reason why there is no results.json."""
    error = folder / "error.txt"
    lines = error.read_text(encoding="utf-8", errors="replace").strip().splitlines() if error.exists() else []
    reason = f"failed ({lines[-1].strip()})" if lines else f"is not complete (no {RESULTS})"
    return f"{folder}: the run {reason}, so it is left out"


def read_run(path: Path, values: Mapping[str, Any], compare: Sequence[str] = ()) -> Run:
    """Read a run from the content of its results file and, if present, the run.json next to it.

    Raises:
        ValueError: a malformed field; the message names the file, the field, its value and what is needed.
    """
    reader = Fields(path, values)
    task = reader.text("task")
    metric = reader.text("metric")
    languages = reader.mapping("languages")
    if not languages:
        raise reader.error("languages", "at least one language", languages)
    scores: dict[str, dict[str, float]] = {}
    examples: dict[str, int | None] = {}
    for language, values in languages.items():
        where = f"languages.{language}"
        if not isinstance(values, dict):
            raise reader.error(where, "an object of metrics", values)
        if metric not in values:
            raise reader.missing(f"{where}.{metric}")
        scores[language] = {
            name: reader.fraction(f"{where}.{name}", value) for name, value in values.items() if name != "examples"
        }
        examples[language] = reader.count(f"{where}.examples", values.get("examples"))
    config = reader.mapping("config", default={})
    train = reader.mapping("train", default={})
    for name in ("steps", "seconds", "best_dev"):
        if train.get(name) is not None:
            reader.number(f"train.{name}", train[name])
    protocol = fields_of(config, Role.PROTOCOL)
    options = Fields(path, config, "config.").mapping("model_options", default={})
    stages = reader.values.get("intermediate")
    if stages:
        protocol["intermediate"] = [stage.get("task") if isinstance(stage, dict) else stage for stage in stages]
    for name in ("label_subword", "classifier_pooling"):
        if (option := reader.text(name, default=None)) is not None:
            protocol[name] = option
    variant = _variant(reader, options, {name: protocol.pop(name) for name in compare if name in protocol})
    run_file = path.parent / "run.json"
    return Run(
        path=path,
        task=task,
        model=reader.text("model"),
        split=reader.text("split", default="test"),
        metric=metric,
        train_language=reader.text("train_language"),
        variant=variant,
        seed=reader.count("seed", reader.values.get("seed")),
        protocol=protocol,
        scores=scores,
        examples=examples,
        train=train,
        environment=reader.mapping("environment", default={}),
        data_dir=_data_dir(run_file),
        has_run_file=run_file.exists(),
        encoder=reader.text("encoder_sha256", default=None),
    )


def protocol_key(run: Run) -> str:
    """Return a key that is equal for runs with the same protocol."""
    return json.dumps(run.protocol, sort_keys=True, ensure_ascii=False)


def protocol_differences(run: Run, reference: Mapping[str, Any]) -> str:
    """Describe how the protocol of `run` differs from `reference`."""
    names = sorted(set(run.protocol) | set(reference))
    return ", ".join(
        f"{name} {run.protocol.get(name)} instead of {reference.get(name)}"
        for name in names
        if run.protocol.get(name) != reference.get(name)
    )


def _variant(reader: Fields, options: Mapping[str, Any], compared: Mapping[str, Any]) -> Variant:
    layer = reader.values.get("fusion_layer")
    layers = layer if isinstance(layer, list) else [] if layer is None else [layer]
    if any(isinstance(item, bool) or not isinstance(item, int) or item < 0 for item in layers):
        raise reader.error("fusion_layer", "a layer, a list of layers or null", layer)
    if "fusion_layer" not in reader.values:
        raise reader.missing("fusion_layer")
    fusion = reader.text("fusion", default="aif" if layers else "last")
    fuse = reader.text("fuse", default=None)
    return Variant.of(fusion, tuple(layers), fuse, options, compared)


def _data_dir(run_file: Path) -> Path | None:
    if not run_file.exists():
        return None
    config = Fields(run_file, read_object(run_file)).mapping("config")
    value = config.get("data_dir")
    return None if value is None else Path(value)
