"""The command line, `dlfa`. Heavy imports wait inside the commands, so that help comes at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .analysis.command import analyze
from .evaluation.batch_size import EVAL_BATCH_SIZE
from .experiment_commands import ensemble, sweep
from .report.command import report
from .run_options import (
    DataDir,
    EvalBatchSize,
    Languages,
    MaxLength,
    Quiet,
    Split,
    output_path,
    run_fields,
    split_list,
    with_run_options,
)
from .terminal import fail, is_first_process, one_line_errors, print_table, quiet_libraries

if TYPE_CHECKING:
    from .evaluation.saved_runs import SavedRun

app = typer.Typer(
    name="dlfa",
    help="Fuse a lower layer of a multilingual encoder with its last one, for zero-shot cross-lingual transfer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

TaskName = Annotated[str | None, typer.Option("--task", help="A task of `dlfa tasks`; default: the run's own.")]


@app.command()
@with_run_options
def train(
    output_dir: Annotated[Path, output_path("Where model, results and predictions go.")],
    options: dict[str, Any],
    fusion_layer: Annotated[
        str | None,
        typer.Option(help="Lower layer, 0 (embeddings) to L-1; several as 4,6; none for the last-layer baseline."),
    ] = None,
    fusion: Annotated[str | None, typer.Option(help="last, lower, sum, scalar_mix, residual or aif (default).")] = None,
    fuse: Annotated[str | None, typer.Option(help="AIF: gate (default) or select.")] = None,
    seed: Annotated[int, typer.Option(help="Of initialisation, data order and dropout.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --output-dir.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output-dir.")] = False,
    quiet: Quiet = False,
) -> None:
    """Train on English, evaluate on every language, write model and results."""
    with one_line_errors():
        fields = run_fields(**options)
        given = {"fusion": fusion, "fuse": fuse}
        fields["model_options"] |= {"fusion_layer": _fusion_layer(fusion_layer, fusion)}
        fields["model_options"] |= {name: value for name, value in given.items() if value is not None}
        from .training.run_config import RunConfig

        config = RunConfig(output_dir=output_dir, seed=seed, **fields)
        quiet_libraries()
        from .training.run_directory import RunDirectory
        from .training.train import train as train_run

        complete = resume and RunDirectory(output_dir).results_file.exists()
        try:
            results = train_run(config, overwrite=overwrite, resume=resume, progress=not quiet)
        except KeyboardInterrupt:
            again = f"the same command with --resume goes on with the run in {output_dir}"
            fail(f"interrupted; {again}", status=130)
    if complete and is_first_process():
        typer.echo(f"the run in {output_dir} is complete")
    _show(results)


@app.command()
def evaluate(
    model_dir: Annotated[Path, typer.Argument(help="Output directory of `dlfa train`.")],
    data_dir: DataDir = None,
    task: TaskName = None,
    languages: Languages = None,
    split: Split = "test",
    output: Annotated[Path | None, output_path("Write the results here, as results.json.")] = None,
    predictions: Annotated[Path | None, output_path("Write predictions here, one file a language.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace prediction files in --predictions.")] = False,
    max_eval_examples: Annotated[
        int | None, typer.Option(min=0, help="A fixed random subset of each language; 0 for all; default: as the run.")
    ] = None,
    max_length: MaxLength = None,
    batch_size: EvalBatchSize = EVAL_BATCH_SIZE,
    quiet: Quiet = False,
) -> None:
    """Evaluate a saved model; with the run's own data, the figures are those that the run wrote."""
    with one_line_errors():
        run = _load_run(model_dir, task, max_length)
        from .data.layout import data_files
        from .evaluation.evaluate import evaluate as evaluate_languages
        from .evaluation.evaluation_data import data_dir_of, evaluation_data, examples_of_each
        from .evaluation.prediction_files import prediction_name, write_predictions
        from .evaluation.results import summary
        from .evaluation.saved_runs import recorded_by_run
        from .files import atomic
        from .training.output_paths import check_file, check_predictions

        config = run.config
        configs = [] if config is None else [config]
        data_dir = data_dir_of(configs, data_dir)
        wanted = None if languages is None else split_list("languages", languages)
        data = evaluation_data(
            run.task, configs, data_dir=data_dir, languages=wanted, split=split, max_eval_examples=max_eval_examples
        )
        if output is not None:
            check_file("--output", output, data_files(run.task, data_dir))
        if predictions is not None:
            names = [prediction_name(run.task, language, split) for language in data]
            check_predictions("--predictions", predictions, names, run.task, data_dir, overwrite=overwrite)
        evaluations = evaluate_languages(
            run.model, run.inputs(), data, batch_size=batch_size, autocast=run.autocast, progress=not quiet
        )
        name, seed = (str(model_dir), None) if config is None else (config.model, config.seed)
        size = examples_of_each(configs, max_eval_examples)
        recorded = recorded_by_run(model_dir, config, max_length=run.max_length, max_eval_examples=size)
        results = summary(
            run.task, run.model, name, evaluations, seed=seed, split=split, autocast=run.autocast, **recorded
        )
        if predictions is not None:
            write_predictions(predictions, run.task, evaluations, split)
        if output is not None:
            atomic.write_json(output, results)
    _show(results)


@app.command()
def predict(
    model_dir: Annotated[Path, typer.Argument(help="Output directory of `dlfa train`.")],
    input_file: Annotated[str, typer.Option("--input", help="A file, or - for standard input.")],
    output: Annotated[Path | None, output_path("A file; default: standard output.")] = None,
    input_format: Annotated[
        Literal["auto", "text", "tokens"],
        typer.Option(help="Tagging: text (a sentence a line), tokens (a token a line), or auto."),
    ] = "auto",
    task: TaskName = None,
    max_length: MaxLength = None,
    batch_size: EvalBatchSize = EVAL_BATCH_SIZE,
) -> None:
    """Predict for new text: token<TAB>tag lines, texts with a label behind, or answers by question id."""
    with one_line_errors():
        from .processes import check_alone

        check_alone("dlfa predict is one process")
        run = _load_run(model_dir, task, max_length)
        from .data.layout import data_files
        from .data.lines import STANDARD_INPUT
        from .evaluation.prediction import predict as predict_examples
        from .evaluation.prediction import read_input
        from .files import atomic
        from .training.output_paths import check_file

        source = STANDARD_INPUT if input_file == "-" else Path(input_file)
        examples = read_input(run.task, source, input_format)
        if output is not None:
            # Lines of tokens with their tags are what gold labels are, too.
            known = [] if run.config is None else data_files(run.task, run.config.data_dir)
            check_file("--output", output, [source, *known])
        text = predict_examples(run, examples, batch_size)
        if output is not None:
            atomic.write_text(output, text)
        else:  # as files are, in UTF-8, whatever the terminal's encoding
            sys.stdout.buffer.write(text.encode("utf-8"))
            sys.stdout.flush()


@app.command()
def tasks() -> None:
    """List the tasks with their languages, metric, source and XTREME's hyper-parameters."""
    from .evaluation.tables import task_table
    from .tasks import TASKS

    print_table(task_table(TASKS.values()))


@app.command()
def quickstart(
    output_dir: Annotated[Path, output_path("Where everything goes.")] = Path("runs/quickstart"),
    seed: Annotated[int, typer.Option(help="Of corpus, initialisation and training.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the quickstart in --output-dir.")] = False,
) -> None:
    """Offline, on the CPU, in under two minutes: made-up languages, a tiny encoder, the last layer against DLFA."""
    with one_line_errors():
        quiet_libraries()
        from .quickstart import run

        run(output_dir, seed, overwrite=overwrite)


for command in (analyze, ensemble, report, sweep):
    app.command()(command)


def _fusion_layer(text: str | None, fusion: str | None) -> int | list[int] | None:
    """None, one layer or several."""
    if text is None:
        if fusion in ("last", "scalar_mix"):
            return None
        raise ValueError("--fusion-layer must be given: 0 to L-1 for an encoder of L layers, or none for the baseline")
    if text.lower() == "none":
        return None
    try:
        layers = [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--fusion-layer must be an integer, several as 4,6, or none, got {text!r}") from None
    return layers[0] if len(layers) == 1 else layers


def _load_run(model_dir: Path, task: str | None, max_length: int | None) -> SavedRun:
    quiet_libraries()
    from .evaluation.saved_runs import load_run

    return load_run(model_dir, task, max_length)


def _show(results: dict[str, Any]) -> None:
    """Print the table, on the first process alone."""
    if not is_first_process():
        return
    from .evaluation.tables import language_table

    print_table(language_table(results))


def main() -> None:
    """Entry point of the console script."""
    app()
