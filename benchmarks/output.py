"""Rows of a measurement, to the terminal and to a JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from dlfa.files.atomic import write_text

# The width of a table in characters without a terminal.
PLAIN_WIDTH = 180


def write_json(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows as a JSON list to `path`, which is replaced as a whole.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    lines = ",\n".join(json.dumps(row) for row in rows)
    write_text(path, f"[\n{lines}\n]\n")


def write_rows(path: Path, header: dict[str, Any], rows: Sequence[dict[str, Any]]) -> None:
    """Write {"header": header, "rows": rows} as JSON, one row a line, to `path`, which is replaced as a whole.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    lines = ",".join(f"\n{json.dumps(row)}" for row in rows)
    write_text(path, f'{{"header": {json.dumps(header)},\n"rows": [{lines}]}}\n')


def print_table(title: str, columns: Sequence[str], rows: Iterable[tuple[Sequence[object], bool]]) -> None:
    """Print rows of cells; a row whose second entry is true is highlighted."""
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for cells, stands_out in rows:
        table.add_row(*map(str, cells), style="bold red" if stands_out else None)
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    console.print(table)
