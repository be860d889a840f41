"""Progress bars on standard error."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress, ProgressColumn

from .terminal import is_first_process


def progress_bar(*columns: str | ProgressColumn, shown: bool, transient: bool = False) -> Progress:
    """Return rich's progress display on standard error, where standard output may be a command's result.

    Args:
        *columns: what a line of it shows; default: rich's own choice.
        shown: whether to show it at all; of several processes, only the first one does.
        transient: remove it when it ends, and show nothing where standard error is no terminal.
    """
    disable = not (shown and is_first_process()) or (transient and not on_terminal())
    return Progress(*columns, console=Console(stderr=True), disable=disable, transient=transient)


def on_terminal() -> bool:
    """Return whether standard error is a terminal."""
    return Console(stderr=True).is_terminal
