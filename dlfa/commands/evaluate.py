"""`dlfa evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..runs.run_config import EVAL_BATCH_SIZE
from .options import (
    EvalBatchSize,
    MaxEvalExamples,
    MaxLength,
    Quiet,
    RunDataDir,
    RunLanguages,
    Split,
    output_path,
    split_list,
)
from .saved_runs import TaskName, load_saved_run, show_results


def evaluate(
    model_dir: Annotated[Path, typer.Argument(help="Output directory of `dlfa train`.")],
    data_dir: RunDataDir = None,
    task: TaskName = None,
    languages: RunLanguages = None,
    split: Split = "test",
    output: Annotated[Path | None, output_path("File for the results, in the format of results.json.")] = None,
    predictions: Annotated[Path | None, output_path("Folder for predictions, one file per language.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace prediction files in --predictions.")] = False,
    max_eval_examples: MaxEvalExamples = None,
    max_length: MaxLength = None,
    batch_size: EvalBatchSize = EVAL_BATCH_SIZE,
    quiet: Quiet = False,
) -> None:
    """Test a saved model again.

    On the run's own data the scores are those that training wrote.
    """
    run = load_saved_run(model_dir, task, max_length)
    from ..evaluation.evaluation_data import data_dir_of, evaluation_data, examples_of_each
    from ..evaluation.prediction_files import prediction_name, write_predictions
    from ..evaluation.results import summary
    from ..evaluation.saved_runs import recorded_by_run
    from ..files import atomic
    from ..runs.output_paths import check_file, check_predictions
    from ..tasks.layout import data_files

    config = run.config
    configs = [] if config is None else [config]
    data_dir = data_dir_of(configs, data_dir)
    wanted = None if languages is None else split_list("languages", languages)
    data = evaluation_data(
        run.task, configs, data_dir=data_dir, languages=wanted, split=split, max_eval_examples=max_eval_examples
    )
    if output is not None:
        check_file(output, data_files(run.task, data_dir))
    if predictions is not None:
        names = [prediction_name(run.task, language, split) for language in data]
        check_predictions(predictions, names, run.task, data_dir, overwrite=overwrite)
    evaluations = run.evaluate(data, batch_size, progress=not quiet)
    name, seed = (str(model_dir), None) if config is None else (config.model, config.seed)
    size = examples_of_each(configs, max_eval_examples)
    recorded = recorded_by_run(model_dir, config, max_length=run.max_length, max_eval_examples=size)
    results = summary(run.task, run.model, name, evaluations, seed=seed, split=split, autocast=run.autocast, **recorded)
    if predictions is not None:
        write_predictions(predictions, run.task, evaluations, split)
    if output is not None:
        atomic.write_json(output, results)
    show_results(results)
