"""Common code of all suites: options, checks of providers, time limits, table, results file and plot.

    python -m benchmarks.SUITE [--device cuda|cpu] [--out DIR] [--budget-seconds S] [--provider NAME ...] [--full]

Exit status: 0; 1 if a result of ours was wrong, failed or took too long; 2 for bad input, such as a GPU that does not
exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch import Tensor

from dlfa.error_lines import first_line
from dlfa.terminal import one_line_errors

from . import plots, providers
from .budget import Budget, OutOfTime, time_limit
from .cases import DTYPES, Case, Shape, shapes
from .errors import relative_errors
from .floors import Ceilings, floor_us
from .hardware import ROOT, choose_device, folder_name, header, measure_ceilings
from .output import print_table
from .problems import Problem, beyond_limits, exact, limit, make_problem
from .results import Results, case_keys
from .timing import Stopwatch, Timing

# Estimated seconds of a provider for its first case, and the most it may take.
GUESSES = {
    providers.COMPILE: 15.0,
    providers.COMPILE_GRAPHS: 15.0,
    **dict.fromkeys(providers.TUNED, 90.0),
}
GUESS = 3.0
# The estimate for a tuned mode after the other one: the same products are not tuned again.
TUNED_ALREADY_GUESS = 30.0
MOST_SECONDS = 170.0
GRACE_SECONDS = 5.0

DEVICE_HELP = "cuda, or cpu for small sizes that say nothing about a GPU."

COLUMNS = (
    "pass", "shape", "H", "k", "fuse", "dtype", "fill", "provider", "median us", "p20", "p80", "floor us", "of floor",
    "error", "saved MB", "peak MB", "launches",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """One case, its providers, and its passes."""

    case: Case
    providers: tuple[str, ...]
    passes: tuple[str, ...]


class Session:
    """One run of a suite: device, budget, ceilings, and the results so far, which are saved after each provider."""

    def __init__(
        self,
        suite: str,
        device: torch.device,
        budget: Budget,
        path: Path,
        command: str,
        only: tuple[str, ...] = (),
        full: bool = False,
    ) -> None:
        self.suite, self.device, self.budget, self.path, self.only, self.full = suite, device, budget, path, only, full
        if device.type == "cpu":
            torch.set_num_threads(1)  # more are no faster at small sizes, but vary more
        self.stopwatch = Stopwatch(device)
        self.ceilings: Ceilings = measure_ceilings(device, self.stopwatch)
        self.results = Results(header(device, command, self.ceilings))
        self.console = Console(stderr=True, soft_wrap=True)
        self.ours_failed = False
        self.device_lost = False

    def save(self) -> None:
        """Write the results so far."""
        self.results.save(self.path)

    def shapes(self, of_gpu: tuple[Shape, ...]) -> tuple[Shape, ...]:
        """Return the sizes to measure: on a GPU `of_gpu`, or all with `--full`; on a CPU the CPU's."""
        return of_gpu if self.device.type == "cuda" and not self.full else shapes(self.device)

    def wanted(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return those of these providers that were requested; all if there was no request."""
        return tuple(name for name in names if not self.only or name in self.only)

    def skip(self, keys: list[dict[str, Any]], reason: str) -> None:
        """Record rows without a time, and the reason."""
        for key in keys:
            self.results.skip(key, reason)
        if not keys:
            return
        where = plots.size(keys[0])
        self.console.print(f"no time for {keys[0]['provider']} at {where}: {reason}", markup=False, highlight=False)

    @contextmanager
    def attempt(self, provider: str, keys: list[dict[str, Any]]) -> Iterator[bool]:
        """Run a provider with its time limit; record the reason for `keys` that got no row.

        Yields:
            Whether there is time for it.
        """
        if self.device_lost:
            self.skip(keys, "the GPU no longer answers")
            yield False
            return
        if not self.budget.allows(provider, self._guess(provider)):
            self.skip(keys, "no time left")
            yield False
            return
        reason = None
        try:
            with self.budget.spend(provider), time_limit(min(MOST_SECONDS, self.budget.remaining + GRACE_SECONDS)):
                yield True
        except OutOfTime:
            reason = "took longer than its time"
        except Exception as error:
            reason = f"{type(error).__name__}: {first_line(error)[:200]}"
        finally:
            if provider.startswith(providers.COMPILE):
                torch.compiler.reset()  # else it stops compiling a module after too many shapes
        if reason is None:
            return
        self.ours_failed |= providers.is_ours(provider)
        if self.device.type == "cuda":
            try:
                torch.cuda.synchronize(self.device)
                torch.cuda.empty_cache()
            except RuntimeError:
                self.device_lost = True
        known = [*self.results.rows, *self.results.skipped]
        self.skip([key for key in keys if not any(key.items() <= row.items() for row in known)], reason)

    def _guess(self, provider: str) -> float:
        if providers.is_tuned(provider) and any(self.budget.knows(name) for name in providers.TUNED):
            return TUNED_ALREADY_GUESS
        return GUESSES.get(provider.removesuffix(providers.GRAPH), GUESS)

    def right(self, keys: dict[str, Any], errors: dict[str, float]) -> bool:
        """Return whether results are close to float64; wrong ones are recorded with their error and get no time."""
        dtype, ours = DTYPES[keys["dtype"]], providers.is_ours(keys["provider"])
        wrong = beyond_limits(errors, dtype, ours)
        if not wrong:
            return True
        name = max(wrong, key=lambda name: wrong[name])
        finite = wrong[name] != float("inf")
        self.results.add(keys, max_rel_error=round_error(wrong[name]) if finite else None)
        self.skip([keys], f"wrong: {name} is off by {wrong[name]:.1e}, allowed {limit(name, dtype, ours):.0e}")
        self.ours_failed |= ours
        return False

    def add(self, keys: dict[str, Any], case: Case, pass_: str, timing: Timing | None, **measured: Any) -> None:
        """Append a row; the floor and values derived from the time are filled in."""
        floor = floor_us(case, pass_, self.ceilings)
        measured["floor_us"] = float(f"{floor:.6g}")  # not decimals: at a CPU's sizes it is some hundredths
        if timing is not None:
            measured |= {name: round(value, 3) for name, value in timing._asdict().items()}
            measured["of_floor"] = round(timing.median_us / floor, 4)
        self.results.add(keys, **measured)


@dataclass(frozen=True)
class Work:
    """The work for one row: a provider that was checked, bound to a problem, and a pass."""

    keys: dict[str, Any]
    problem: Problem
    expected: dict[str, Tensor]
    provider: str
    call: providers.Call
    pass_: str


# Returns a row's values by key, with "timing" for a `Timing`; None if `Session.right` is False.
Measure = Callable[[Session, Work], dict[str, Any] | None]


@dataclass(frozen=True)
class Suite:
    """A suite: its name, title, function, bars, default seconds, and names of providers."""

    name: str
    title: str
    run: Callable[[Session], None]
    bars: plots.Bars
    seconds: float
    providers: tuple[str, ...] = providers.PROVIDERS


def run_tasks(session: Session, tasks: Iterable[Task], measure: Measure) -> None:
    """Check every provider of every task against float64 and, if it is correct, measure its passes.

    Args:
        session: receives the results.
        tasks: in order of importance.
        measure: called for each row.
    """
    for task in tasks:
        names = session.wanted(task.providers)
        keys = {name: [case_keys(session.suite, pass_, task.case, name) for pass_ in task.passes] for name in names}
        if not names:
            continue
        session.console.print(
            f"{task.case}: {', '.join(names)} ({session.budget.remaining:.0f} s left)", markup=False, highlight=False
        )
        prepared: tuple[Problem, dict[str, Tensor]] | None = None
        with session.attempt("float64", [key for name in names for key in keys[name]]) as go:
            if go:
                problem = make_problem(task.case, session.device)
                prepared = problem, exact(problem)
        for name in names if prepared else ():
            with session.attempt(name, keys[name]) as go:
                if go and prepared:
                    _run_provider(session, task, *prepared, name, keys[name], measure)
            session.save()  # the next one may hang, and be killed with this process


def _run_provider(
    session: Session,
    task: Task,
    problem: Problem,
    expected: dict[str, Tensor],
    provider: str,
    keys: list[dict[str, Any]],
    measure: Measure,
) -> None:
    call = providers.build(provider, problem)
    torch._dynamo.utils.counters["inductor"].pop("cudagraph_skips", None)
    errors = check(call, problem, expected, task.passes)
    if provider in providers.WITH_GRAPHS and torch._dynamo.utils.counters["inductor"]["cudagraph_skips"]:
        raise RuntimeError("torch.compile made no CUDA graph")  # its time would stand under the name of graphs
    for pass_, key in zip(task.passes, keys, strict=True):
        if not session.right(key, errors[pass_]):
            continue
        measured = measure(session, Work(key, problem, expected, provider, call, pass_))
        if measured is not None:
            error = round_error(max(errors[pass_].values()))
            session.add(key, task.case, pass_, measured.pop("timing", None), max_rel_error=error, **measured)


def check(
    call: providers.Call, problem: Problem, expected: dict[str, Tensor], passes: Iterable[str]
) -> dict[str, dict[str, float]]:
    """Return the relative errors of each pass's results by name: z forward, gradients backward, all for both.

    The third calls are checked, when graphs have been recorded and are replayed. The first backward runs in this
    thread: torch.compile compiles it then, and `time_limit` could not stop that in autograd's own thread, for which
    this one would wait outside Python.

    Args:
        call: the provider, bound to `problem`.
        problem: the tensors.
        expected: the result of `benchmarks.problems.exact`.
        passes: any of `PASSES`.
    """
    errors: dict[str, dict[str, float]] = {}
    if "forward" in passes:
        for _ in range(3):
            z = providers.inference(call)
        errors["forward"] = relative_errors({"z": z}, expected)
    if "backward" in passes or "both" in passes:
        for attempt in range(3):
            with torch.autograd.set_multithreading_enabled(attempt > 0):
                results = providers.results(call, problem)
        errors["both"] = relative_errors(results, expected)
        errors["backward"] = {name: error for name, error in errors["both"].items() if name != "z"}
    return errors


def device_time(session: Session, work: Work) -> dict[str, Any]:
    """Measure a pass's device time: forward in inference, backward after an untimed forward, or a training step."""
    stopwatch, call, problem = session.stopwatch, work.call, work.problem
    if work.pass_ == "forward":
        timing = stopwatch.device_time(lambda _: providers.inference(call), lambda: None)
    elif work.pass_ == "backward":
        timing = stopwatch.device_time(lambda z: providers.gradients(z, problem), call)
    else:
        timing = stopwatch.device_time(lambda _: providers.gradients(call(), problem), lambda: None)
    return {"timing": timing}


def round_error(error: float) -> float:
    """Round to three digits."""
    return float(f"{error:.3g}")


def main(suite: Suite) -> None:
    """Run the command line of a suite."""

    def command(
        device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "cuda",
        out: Annotated[
            Path | None, typer.Option(help="Folder of the results file and plot; default: benchmarks/results/GPU.")
        ] = None,
        budget_seconds: Annotated[float, typer.Option(min=1, help="Rows that do not fit are skipped.")] = suite.seconds,
        provider: Annotated[
            list[str] | None, typer.Option(help="Only this one, such as ours, eager or compile; repeatable.")
        ] = None,
        full: Annotated[bool, typer.Option("--full", help="All sizes and settings; give it time.")] = False,
    ) -> None:
        with one_line_errors():
            chosen = choose_device(device)
            for name in provider or ():
                if name not in suite.providers:
                    raise ValueError(f"--provider must be one of {', '.join(suite.providers)}, got {name!r}")
        folder = out or ROOT / "benchmarks" / "results" / folder_name(chosen)
        words = [f"python -m benchmarks.{suite.name}"]
        words += [f"--device {device}"] if device != "cuda" else []
        words += [f"--budget-seconds {budget_seconds:g}"] if budget_seconds != suite.seconds else []
        words += [f"--provider {name}" for name in provider or ()] + (["--full"] if full else [])
        session = Session(
            suite.name, chosen, Budget(budget_seconds), folder / f"{suite.name}.json", " ".join(words),
            tuple(provider or ()), full,
        )  # fmt: skip
        try:
            suite.run(session)
        finally:
            session.save()
        print_results(suite.title, session.results)
        plots.draw(suite.name, suite.bars, session.results, folder)
        raise typer.Exit(1 if session.ours_failed else 0)

    command.__doc__ = suite.title
    typer.run(command)


def print_results(title: str, results: Results) -> None:
    """Print the table of a results file, with wrong results highlighted."""
    where = results.header["gpu"] or "CPU"
    ceilings = f"copy {results.header['copy_tb_s']} TB/s, bfloat16 {results.header['matmul_tflop_s']} TFLOP/s"
    print_table(f"{title}: {where}, {ceilings}", COLUMNS, ((_cells(row), _wrong(row)) for row in results.rows))
    if any(row["provider"] in providers.WITH_GRAPHS and row["pass"] != "forward" for row in results.rows):
        Console(soft_wrap=True).print(providers.GRAPHS_NOTE, highlight=False)
    if results.skipped:
        reasons: dict[str, int] = {}
        for row in results.skipped:
            reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
        listed = "; ".join(f"{count} x {reason}" for reason, count in reasons.items())
        Console(soft_wrap=True).print(f"{len(results.skipped)} rows without a time: {listed}", highlight=False)


def _wrong(row: dict[str, Any]) -> bool:
    return all(row[name] is None for name in ("median_us", "saved_bytes", "peak_extra_bytes"))


def _cells(row: dict[str, Any]) -> list[str]:
    def number(value: float | None, digits: int = 1, unit: float = 1.0) -> str:
        return "" if value is None else f"{value / unit:.{digits}f}"

    error = "" if row["max_rel_error"] is None else f"{row['max_rel_error']:.1e}"
    return [
        row["pass"], plots.size(row), str(row["squeeze_dim"]), str(row["kernel_size"]), row["fuse"],
        row["dtype"], f"{row['fill']:g}", row["provider"], number(row["median_us"]), number(row["p20_us"]),
        number(row["p80_us"]), number(row["floor_us"]), number(row["of_floor"], 2), error,
        number(row["saved_bytes"], 2, 1e6), number(row["peak_extra_bytes"], 2, 1e6),
        "" if row["launches"] is None else str(row["launches"]),
    ]  # fmt: skip
