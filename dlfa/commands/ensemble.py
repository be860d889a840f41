"""`dlfa ensemble`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..runs.run_config import EVAL_BATCH_SIZE
from ..terminal import print_table, quiet_libraries
from .options import EvalBatchSize, MaxEvalExamples, Quiet, RunDataDir, RunLanguages, Split, output_path, split_list


def ensemble(
    runs: Annotated[list[Path], typer.Argument(help="Output directories of `dlfa train`, of one task.")],
    output_dir: Annotated[Path, output_path("Folder for results and predictions.")],
    data_dir: RunDataDir = None,
    languages: RunLanguages = None,
    vote: Annotated[bool, typer.Option("--vote", help="Take a majority vote instead of the mean probability.")] = False,
    split: Split = "test",
    max_eval_examples: MaxEvalExamples = None,
    batch_size: EvalBatchSize = EVAL_BATCH_SIZE,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an ensemble in --output-dir.")] = False,
    quiet: Quiet = False,
) -> None:
    """Combine several saved runs, and score them as one."""
    wanted = None if languages is None else split_list("languages", languages)
    quiet_libraries()
    from ..evaluation.ensemble import EnsembleConfig, run_ensemble
    from ..evaluation.tables import language_table

    config = EnsembleConfig(tuple(runs), output_dir, data_dir, wanted, vote, split, max_eval_examples, batch_size)
    print_table(language_table(run_ensemble(config, overwrite=overwrite, progress=not quiet)))
