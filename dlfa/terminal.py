"""Shared terminal functions: one-line errors, quiet libraries, and tables of fixed width."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from rich.table import Table


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """End the command with one line on standard error and status 2 for invalid input or file errors.

    NaN scores of a model and a lack of memory end it with status 1. A closed pipe ends it silently, as usual for
    programs.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except FloatingPointError as error:
        fail(str(error), status=1)
    except (ValueError, TypeError, OSError) as error:
        fail(" ".join(str(error).split()), status=2)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not re.search("allocate memory|out of memory", str(error)):
            raise
        fail(f"not enough memory: {str(error).strip().partition(chr(10))[0]}", status=1)
    except Exception as error:
        if not _is_from_safetensors(error):
            raise
        fail(" ".join(str(error).split()), status=2)


def _is_from_safetensors(error: Exception) -> bool:
    """Return whether safetensors, whose error for a full disk is not an OSError, raised it, without importing it."""
    library = sys.modules.get("safetensors")
    return library is not None and isinstance(error, library.SafetensorError)


def is_first_process() -> bool:
    """Return whether this is the process of torchrun that prints; a single process is.

    It reads the environment, because accelerate, which `dlfa.processes` uses, takes seconds to import.
    """
    rank = os.environ.get("RANK", "0")
    return not rank.isdigit() or int(rank) == 0


def fail(message: str, status: int) -> NoReturn:
    """End the command with `message`, printed by the first process only.

    Raises:
        typer.Exit: always, with `status`.
    """
    if is_first_process():
        typer.echo(f"dlfa: error: {message}", err=True)
    raise typer.Exit(status)


def print_table(table: Table) -> None:
    """Print to standard output, with a fixed width if it is not a terminal."""
    from rich.console import Console

    terminal = sys.stdout is not None and sys.stdout.isatty()  # None: closed, as by >&-
    Console(width=None if terminal else 120).print(table)


def quiet_libraries() -> None:
    """Disable the Hub's telemetry, and transformers' progress bars and all of its messages except errors."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
