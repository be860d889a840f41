"""Rows of a measurement, to the terminal and to a JSON file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

# Columns of text that a table takes where no terminal says how wide it is.
PLAIN_WIDTH = 180


def write_json(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows as a JSON list to a temporary name beside `path`, then rename it.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    lines = ",\n".join(json.dumps(row) for row in rows)
    temporary.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    os.replace(temporary, path)


def print_table(title: str, columns: Sequence[str], rows: Iterable[tuple[Sequence[object], bool]]) -> None:
    """Print rows of cells; a row whose second entry is true stands out."""
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for cells, stands_out in rows:
        table.add_row(*map(str, cells), style="bold red" if stands_out else None)
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    console.print(table)
