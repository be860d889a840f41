"""What every command shares: one line for bad input, quiet libraries, tables of one width."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from rich.table import Table


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Bad input, or a file that cannot be read or written, ends the command with one line on standard error, status 2.

    A model whose scores are NaN does with status 1. A pipe that nobody reads any more ends it in silence, as it does
    other programs.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except FloatingPointError as error:
        fail(str(error), status=1)
    except (ValueError, TypeError, OSError) as error:
        fail(" ".join(str(error).split()), status=2)
    except Exception as error:
        if not _is_from_safetensors(error):
            raise
        fail(" ".join(str(error).split()), status=2)


def _is_from_safetensors(error: Exception) -> bool:
    """Whether that library, whose error for a full disk is no OSError, raised it; asked without importing it."""
    library = sys.modules.get("safetensors")
    return library is not None and isinstance(error, library.SafetensorError)


def is_first_process() -> bool:
    """Whether this process is the one of torchrun's that talks; alone it is.

    Asked of the environment, as accelerate, which `dlfa.processes` asks, takes seconds to import.
    """
    return int(os.environ.get("RANK", "0")) == 0


def fail(message: str, status: int) -> NoReturn:
    """End the command with `message`, said by the first process alone.

    Raises:
        typer.Exit: always, with `status`.
    """
    if is_first_process():
        typer.echo(f"dlfa: error: {message}", err=True)
    raise typer.Exit(status)


def print_table(table: Table) -> None:
    """Print to standard output, in a fixed width where that is no terminal."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 120).print(table)


def quiet_libraries() -> None:
    """Switch off the Hub's telemetry, and transformers' progress bars and all of its messages but errors."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
