"""`dlfa analyze`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import print_table, quiet_libraries
from .options import Languages, MaxLength, Quiet, ReplaceFiles, RunDataDir, output_path, split_list


def analyze(
    model: Annotated[str, typer.Argument(help="Output directory of `dlfa train`, or an encoder: Hub id or directory.")],
    data_dir: RunDataDir = None,
    task: Annotated[
        str | None, typer.Option("--task", help="Task whose labels are probed for; default: the run's own.")
    ] = None,
    languages: Languages = None,
    max_examples: Annotated[
        int, typer.Option(min=0, help="Sentences per language, a fixed random subset; 0: all.")
    ] = 200,
    probe_examples: Annotated[
        int, typer.Option(min=0, help="Training sentences of the label probe, a fixed random subset; 0: all.")
    ] = 500,
    label_subword: Annotated[
        str | None,
        typer.Option(
            help="Tagging: sub-words that stand for a word; default: as in the run, for an encoder mean.",
            metavar="<first|last|mean>",
        ),
    ] = None,
    max_length: MaxLength = None,
    output: Annotated[Path | None, output_path("Folder for analysis.json, analysis.md and its plots.")] = None,
    overwrite: ReplaceFiles = False,
    quiet: Quiet = False,
) -> None:
    """Measure what layers and gates hold.

    Probes every layer for labels and languages, and measures the gates and each layer's part of the output.
    """
    quiet_libraries()
    from rich.console import Console

    from ..analysis.analyzed_model import load_analyzed_model
    from ..analysis.document import (
        ANALYSIS,
        FILES,
        gate_table,
        layer_table,
        probe_text,
        variance_table,
        write_analysis,
    )
    from ..analysis.findings import analyze as analyze_model
    from ..analysis.findings import load_probe_data
    from ..runs.output_paths import check_document

    chosen = None if languages is None else split_list("languages", languages)
    analyzed = load_analyzed_model(model, task, max_length=max_length, label_subword=label_subword)
    data = load_probe_data(
        analyzed, data_dir if data_dir is not None else analyzed.data_dir, chosen,
        max_examples=max_examples or None, probe_examples=probe_examples or None,
    )  # fmt: skip
    if output is not None:
        check_document(output, ANALYSIS, FILES, overwrite=overwrite)
    with Console(stderr=True, quiet=quiet).status("analyze") as status:
        findings = analyze_model(analyzed, data, lambda what: status.update(f"analyze {what}"))
    written = None if output is None else write_analysis(output, findings)
    title = f"{findings['model']}, {findings['task']}"
    for table, caption in (
        (layer_table(findings), probe_text(findings)),
        (gate_table(findings), "the gate by language"),
        (variance_table(findings), "what the gate varies with"),
    ):
        if table is not None:
            print_table(table.rich(title, caption))
    for note in findings["notes"]:
        typer.echo(f"- {note}")
    if written is not None:
        typer.echo(f"written: {written}")
