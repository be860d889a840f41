"""runs.csv: one row a run, with all data for tables, and enough to repeat the run.

Scores are fractions. A column METRIC:LANGUAGE holds a score of that language; `config` has, as JSON, the values that
affect the result and differ from their defaults.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlfa.files import atomic
from dlfa.files.json_files import read_object
from dlfa.report.ensembles import read_ensemble
from dlfa.report.runs import Run, read_run
from dlfa.runs.run_config import RunConfig
from dlfa.runs.run_directory import RunDirectory

from .directories import finished_directories, protocol, read_record
from .groups import PROTOCOL_OPTIONS, Places

Row = dict[str, str]
ENSEMBLE = "ensemble"  # in the column of the fusion

COLUMNS = (
    "name", "group", "task", "regime", "variant", "fusion", "layers", "fuse", "changed", "seed", "train_examples",
    "eval_examples", "model", "metric", "train_language", "dev", "average", "average_zero_shot", "steps",
    "seconds_per_step", "train_seconds", "total_seconds", "backend", "hardware", "device", "dtype", "threads", "torch",
    "transformers", "triton", "commit", "config", "examples",
)  # fmt: skip


def collect(output_dir: Path) -> list[Row]:
    """Return the rows of all finished runs below a directory, by name.

    Raises:
        ValueError: a file of a run is invalid.
    """
    return [row_of(path) for path in finished_directories(output_dir)]


def row_of(path: Path) -> Row:
    """Return the row of a finished run's directory.

    Raises:
        ValueError: see `collect`.
    """
    directory, record = RunDirectory(path), read_record(path)
    results = read_object(directory.results_file, ("languages", "environment", "averages"))
    if "ensemble" in results:
        return _ensemble_row(path, record, results)
    config = directory.read_run()["config"]
    run = read_run(directory.results_file, results)
    attempts, train, environment = record["attempts"], results["train"], results["environment"]
    values: dict[str, Any] = {
        **_common(record, results),
        "variant": run.variant.label,
        "fusion": run.variant.fusion,
        "layers": "+".join(map(str, run.variant.layers)),
        "fuse": run.variant.fuse,
        "seed": run.seed,
        "train_examples": attempts[-1].get("train_examples"),
        "dev": _fraction(train.get("best_dev")),
        "steps": train["steps"],
        "seconds_per_step": f"{train['seconds'] / train['steps']:.4f}" if train["steps"] else None,
        "train_seconds": train["seconds"],
        **{name: environment.get(name) for name in ("backend", "dtype")},
        "config": _json(protocol(config)),
    }
    return _texts(values)


def _ensemble_row(path: Path, record: Mapping[str, Any], results: Mapping[str, Any]) -> Row:
    """Return the row of an ensemble; values about the training of a single model are empty."""
    several = read_ensemble(path / "results.json", results)
    changed = {**record["changed"], "by": several.by}
    return _texts({**_common(record, results), "variant": "ensemble", "fusion": ENSEMBLE, "changed": _json(changed)})


def _common(record: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that runs and ensembles share."""
    attempts, languages, environment = record["attempts"], results["languages"], results["environment"]
    seconds = [attempt.get("seconds") for attempt in attempts]
    values = {
        "name": record["name"],
        "group": record["group"],
        "task": results["task"],
        "regime": record["regime"],
        "changed": _json(record["changed"]),
        "eval_examples": sum(scores["examples"] for scores in languages.values()),
        "model": results["model"],
        "metric": results["metric"],
        "train_language": results["train_language"],
        "average": _fraction(results["average"]),
        "average_zero_shot": _fraction(results["average_zero_shot"]),
        "total_seconds": None if None in seconds else round(sum(seconds), 1),
        "hardware": _of_attempts(attempts, "hardware"),
        "commit": _of_attempts(attempts, "commit"),
        **{name: environment.get(name) for name in ("device", "threads", "torch", "transformers", "triton")},
        "examples": " ".join(f"{language}:{scores['examples']}" for language, scores in languages.items()),
    }
    for language, scores in languages.items():
        values |= {f"{name}:{language}": _fraction(value) for name, value in scores.items() if name != "examples"}
    return values


def _texts(values: Mapping[str, Any]) -> Row:
    return {name: "" if values.get(name) is None else str(values[name]) for name in dict.fromkeys((*COLUMNS, *values))}


def results_of(row: Mapping[str, str]) -> dict[str, Any]:
    """Return the content of results.json, as far as a row of the CSV contains it."""
    config = json.loads(row["config"])
    examples = dict(entry.split(":") for entry in row["examples"].split())
    languages: dict[str, dict[str, Any]] = {code: {"examples": int(count)} for code, count in examples.items()}
    for column, value in row.items():
        metric, separator, code = column.partition(":")
        if separator and value:
            languages[code][metric] = float(value)
    layers = [int(layer) for layer in row["layers"].split("+") if layer]
    train: dict[str, Any] = {"steps": int(row["steps"]), "seconds": float(row["train_seconds"])}
    if row["dev"]:
        train["best_dev"] = float(row["dev"])
    return {
        "task": row["task"],
        "model": row["model"],
        "fusion": row["fusion"],
        "fusion_layer": layers or None,
        "fuse": row["fuse"] or None,
        "seed": int(row["seed"]),
        "metric": row["metric"],
        "train_language": row["train_language"],
        "languages": languages,
        "train": train,
        "config": config,
        "environment": {
            **{name: row[name] or None for name in ("dtype", "backend", "torch", "transformers", "triton")},
            "device": row["hardware"],
        },
    }


def run_of(row: Mapping[str, str], varied: Mapping[str, Any]) -> Run:
    """Return a row as a run that `dlfa.report` compares.

    Args:
        row: the row of the CSV.
        varied: fields of RunConfig, and `PROTOCOL_OPTIONS`, in which variants differ, with the usual value; a run with
            another value is a separate variant.

    Raises:
        ValueError: a malformed field.
    """
    results = results_of(row)
    config = results["config"]
    options = config["model_options"]
    config = {**config, **{name: options[name] for name in PROTOCOL_OPTIONS if options.get(name) is not None}}
    compared = {name: config.pop(name, None) for name in varied}
    different = {
        name: "+".join(value) if isinstance(value, list) else value
        for name, value in compared.items()
        if value != varied[name]
    }
    results["config"] = config | different
    return read_run(Path(row["name"]) / "results.json", results, sorted(different))


def config_of(row: Mapping[str, str], places: Places) -> RunConfig:
    """Return the configuration that repeats the run of a row."""
    values = json.loads(row["config"])
    values["intermediate"] = [f"{task}:{places.data / task}" for task in values.get("intermediate", ())]
    layers = [int(layer) for layer in row["layers"].split("+") if layer]
    options = {**values.pop("model_options"), "fusion": row["fusion"]}
    options["fusion_layer"] = layers[0] if len(layers) == 1 else layers or None
    if row["fuse"]:
        options["fuse"] = row["fuse"]
    fields = {
        **values,
        "task": row["task"],
        "model": places.model,
        "data_dir": str(places.data / row["task"]),
        "languages": languages_of(row),
        "model_options": options,
        "seed": int(row["seed"]),
        "states_cache": None if places.states_cache is None else str(places.states_cache),
    }
    return RunConfig.from_json(fields, places.output_dir / row["name"])


def languages_of(row: Mapping[str, str]) -> list[str]:
    """Return the languages that the run was tested on."""
    return [entry.partition(":")[0] for entry in row["examples"].split()]


def zero_shot_mean(row: Mapping[str, str], metric: str) -> float:
    """Return the mean of a metric over a row's languages except the training one, or over all if there is no other.

    Raises:
        ValueError: a language lacks the metric; a mean over the others would differ.
    """
    languages = [code for code in languages_of(row) if code != row["train_language"]] or languages_of(row)
    if missing := [code for code in languages if not row.get(f"{metric}:{code}")]:
        raise ValueError(f"{row['name']}: no {metric} of {', '.join(missing)}")
    return statistics.fmean(float(row[f"{metric}:{code}"]) for code in languages)


def hours(rows: Iterable[Row]) -> float:
    """Return the wall clock of training and evaluation; for interrupted runs only training is known."""
    return sum(float(row["total_seconds"] or row["train_seconds"]) for row in rows) / 3600


def distinct(rows: Iterable[Row], column: str) -> str:
    """Return the distinct values of a column as text; "-" if there are none."""
    return " / ".join(sorted({row[column] for row in rows})) or "-"


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a CSV file; none if there is no file.

    Raises:
        ValueError: a column is missing.
    """
    return read_csv(path, COLUMNS)


def read_csv(path: Path, columns: Sequence[str]) -> list[Row]:
    """Return the rows of a CSV file with at least these columns; see `read_rows`."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
            raise ValueError(f"{path}: needed the columns {', '.join(columns)}; {', '.join(missing)} are missing")
        return [{name: value or "" for name, value in row.items()} for row in reader]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write the CSV file, replacing it as a whole."""
    scores = sorted({name for row in rows for name in row if name not in COLUMNS}, key=_score_order)
    write_csv(path, [*COLUMNS, *scores], rows)


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Write rows with these columns, replacing the file as a whole."""
    content = io.StringIO()
    writer = csv.DictWriter(content, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic.write_text(path, content.getvalue())


def merged(before: Iterable[Row], now: Iterable[Row]) -> list[Row]:
    """Merge rows of earlier collections with new ones, which replace those of the same name; sort by name."""
    rows = {row["name"]: row for row in (*before, *now)}
    return [rows[name] for name in sorted(rows)]


def _score_order(column: str) -> tuple[str, str]:
    metric, _, code = column.partition(":")
    return metric, code


def _of_attempts(attempts: Sequence[Mapping[str, Any]], name: str) -> str:
    return " + ".join(dict.fromkeys(str(attempt[name]) for attempt in attempts))


def _json(values: Any) -> str:
    return json.dumps(values, sort_keys=True, ensure_ascii=False)


def _fraction(value: float | None) -> str | None:
    return None if value is None else f"{value:.5f}"
