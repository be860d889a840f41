"""Progress bars on standard error."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.progress import Progress, ProgressColumn, TaskID

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


def advance_by_share(bar: Progress, task: TaskID, start: int, size: int) -> Callable[[int, int], None]:
    """Return a function of (batches done, batches of all) that moves a bar between `start` and `start + size`."""
    return lambda done, of: bar.update(task, completed=start + size * done / of)


def on_terminal() -> bool:
    """Return whether standard error is a terminal."""
    return Console(stderr=True).is_terminal
