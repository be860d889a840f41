"""Generate README's performance section from the committed results files.

    python -m benchmarks.report [--results DIR] [--readme FILE --write] [--plots]

It prints the text between the lines `<!-- performance:begin -->` and `<!-- performance:end -->`; `--write` inserts it
there. `--plots` redraws its plots, beside the results. Each folder of results is for one GPU; those of a CPU are
skipped. If nothing has been measured, the section says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from dlfa.files.atomic import write_text
from dlfa.terminal import one_line_errors

from . import plots, providers
from .cases import SHAPES, core_case
from .floors import PASSES
from .hardware import ROOT
from .readme_sections import PERFORMANCE, replace_section
from .results import Results, load_folder, rows_of
from .targets import load_traffic, targets

RESULTS = ROOT / "benchmarks" / "results"
NOTHING = (
    "Not measured yet on any GPU. `python -m benchmarks.all` measures speed and memory against eager PyTorch and\n"
    "`torch.compile` on the GPU it finds, within 8 minutes; `python -m benchmarks.report --write` then fills in this\n"
    "section."
)
PICTURES = {"roofline.png": "Roofline", "memory.png": "Memory kept for the backward"}


def section(results: Path, readme: Path) -> str:
    """Return the text between the markers, without them; it ends in a newline.

    Args:
        results: the folder that contains one folder a GPU.
        readme: the file for the section, for relative links.

    Raises:
        ValueError: a file is not a results file.
    """
    parts = []
    for folder in sorted(path for path in results.glob("*") if path.is_dir()):
        loaded = {name: found for name, found in load_folder(folder).items() if found.header["gpu"] is not None}
        if loaded:
            parts.append(_gpu(folder, loaded, readme))
    return "\n\n".join(parts or [NOTHING]) + "\n"


def _gpu(folder: Path, results: dict[str, Results], readme: Path) -> str:
    gpu = next(iter(results.values())).header["gpu"]
    lines = [f"### {gpu}", "", *_sources(results), ""]
    if "aif" in results:
        lines += _speed(results["aif"])
    lines += ["Against what was aimed at:", ""]
    lines += _table(("", "target", "measured", ""), (target.cells for target in targets(results, load_traffic(folder))))
    names = {row["provider"] for loaded in results.values() for row in loaded.rows}
    if names & set(providers.WITH_GRAPHS):
        lines += ["", providers.GRAPHS_NOTE]
    links = os.path.relpath(folder, readme.parent).replace(os.sep, "/")
    for name, caption in PICTURES.items():
        if (folder / name).is_file():
            lines += ["", f"![{caption}, {gpu}]({links}/{name})"]
    return "\n".join(lines)


def _sources(results: dict[str, Results]) -> list[str]:
    """Return the sources of the figures: one line for suites of one run and machine."""
    lines: dict[str, list[str]] = {}
    for loaded in results.values():
        header = loaded.header
        text = (
            f"{header['date'][:10]}, commit {header['commit']}, torch {header['torch']}, triton {header['triton']}; "
            f"copy {header['copy_tb_s']} TB/s, bfloat16 products {header['matmul_tflop_s']} TFLOP/s"
        )
        lines.setdefault(text, []).append(f"`{header['command']}`")
    return [f"- {', '.join(commands)}: {text}" for text, commands in lines.items()]


def _speed(results: Results) -> list[str]:
    """Return the table of core sizes: our time, its ratio to the floor, and the others' times relative to ours."""
    columns = ("size, pass", "ours, us", "over floor", "eager", "torch.compile", "torch.compile, best mode")
    rows = []
    for shape in SHAPES:
        case = core_case(shape)
        for pass_ in PASSES:
            found = {row["provider"]: row for row in rows_of(results.rows, case, pass_) if row["median_us"] is not None}
            if providers.OURS in found:
                rows.append([f"{plots.size(found[providers.OURS])}, {pass_}", *_ratios(found)])
    if not rows:
        return []
    note = (
        "Device time with a cold L2 cache, bfloat16, gate, kernel size 1, H = E/4; the others as multiples of ours.\n"
        "The backward's floor counts five tensors, though four would do in gate mode. A dash was not measured."
    )
    return [note, "", *_table(columns, rows), ""]


def _ratios(found: dict[str, dict[str, Any]]) -> list[str]:
    ours = found[providers.OURS]
    compiled = {name: row["median_us"] for name, row in found.items() if name.startswith(providers.COMPILE)}
    best = min(compiled, key=lambda name: compiled[name], default=None)
    mode = "" if best is None else f" ({providers.COMPILE_MODES[best]})"

    def times(value: float | None) -> str:
        return "-" if value is None else f"{value / ours['median_us']:.2f}x"

    def median(name: str) -> float | None:
        return found[name]["median_us"] if name in found else None

    return [
        f"{ours['median_us']:.1f}", f"{ours['of_floor']:.2f}", times(median(providers.EAGER)),
        times(median(providers.COMPILE)), f"{times(compiled.get(best or ''))}{mode}",
    ]  # fmt: skip


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    names = list(columns)
    lines = [names, ["---"] * len(names), *map(list, rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def command(
    results: Annotated[Path, typer.Option(help="Folder of the GPUs' folders.")] = RESULTS,
    readme: Annotated[Path, typer.Option(help="The file that holds the section.")] = ROOT / "README.md",
    write: Annotated[bool, typer.Option("--write", help="Put the section there.")] = False,
    draw: Annotated[bool, typer.Option("--plots", help="Draw the plots again.")] = False,
) -> None:
    """Print README's performance section."""
    with one_line_errors():
        if draw:
            for folder in sorted(path for path in results.glob("*") if path.is_dir()):
                for name, loaded in load_folder(folder).items():
                    plots.draw(name, import_module(f"benchmarks.{name}").SUITE.bars, loaded, folder)
        text = section(results, readme)
        if write:
            document = readme.read_text(encoding="utf-8")
            try:
                new = replace_section(document, PERFORMANCE, text)
            except ValueError as error:
                raise ValueError(f"{readme}: {error}") from error
            write_text(readme, new)
    typer.echo(text, nl=False)


if __name__ == "__main__":
    typer.run(command)
