"""Show the comparison as a table in the terminal and as a chart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.table import Table

from ..files.figures import new_figure, write_png
from .comparison import DLFA, LAST
from .corpus import LANGUAGES

COLOURS = {LAST: "#b0b8c0", DLFA: "#4878a8"}


def comparison_table(results: Mapping[str, Any]) -> Table:
    """Return one row per language: mean accuracy in percent, standard deviation over the seeds, and the difference.

    Args:
        results: the quickstart's results.json.
    """
    runs, titles = results["fine_tuning_seeds"], _titles(results)
    table = Table(
        title="Part-of-speech tagging, fine-tuned on en alone: accuracy in percent",
        caption=f"mean ± standard deviation over {len(runs)} fine-tuning seeds; always answering with the most "
        f"frequent tag scores {100 * mean(results['most_frequent_tag'].values()):.0f}",
    )
    table.add_column("language")
    table.add_column("what differs from en")
    for name in (LAST, DLFA):
        table.add_column(titles[name], justify="right")
    table.add_column("diff.", justify="right", style="bold")
    for language in LANGUAGES:
        table.add_row(language.name, language.title, *_cells(results["languages"][language.name]))
    table.add_section()
    table.add_row("mean", "zero-shot, without en", *_cells(results["average_zero_shot"]))
    return table


def _titles(results: Mapping[str, Any]) -> dict[str, str]:
    return {LAST: "last layer", DLFA: f"DLFA, layer {results['fusion_layer']}"}


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [*(_mean_and_spread(row[name]) for name in (LAST, DLFA)), f"{100 * row['difference']:+.1f}"]


def _mean_and_spread(values: list[float]) -> str:
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}"


def comparison_chart(results: Mapping[str, Any], path: Path) -> None:
    """Draw both accuracies by language, with a dot per seed, and their difference, to the PNG file `path`.

    Args:
        results: the quickstart's results.json.
        path: the file; it is replaced atomically.
    """
    rows = {**results["languages"], "mean of\nzero-shot": results["average_zero_shot"]}
    titles = _titles(results)
    figure = new_figure(8, 4.2)
    axes = figure.add_subplot()
    for shift, name in ((-0.2, LAST), (0.2, DLFA)):
        places = [place + shift for place in range(len(rows))]
        axes.bar(
            places, [100 * mean(row[name]) for row in rows.values()], 0.38, color=COLOURS[name], label=titles[name]
        )
        for place, row in zip(places, rows.values(), strict=True):
            axes.scatter([place] * len(row[name]), [100 * value for value in row[name]], s=8, color="black", zorder=3)
    for place, row in enumerate(rows.values()):
        top = 100 * max(*row[LAST], *row[DLFA])
        axes.text(place, top + 2, f"{100 * row['difference']:+.1f}", ha="center", fontsize=9)
    frequent = 100 * mean(results["most_frequent_tag"].values())
    axes.axhline(frequent, color="#c44e52", linestyle="--", linewidth=1, label=f"most frequent tag: {frequent:.0f}")
    axes.axvline(0.5, color="#d0d0d0", linewidth=1)
    axes.set_xticks(
        range(len(rows)), [f"{name}\n(training)" if place == 0 else name for place, name in enumerate(rows)]
    )
    axes.set_ylim(0, 110)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("accuracy, %")
    axes.set_title("Zero-shot part-of-speech tagging of made-up languages", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    write_png(figure, path)
