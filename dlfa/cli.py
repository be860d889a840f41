"""The command line, `dlfa`."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from .commands.analyze import analyze
from .commands.ensemble import ensemble
from .commands.evaluate import evaluate
from .commands.predict import predict
from .commands.quickstart import quickstart
from .commands.report import report
from .commands.sweep import sweep
from .commands.tasks import tasks
from .commands.train import train
from .terminal import one_line_errors

app = typer.Typer(
    name="dlfa",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (quickstart, tasks, train, evaluate, predict, ensemble, sweep, report, analyze):
    app.command()(one_line_errors()(command))


def _print_version(wanted: bool) -> None:
    if wanted:
        from dlfa_kernels import __version__

        typer.echo(f"dlfa {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Fuse a lower layer of a multilingual encoder with its last one, for zero-shot cross-lingual transfer."""


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a character that the terminal lacks costs no results
            stream.reconfigure(errors="replace")
    try:
        app()
    except OSError as error:  # of help or version; a command's own is told by it
        sys.exit(f"dlfa: error: {error}")
