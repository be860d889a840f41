"""The command line, `dlfa`."""

from __future__ import annotations

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

app = typer.Typer(
    name="dlfa",
    help="Fuse a lower layer of a multilingual encoder with its last one, for zero-shot cross-lingual transfer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (train, evaluate, predict, tasks, quickstart, analyze, ensemble, report, sweep):
    app.command()(command)


def main() -> None:
    """Entry point of the console script."""
    app()
