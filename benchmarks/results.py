"""Results files: one a suite, with a header on the source of its figures and one row a measurement.

    {"header": {...}, "rows": [{...}, ...], "skipped": [{...}, ...]}

Every row has the keys `ROW_KEYS`; a value that was not measured is null. Times are microseconds, sizes bytes.
`floor_us` and `of_floor` (time over floor) follow `benchmarks.floors`. `max_rel_error` is the largest error of the
pass's results against float64, in Euclidean norm. `saved_bytes` is what autograd saves for the backward, without
inputs, parameters and output. `peak_extra_bytes` is the pass's memory peak minus the bytes allocated before.
`launches` counts kernels. A pass's name ends in "-token0" for one token a sequence; a provider's name ends in "-packed"
for packed sequences, and in "+graph" if the call is replayed from a captured CUDA graph.

`skipped` lists the rows without a time, by their first keys, and the reason: a wrong result, an error, or no time left.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlfa.files.atomic import write_text

from .cases import Case

CASE_KEYS = ("suite", "pass", "shape", "squeeze_dim", "kernel_size", "fuse", "dtype", "fill", "provider")
MEASURED_KEYS = (
    "median_us", "p20_us", "p80_us", "floor_us", "of_floor", "max_rel_error", "saved_bytes", "peak_extra_bytes",
    "launches",
)  # fmt: skip
ROW_KEYS = CASE_KEYS + MEASURED_KEYS
# Each is a module of this package, with a `SUITE`, and writes a file of its name.
SUITES = ("memory", "step", "padding", "token", "schedule", "launch", "aif")


def case_keys(suite: str, pass_: str, case: Case, provider: str) -> dict[str, Any]:
    """Return the keys that identify a row."""
    return {
        "suite": suite,
        "pass": pass_ if case.token is None else f"{pass_}-token{case.token}",
        "shape": list(case.shape),
        "squeeze_dim": case.squeeze_dim,
        "kernel_size": case.kernel_size,
        "fuse": case.fuse,
        "dtype": case.dtype,
        "fill": case.fill,
        "provider": f"{provider}-packed" if case.packed else provider,
    }


def rows_of(rows: Iterable[dict[str, Any]], case: Case, pass_: str) -> list[dict[str, Any]]:
    """Return the rows of a case and pass, of all providers."""
    keys = case_keys("", pass_, case, "")
    return [row for row in rows if all(row[key] == keys[key] for key in CASE_KEYS[1:-1])]


@dataclass
class Results:
    """A results file in memory."""

    header: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)

    def add(self, keys: dict[str, Any], **measured: Any) -> dict[str, Any]:
        """Append a row; values that are not given were not measured.

        Raises:
            ValueError: a key is unknown or missing.
        """
        row = {**keys, **dict.fromkeys(MEASURED_KEYS), **measured}
        if tuple(row) != ROW_KEYS:
            raise ValueError(f"a row must have the keys {', '.join(ROW_KEYS)}, got {', '.join(row)}")
        self.rows.append(row)
        return row

    def skip(self, keys: dict[str, Any], reason: str) -> None:
        """Record why a row has no time."""
        self.skipped.append({**keys, "reason": reason})

    def save(self, path: Path) -> None:
        """Write to `path`, which is replaced as a whole, one row a line.

        Raises:
            OSError: the folder cannot be made or written to.
            ValueError: a NaN or an infinity, which JSON cannot represent.
        """

        def lines(rows: Sequence[dict[str, Any]]) -> str:
            return ",".join(f"\n{json.dumps(row, allow_nan=False)}" for row in rows)

        header = json.dumps(self.header, indent=1, allow_nan=False)
        text = f'{{"header": {header},\n"rows": [{lines(self.rows)}],\n"skipped": [{lines(self.skipped)}]}}\n'
        write_text(path, text)


def load(path: Path) -> Results:
    """Read a results file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a results file; the message names it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        results = Results(content["header"], content["rows"], content["skipped"])
        whole = isinstance(results.header, dict) and all(set(row) >= set(ROW_KEYS) for row in results.rows)
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise ValueError(f"{path}: must be a results file: a header, rows with {', '.join(ROW_KEYS)}, and skipped")
    return results


def load_folder(folder: Path) -> dict[str, Results]:
    """Return the results in a folder by suite.

    Raises:
        ValueError: a file is not a results file.
    """
    paths = {suite: folder / f"{suite}.json" for suite in SUITES}
    return {suite: load(path) for suite, path in paths.items() if path.is_file()}
