"""`dlfa predict`."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..runs.run_config import EVAL_BATCH_SIZE
from .options import EvalBatchSize, MaxLength, Quiet, output_path
from .saved_runs import TaskName, load_saved_run


def predict(
    model_dir: Annotated[Path, typer.Argument(help="Output directory of `dlfa train`.")],
    input_file: Annotated[str, typer.Option("--input", help="File to read; - for standard input.")],
    output: Annotated[Path | None, output_path("File to write; default: standard output.")] = None,
    input_format: Annotated[
        Literal["auto", "text", "tokens"],
        typer.Option(
            help="Tagging: text (one sentence per line) or tokens (one token per line); auto decides by the file."
        ),
    ] = "auto",
    task: TaskName = None,
    max_length: MaxLength = None,
    batch_size: EvalBatchSize = EVAL_BATCH_SIZE,
    quiet: Quiet = False,
) -> None:
    """Label new text with a saved model.

    Output: token<TAB>tag lines (tagging), the input's columns with the predicted label as the last one (sentence
    pairs), or JSON from question id to answer (question answering).
    """
    from ..processes import check_alone

    check_alone("dlfa predict is one process")
    if output is None and sys.stdout is None:
        raise ValueError("standard output is closed; give --output")
    run = load_saved_run(model_dir, task, max_length)
    from ..data.lines import STANDARD_INPUT
    from ..evaluation.prediction import predict as predict_examples
    from ..evaluation.prediction import read_input
    from ..files import atomic
    from ..runs.output_paths import check_file
    from ..tasks.layout import data_files

    source = STANDARD_INPUT if input_file == "-" else Path(input_file)
    examples = read_input(run.task, source, input_format)
    if output is not None:
        # Gold labels are also token<TAB>tag lines, so the output could replace a data file.
        known = [] if run.config is None else data_files(run.task, run.config.data_dir)
        check_file(output, [source, *known])
    # A pipe may end in a program that prints to the same terminal, as head and less do, where a bar would be amid it.
    progress = not quiet and (output is not None or stat.S_ISREG(os.fstat(1).st_mode))
    with contextlib.closing(predict_examples(run, examples, batch_size, progress=progress)) as texts:
        parts = (text.encode("utf-8") for text in texts)
        if output is not None:
            atomic.write_parts(output, parts)
            return
        for part in parts:  # UTF-8 as in files, independent of the terminal's encoding
            sys.stdout.buffer.write(part)
            sys.stdout.flush()
