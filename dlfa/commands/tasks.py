"""`dlfa tasks`."""

from __future__ import annotations

from ..terminal import print_table


def tasks() -> None:
    """List tasks and their defaults.

    Languages, metric, source of the data and default hyper-parameters.
    """
    from ..evaluation.tables import task_table
    from ..tasks import TASKS

    print_table(task_table(TASKS.values()))
