"""The model card (README.md) of a saved model: a description, how to load it, and its scores."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ..files import atomic
from ..models.configuration import AUTO_CLASSES, DLFAConfig

_PIPELINES = {
    "DLFAForTokenClassification": "token-classification",
    "DLFAForSequenceClassification": "text-classification",
    "DLFAForQuestionAnswering": "question-answering",
    "DLFAModel": "feature-extraction",
}


def write_model_card(directory: str | os.PathLike[str], results: Mapping[str, Any]) -> Path:
    """Write README.md to the directory of a saved model, replacing an existing one.

    Args:
        directory: the directory that `save_pretrained` wrote the model to.
        results: the content of `results.json`: `task`, `metric`, `train_language`, `languages` (each with its metrics
            and `examples`), `average`, `average_zero_shot`, `seed`, `train`.

    Returns:
        The path of the card.

    Raises:
        FileNotFoundError: there is no config.json in `directory`.
        ValueError: config.json is of another kind of model, or the results have no languages.
    """
    folder = Path(directory)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"directory must hold a saved DLFA model, got {folder} without a config.json")
    values, _ = DLFAConfig.get_config_dict(folder, local_files_only=True)
    if values.get("model_type") != DLFAConfig.model_type:
        raise ValueError(f"directory must hold a saved DLFA model, got one of type {values.get('model_type')!r}")
    if not results.get("languages"):
        raise ValueError("results must hold at least one language under 'languages', got none")
    config = DLFAConfig.from_pretrained(folder, local_files_only=True)
    head = (config.architectures or ["DLFAModel"])[0]
    metadata = f"---\n{_metadata(folder, config, head, results).to_yaml()}\n---"
    parts = [metadata, _description(folder, config, head), _results_section(results)]
    card = folder / "README.md"
    atomic.write_text(card, "\n\n".join(parts) + "\n")
    return card


def describe_fusion(config: DLFAConfig) -> str:
    """Return a phrase for the input of the head, such as "AIF (gate) of the last layer and layer 8"."""
    layers = [f"layer {layer}" for layer in config.lower_layers]
    if config.feature_dim is not None:
        layers = [f"external features of {config.feature_dim} channels" + (f" or {layers[0]}" if layers else "")]
    if config.fusion in ("last", "lower"):
        return f"{layers[0] if config.fusion == 'lower' else 'the last layer'} alone"
    *first, final = ["the last layer", *layers]
    of = f"of {', '.join(first)} and {final}"
    return {
        "sum": f"the sum {of}",
        "scalar_mix": f"a learnt scalar mix {of}",
        "residual": f"the sum {of}, with AIF's branches added and no gate",
        "aif": f"AIF ({config.fuse}) {of}",
    }[str(config.fusion)]


def _metadata(folder: Path, config: DLFAConfig, head: str, results: Mapping[str, Any]) -> ModelCardData:
    encoder = config.get_text_config().name_or_path or ""
    on_hub = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", encoder) and not os.path.exists(encoder)
    evaluations = [
        EvalResult(
            task_type=_PIPELINES.get(head, "other"),
            dataset_type=str(results["task"]),
            dataset_name=str(results["task"]),
            dataset_config=language,
            dataset_split="test",
            metric_type=str(results["metric"]),
            metric_value=scores[results["metric"]],
        )
        for language, scores in results["languages"].items()
        if results["metric"] in scores
    ]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=_PIPELINES.get(head),
        tags=["dlfa", "cross-lingual", "layer-fusion"],
        language=sorted(results["languages"]),
        base_model=encoder if on_hub else None,
        model_name=folder.resolve().name,
        eval_results=evaluations or None,
    )


def _description(folder: Path, config: DLFAConfig, head: str) -> str:
    encoder = config.get_text_config()
    lines = [
        f"# {folder.resolve().name}",
        f"A `{head}`: an encoder of type `{encoder.model_type}` ({config.num_hidden_layers} layers, "
        f"{config.hidden_size} wide) whose task head reads {describe_fusion(config)}.",
    ]
    if head == "DLFAForTokenClassification":
        piece = {"first": "first sub-word", "last": "last sub-word", "mean": "sub-words' mean"}[config.label_subword]
        lines.append(f"A word's label is read at its {piece}.")
    auto = AUTO_CLASSES.get(head, "AutoModel")
    lines.append(
        "```python\n"
        "import dlfa  # the package that holds the model's code\n"
        f"from transformers import AutoTokenizer, {auto}\n\n"
        f'model = {auto}.from_pretrained("{folder.resolve().name}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{folder.resolve().name}")\n'
        "```"
    )
    return "\n\n".join(lines)


def _results_section(results: Mapping[str, Any]) -> str:
    languages: Mapping[str, Mapping[str, Any]] = results["languages"]
    columns = list(dict.fromkeys(name for scores in languages.values() for name in scores))
    rows = [["language", *columns], ["---", *["---:"] * len(columns)]]
    rows += [[name, *[_cell(scores.get(column)) for column in columns]] for name, scores in languages.items()]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    metric, source = results.get("metric"), results.get("train_language")
    averages = [
        f"Mean {metric} over {what}: {_cell(results[name])}."
        for name, what in (
            ("average", "all languages"),
            ("average_zero_shot", f"all but {source}, the language of training"),
        )
        if results.get(name) is not None
    ]
    train = results.get("train") or {}
    run = {"seed": results.get("seed"), **train}
    figures = [f"{name} {_cell(value)}" for name, value in run.items() if value is not None]
    lines = [f"## Results\n\nTask `{results.get('task')}`, trained on `{source}` alone, evaluated on test sets.", table]
    lines += [" ".join(averages)] if averages else []
    lines += [f"Training: {', '.join(figures)}."] if figures else []
    return "\n\n".join(lines)


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
