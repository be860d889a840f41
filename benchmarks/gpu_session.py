"""All that wants a GPU, in one command that is over in time and keeps what it has: for machines lent by the minute.

    python -m benchmarks.gpu_session --out DIR [--budget-seconds S]

In order: the kernels' tests on CUDA tensors, small shapes below compute-sanitizer, every suite of `benchmarks.all`, and
DRAM traffic through Nsight Compute, as shipped and in groups of sequences that fill half of L2. Each step has a time
limit; what one leaves over goes to those after it, and none stops the others. DIR gets two files, replaced as a whole
while the session goes on: `session.tar.gz` with every result, plot and log, and `summary.txt` with the steps' statuses
and the ends of their logs. To keep the results, unpack the archive's `results/` into benchmarks/results/GPU. Set
BENCHMARK_COMMIT where the tree has come without its history.

Exit status: 0; 1 where a step failed or ran over its time; 2 without a GPU.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from .hardware import ROOT, choose_device
from .processes import run_limited
from .results import write_text

DEFAULT_SECONDS = 540.0
# Kept for the last archive.
RESERVE_SECONDS = 8.0
ARCHIVE_EVERY_SECONDS = 15.0
LOG_LINES = 40
LOG_WIDTH = 180
TEST_WORKERS = 8
BUDGET = "{seconds}"


@dataclass(frozen=True)
class Step:
    """A command, its share of the time left to it and the steps after it; "{seconds}" in it becomes its limit."""

    name: str
    command: tuple[str, ...]
    weight: float


def steps(results: Path) -> list[Step]:
    """The session's steps, which write to `results`."""
    python = sys.executable
    tests = [python, "-m", "pytest", "tests/dlfa_kernels", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    if importlib.util.find_spec("xdist") is not None:
        tests += ["-n", str(TEST_WORKERS)]
    out = ("--out", str(results))
    tools = ("--tool", "memcheck", "--tool", "racecheck")
    return [
        Step("tests", tuple(tests), 3.0),
        Step("sanitizer", (python, "-m", "benchmarks.sanitize", *out, *tools, "--seconds", "60"), 1.5),
        Step("suites", (python, "-m", "benchmarks.all", *out, "--budget-seconds", BUDGET), 5.0),
        Step("traffic", (python, "-m", "benchmarks.ncu", *out, "--seconds", BUDGET), 1.0),
        Step(
            "traffic of groups", (python, "-m", "benchmarks.ncu", *out, "--seconds", BUDGET, "--l2-share", "0.5"), 0.5
        ),
    ]


class Archive:
    """Keeps DIR/session.tar.gz and DIR/summary.txt up to date with a working folder."""

    def __init__(self, work: Path, out: Path) -> None:
        self.work, self.out = work, out
        self.lines: list[str] = []
        self._lock = threading.Lock()
        self._done = threading.Event()

    def write(self) -> None:
        """Write both files anew."""
        with self._lock:
            self.out.mkdir(parents=True, exist_ok=True)
            temporary = self.out / f".{os.getpid()}-session.tar.gz"
            with tarfile.open(temporary, "w:gz", compresslevel=3) as archive:
                for path in sorted(self.work.rglob("*")):
                    if path.is_file() and not path.name.startswith("."):  # else it is being written
                        archive.add(path, path.relative_to(self.work))
            os.replace(temporary, self.out / "session.tar.gz")
            write_text(self.out / "summary.txt", self.summary())

    def summary(self) -> str:
        """The steps so far, then the end of each log."""
        text = [*self.lines, ""]
        for path in sorted(self.work.glob("*.log")):
            log = path.read_text(encoding="utf-8", errors="replace").splitlines()
            kept = [line[:LOG_WIDTH].rstrip() for line in log if line.strip()][-LOG_LINES:]
            text += [f"--- {path.stem}", *kept]
        return "\n".join(text) + "\n"

    def keep(self) -> None:
        """Write every few seconds until `close`; for a thread."""
        while not self._done.wait(ARCHIVE_EVERY_SECONDS):
            try:
                self.write()
            except OSError as error:  # a file that vanished meanwhile; the next round has it
                typer.echo(f"archive: {error}", err=True)

    def close(self) -> None:
        """End `keep`, and write once more."""
        self._done.set()
        self.write()


def run_session(planned: Sequence[Step], work: Path, out: Path, seconds: float) -> dict[str, int | None]:
    """Run the steps one after the other.

    Args:
        planned: the steps.
        work: a folder for logs; what the steps write below it is kept too.
        out: of the archive and the summary.
        seconds: for all steps.

    Returns:
        Exit statuses by step, None for one that ran over its time or found none left.
    """
    end = time.monotonic() + seconds - RESERVE_SECONDS
    archive = Archive(work, out)
    keeper = threading.Thread(target=archive.keep, daemon=True)
    keeper.start()
    statuses: dict[str, int | None] = {}
    for index, step in enumerate(planned):
        remaining = end - time.monotonic()
        limit = remaining * step.weight / sum(later.weight for later in planned[index:])
        start = time.monotonic()
        if limit <= 1:
            statuses[step.name] = None
            archive.lines.append(f"{step.name}: no time left")
            continue
        command = [word.replace(BUDGET, f"{max(1.0, limit - 2):.0f}") for word in step.command]
        number = index + 1
        with (work / f"{number}-{step.name}.log").open("w", encoding="utf-8") as log:
            try:
                statuses[step.name] = run_limited(command, limit, cwd=ROOT, log=log)
                outcome = f"exit status {statuses[step.name]}"
            except OSError as error:
                statuses[step.name], outcome = 127, str(error)
        if statuses[step.name] is None:
            outcome = "ran over its time"
        line = f"{step.name}: {outcome}, {time.monotonic() - start:.0f} s of {limit:.0f} s"
        typer.echo(line)
        archive.lines.append(line)
        archive.write()
    archive.close()
    keeper.join()
    typer.echo(archive.summary())
    return statuses


def command(
    out: Annotated[Path, typer.Option(help="Folder of session.tar.gz and summary.txt.")],
    budget_seconds: Annotated[float, typer.Option(min=30, help="For the whole session.")] = DEFAULT_SECONDS,
) -> None:
    """Tests, sanitizer, suites and hardware counters on a GPU, within a time limit."""
    try:
        choose_device("cuda")
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        results = work / "results"
        results.mkdir()
        statuses = run_session(steps(results), work, out, budget_seconds)
    raise typer.Exit(1 if any(status != 0 for status in statuses.values()) else 0)


if __name__ == "__main__":
    typer.run(command)
