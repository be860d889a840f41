"""`dlfa quickstart`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terminal import quiet_libraries
from .options import output_path


def quickstart(
    output_dir: Annotated[Path, output_path("Folder for everything that is written.")] = Path("runs/quickstart"),
    seed: Annotated[int, typer.Option(help="Seed of corpus, initialisation and training.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the quickstart in --output-dir.")] = False,
) -> None:
    """Try DLFA offline, in two minutes on a CPU.

    Makes up languages, trains a tiny encoder on them, and compares its last layer with DLFA.
    """
    quiet_libraries()
    from ..quickstart import run

    run(output_dir, seed, overwrite=overwrite)
