"""`python -m benchmarks.evidence`."""

import typer

from .command import main

typer.run(main)
