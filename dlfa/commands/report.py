"""`dlfa report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import print_table
from .options import Quiet, ReplaceFiles, output_path, split_list


def report(
    results: Annotated[list[Path], typer.Argument(help="results.json files, or folders that are searched for them.")],
    output: Annotated[Path | None, output_path("Folder for report.md, its plots and runs.csv.")] = None,
    data_dir: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[TASK=]DIR",
            help="Folder with the gold labels, for the bootstrap; default: where the runs read their data.",
        ),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Metric to compare; default: the task's metric of record.")] = None,
    languages: Annotated[
        str | None, typer.Option(help="Languages to compare on, such as de,zh; default: those that most runs have.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Variant to compare with, such as 'lower 6'; default: the last layer.")
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            help="Compare runs that differ in this field of their configuration, such as learning_rate. Repeatable."
        ),
    ] = None,
    resamples: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="Bootstrap resamples over sentences; 0: no bootstrap.")
    ] = 2000,
    overwrite: ReplaceFiles = False,
    quiet: Quiet = False,
) -> None:
    """Compare runs in tables and plots.

    By layer, language, family and script, with significance tests and the cost of training.
    """
    from ..progress import progress_bar
    from ..report.comparison import compare as compare_runs
    from ..report.document import REPORT, left_out, report_files, section_title, write_report
    from ..report.findings import find
    from ..report.runs import load_runs
    from ..report.tables import choice_table, ensemble_table, summary_table
    from ..runs.output_paths import check_document

    chosen = None if languages is None else split_list("languages", languages)
    runs, ensembles, notes = load_runs(results, compare or ())
    comparisons = compare_runs(runs, metric=metric, languages=chosen, baseline=baseline)
    folders = _folders(data_dir or [], {item.task for item in comparisons})
    if output is not None:  # check before the bootstrap, which takes minutes
        check_document(output, REPORT, report_files(comparisons), overwrite=overwrite)
    findings = []
    with progress_bar(shown=resamples > 0 and not quiet, transient=True) as bar:
        done = bar.add_task("bootstrap", total=sum(len(each.languages) for each in comparisons if each.pairs))
        for each in comparisons:
            folder = folders.get(each.task)
            findings.append(find(each, resamples=resamples, data_dir=folder, on_language=lambda _: bar.advance(done)))
    written = None if output is None else write_report(output, findings, runs, ensembles, notes)
    for item in findings:
        print_table(
            summary_table(item).rich(section_title(item), "percent, mean ± deviation over seeds; 95 % intervals")
        )
        choices = choice_table(item)
        if choices is not None:
            print_table(choices.rich("choice of layer", "the oracle looks at the test data"))
        for line in left_out(item):
            typer.echo(f"- {line}")
    several = ensemble_table(ensembles)
    if several is not None:
        print_table(several.rich("ensembles", "percent; gain in points over the runs' mean and over the best of them"))
    for line in notes:
        typer.echo(f"- {line}")
    if written is not None:
        typer.echo(f"written: {written}")


def _folders(given: list[str], tasks: set[str]) -> dict[str, Path]:
    """Return data folders by task; an entry without a task name is allowed if there is a single task."""
    folders = {}
    for text in given:
        task, separator, folder = text.partition("=")
        if not separator:
            if len(tasks) > 1:
                raise ValueError(
                    f"--data-dir must be TASK=DIR where there are several tasks ({', '.join(sorted(tasks))})"
                )
            task, folder = next(iter(tasks)), text
        if task not in tasks:
            raise ValueError(f"--data-dir: there are no runs of task {task!r}, but of {', '.join(sorted(tasks))}")
        if not Path(folder).is_dir():
            raise ValueError(f"--data-dir: {folder} is no directory")
        folders[task] = Path(folder)
    return folders
