"""Tables of results for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .charts import title

if TYPE_CHECKING:
    from rich.table import Table

    from ..tasks import Task


def language_table(results: Mapping[str, Any]) -> Table:
    """Return a table with one row per language, in percent, and the averages below; the main metric comes first.

    Args:
        results: the output of `dlfa.evaluation.results.summary`.
    """
    from rich.table import Table

    averages, record = results["averages"], results["metric"]
    metrics = sorted(averages, key=lambda name: name != record)
    table = Table(title=title(results), caption=f"{results['split']} data, percent; metric of record: {record}")
    table.add_column("language")
    for metric in metrics:
        table.add_column(metric, justify="right", style="bold" if metric == record else "")
    table.add_column("examples", justify="right")
    for language in sorted(results["languages"]):
        scores = results["languages"][language]
        name = f"{language} (training)" if language == results["train_language"] else language
        table.add_row(name, *(_percent(scores[metric]) for metric in metrics), f"{scores['examples']:,}")
    table.add_section()
    for name, key in (("average", "all"), ("average, zero-shot", "zero_shot")):
        table.add_row(name, *(_percent(averages[metric][key]) for metric in metrics), "")
    return table


def sweep_table(sweep: Mapping[str, Any]) -> Table:
    """Return a table with one row per mode and layer: mean and standard deviation over seeds, in percent.

    Args:
        sweep: the output of `dlfa.sweep.run.run_sweep`.
    """
    from rich.table import Table

    metric = next((cell["metric"] for cell in sweep["cells"] if cell["state"] == "done"), "metric")
    table = Table(title=f"{sweep['config']['task']}, {metric} in percent: mean and standard deviation over seeds")
    for name in ("mode", "layer"):
        table.add_column(name)
    for name in ("zero-shot", "all languages", "training, s", "runs"):
        table.add_column(name, justify="right")
    for row in sweep["summary"]:
        table.add_row(
            row["mode"],
            "+".join(map(str, layers))
            if isinstance(layers := row["fusion_layer"], list)
            else "-"
            if layers is None
            else str(layers),
            _with_spread(row, "average_zero_shot"),
            _with_spread(row, "average"),
            "-" if row["seconds"] is None else f"{row['seconds']:.1f}",
            f"{row['done']} of {row['of']}",
        )
    return table


def task_table(tasks: Iterable[Task]) -> Table:
    """Return a table with one row per task: languages, metric, source, default hyper-parameters."""
    from rich.table import Table

    table = Table(show_lines=True)
    table.add_column("task")
    table.add_column("what")
    table.add_column("languages", min_width=24)
    table.add_column("Hub data set, settings")
    for task in tasks:
        preset = task.preset
        hub = ", ".join(dict.fromkeys(source.path for source in task.hub.values())) or "none: --data-dir only"
        table.add_row(
            task.name,
            f"{task.title}; {task.kind}, {task.metric}",
            f"{len(task.languages)}: {' '.join(task.languages)}",
            f"{hub}\nlr {preset.learning_rate:g}, batch {preset.batch_size} x {preset.gradient_accumulation}, "
            f"{preset.epochs:g} epochs, length {preset.max_length}",
        )
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _with_spread(row: Mapping[str, Any], name: str) -> str:
    spread = row[f"{name}_std"]
    return _percent(row[name]) + ("" if spread is None else f" ± {100 * spread:.1f}")
