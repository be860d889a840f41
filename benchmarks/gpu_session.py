"""Test and measure the kernels on a borrowed GPU, by two commands with time limits that keep partial results.

    python -m benchmarks.gpu_session --part checks|suites --out DIR [--budget-seconds S]

"checks": the kernels' tests on CUDA tensors, and small shapes under compute-sanitizer. "suites": all kernels compiled
in parallel; DRAM traffic through Nsight Compute, as shipped and in groups of sequences that fill half of L2; then all
of `benchmarks.all`, whose table of targets is then complete. By default both take 12 minutes, including imports.

Each step has a time limit; unused time goes to later steps, and a failed step does not stop the others. The session
writes two files to DIR and keeps replacing them: PART.tar.gz with every result, plot and log, and PART.txt with the
steps' statuses and the ends of their logs. To keep the results, unpack the archives' `results/` into
benchmarks/results/GPU. Set BENCHMARK_COMMIT if the tree has no git history.

Exit status: 0; 1 if a step failed or exceeded its time; 2 without a GPU.
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
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from dlfa.files.atomic import temporary, write_text
from dlfa.terminal import one_line_errors

from .hardware import ROOT, choose_device
from .processes import GRACE_SECONDS, run_limited

# Seconds reserved for the last archive.
RESERVE_SECONDS = 8.0
# Seconds of a command before its own time limit starts: imports, and finding the GPU.
START_SECONDS = 10.0
# Lets a step stop its own command first, within this module's grace period, and pytest report its failures.
OUTER_GRACE_SECONDS = 2 * GRACE_SECONDS
TESTS_GRACE_SECONDS = 20.0
ARCHIVE_EVERY_SECONDS = 15.0
LOG_LINES = 40
# Makes the log complete even if the command is killed.
UNBUFFERED = {"PYTHONUNBUFFERED": "1"}
LOG_WIDTH = 180
BUDGET = "{seconds}"
KERNEL_TESTS = ROOT / "tests" / "dlfa_kernels"
# Tests of results come first, then graphs and synchronisation: compiling for all tests can take all of their time.
FIRST_TESTS = ("test_kernels.py", "test_operators.py")
# Tests of the kernels' package that run nothing on a GPU.
TESTS_WITHOUT_GPU = ("test_compiled.py", "test_distributed.py", "test_launches.py", "test_replays.py")
# After this many seconds pytest prints the traceback of a running test.
HANGING_SECONDS = 90


class Part(str, Enum):
    """The parts of a session."""

    CHECKS = "checks"
    SUITES = "suites"


# Of fifteen minutes, two go to a machine's start and some to the time between the commands.
PART_SECONDS = {Part.CHECKS: 220.0, Part.SUITES: 490.0}


@dataclass(frozen=True)
class Step:
    """One command of a session.

    Attributes:
        name: the name of its log.
        command: its arguments; "{seconds}" is replaced by its time limit.
        weight: its share of the time left to it and later steps.
        grace: seconds at the end of that share in which it must end after an interrupt.
    """

    name: str
    command: tuple[str, ...]
    weight: float
    grace: float = OUTER_GRACE_SECONDS


def kernel_tests(folder: Path = KERNEL_TESTS) -> tuple[str, ...]:
    """Return the command of the kernels' tests, one process a core, at most 16; each outcome is logged at once."""
    files = sorted(set(folder.glob("test_*.py")) - {folder / name for name in TESTS_WITHOUT_GPU})
    files.sort(key=lambda path: path.name not in FIRST_TESTS)
    command = [sys.executable, "-m", "pytest", *map(str, files), "-v", "--tb", "short", "-m", "not slow or gpu"]
    command += ["-p", "no:cacheprovider", "-o", f"faulthandler_timeout={HANGING_SECONDS}"]
    if importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(min(16, len(os.sched_getaffinity(0))))]  # a process needs gigabytes for CUDA and torch
    return tuple(command)


def steps(results: Path, part: Part) -> list[Step]:
    """Return the steps of a part, which write to `results`."""
    module = (sys.executable, "-m")
    out = ("--out", str(results))
    traffic = (*module, "benchmarks.ncu", *out, "--seconds", BUDGET)
    if part is Part.CHECKS:
        return [
            Step("tests", kernel_tests(), 3.0, TESTS_GRACE_SECONDS),
            Step("sanitizer", (*module, "benchmarks.sanitize", *out, "--seconds", BUDGET), 2.0),
        ]
    return [
        Step("compile", (*module, "benchmarks.precompile"), 1.2),
        Step("traffic", traffic, 1.4),
        Step("traffic of groups", (*traffic, "--l2-share", "0.5"), 1.4),
        Step("suites", (*module, "benchmarks.all", *out, "--budget-seconds", BUDGET), 10.0),
    ]


class Archive:
    """DIR/NAME.tar.gz and DIR/NAME.txt, kept up to date with a working folder."""

    def __init__(self, work: Path, out: Path, name: str) -> None:
        self.work, self.out, self.name = work, out, name
        self.lines: list[str] = []
        self._lock = threading.Lock()
        self._done = threading.Event()

    def write(self) -> None:
        """Rewrite both files."""
        with self._lock:
            self.out.mkdir(parents=True, exist_ok=True)
            whole = self.out / f"{self.name}.tar.gz"
            partial = temporary(whole)
            with tarfile.open(partial, "w:gz", compresslevel=3) as archive:
                for path in sorted(self.work.rglob("*")):
                    if path.is_file() and not path.name.startswith("."):  # a leading dot: it is being written
                        archive.add(path, path.relative_to(self.work))
            os.replace(partial, whole)
            write_text(self.out / f"{self.name}.txt", self.summary())

    def summary(self) -> str:
        """Return the steps so far, then the end of each log."""
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
            except OSError as error:  # a file that vanished meanwhile; the next round includes it
                typer.echo(f"archive: {error}", err=True)

    def close(self) -> None:
        """End `keep`, and write once more."""
        self._done.set()
        self.write()


def run_session(planned: Sequence[Step], work: Path, out: Path, seconds: float, name: str) -> dict[str, int | None]:
    """Run the steps one after another.

    Args:
        planned: the steps.
        work: a folder for logs; other files that the steps write below it are kept too.
        out: the folder of the archive and the summary.
        seconds: the time limit of all steps.
        name: the name of these two files.

    Returns:
        Exit statuses by step; None if it exceeded its time or no time was left.
    """
    end = time.monotonic() + seconds - RESERVE_SECONDS
    archive = Archive(work, out, name)
    keeper = threading.Thread(target=archive.keep, daemon=True)
    keeper.start()
    statuses: dict[str, int | None] = {}
    for index, step in enumerate(planned):
        remaining = end - time.monotonic()
        limit = remaining * step.weight / sum(later.weight for later in planned[index:])
        start = time.monotonic()
        allowed = limit - step.grace
        if allowed <= 1:
            statuses[step.name] = None
            archive.lines.append(f"{step.name}: no time left")
            continue
        command = [word.replace(BUDGET, f"{max(1.0, allowed - START_SECONDS):.0f}") for word in step.command]
        number = index + 1
        with (work / f"{number}-{step.name}.log").open("w", encoding="utf-8") as log:
            try:
                statuses[step.name] = run_limited(
                    command, allowed, cwd=ROOT, log=log, environment=UNBUFFERED, grace=step.grace
                )
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
    out: Annotated[Path, typer.Option(help="Folder of the archive and the summary.")],
    part: Annotated[Part, typer.Option(help="What to do.")],
    budget_seconds: Annotated[
        float | None, typer.Option(min=30, help="For all of it; by default 220 for checks, 490 for suites.")
    ] = None,
) -> None:
    """Tests, sanitizer, suites and hardware counters on a GPU, within a time limit."""
    with one_line_errors():
        choose_device("cuda")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        results = work / "results"
        results.mkdir()
        seconds = PART_SECONDS[part] if budget_seconds is None else budget_seconds
        statuses = run_session(steps(results, part), work, out, seconds, part.value)
    raise typer.Exit(1 if any(status != 0 for status in statuses.values()) else 0)


if __name__ == "__main__":
    typer.run(command)
