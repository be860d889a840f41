"""`dlfa quickstart`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import one_line_errors, quiet_libraries
from .options import output_path


def quickstart(
    output_dir: Annotated[Path, output_path("Where everything goes.")] = Path("runs/quickstart"),
    seed: Annotated[int, typer.Option(help="Of corpus, initialisation and training.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the quickstart in --output-dir.")] = False,
) -> None:
    """Offline, on the CPU, in under two minutes: made-up languages, a tiny encoder, the last layer against DLFA."""
    with one_line_errors():
        quiet_libraries()
        from ..quickstart import run

        run(output_dir, seed, overwrite=overwrite)
