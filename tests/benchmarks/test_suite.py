"""What all suites do: checks before times, rows, errors, time limits, and what is measured first."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="triton is there on Linux only")

from suite_cases import CEILINGS, CPU, SMALL, TASK, never, session

from benchmarks import aif, cases, launch, memory, padding, precompile, problems, providers, suite, targets, token
from benchmarks import all as all_suites
from benchmarks.floors import floor_us
from benchmarks.results import ROW_KEYS, case_keys, load
from benchmarks.timing import Timing

pytestmark = pytest.mark.usefixtures("known_ceilings")


def test_what_targets_need_is_measured_first(tmp_path: Path) -> None:
    running = session(tmp_path)
    running.device = torch.device("cuda")
    order = [(task.case, name) for task in aif.tasks(running) for name in task.providers]
    assert len(order) == len(set(order))
    base, tuned = cases.core_case(cases.BASE_SHAPE), providers.COMPILE_TUNED
    assert order[:3] == [(base, name) for name in ("ours", "eager", "compile")]
    needed = {(cases.core_case(shape), name) for shape in targets.LARGE for name in ("ours", "eager", "compile")}
    assert max(map(order.index, needed)) < len(needed) + 2  # but for ours and eager at the small size
    assert next(name for _, name in order if name not in ("ours", "eager", "compile")) == tuned
    assert order.index((base, tuned)) < min(order.index((case, "ours")) for case in cases.variations(base.shape))
    (task,) = launch.tasks(running)
    graphs = ["ours+graph", "eager+graph", "compile+graph", "compile-reduce-overhead", "compile-max-autotune"]
    assert list(task.providers[:8]) == ["ours", "eager", "compile", *graphs]
    fills = [(task.case.fill, task.providers, task.case.packed) for task in padding.tasks(running)]
    assert fills[:9] == [(1.0, ("ours",), False), (0.3, ("ours",), False), (0.3, ("ours",), True)] * 3
    assert all(task.providers == ("ours",) for task in list(token.tasks(running))[:6])
    assert all(task.providers == ("ours", "eager") for task in list(memory.tasks(running))[: len(cases.SHAPES)])
    for suite_ in (padding, token, memory):
        rows = [(task.case, name) for task in suite_.tasks(running) for name in task.providers]
        assert len(rows) == len(set(rows))


def test_kernels_of_what_targets_need_are_compiled_before(tmp_path: Path) -> None:
    def code(case: cases.Case) -> cases.Case:
        return replace(case, shape=(1, 1, case.shape[-1]), fill=1.0)

    running = session(tmp_path)
    running.device = torch.device("cuda")
    compiled = {*map(code, precompile.cases())}
    for name in all_suites.WEIGHTS.keys() - {"aif", "step"}:  # step is not made of tasks
        tasks = import_module(f"benchmarks.{name}").tasks(running)
        assert {code(task.case) for task in tasks if "ours" in task.providers} <= compiled, name
    assert {*cases.variations(cases.BASE_SHAPE), *map(cases.core_case, cases.SHAPES)} <= {*precompile.cases()}


@pytest.mark.parametrize(
    ("passes", "names"),
    [
        (("forward",), {"forward": {"z"}}),
        (("backward", "both"), {"backward": {*problems.GRADIENTS}, "both": {"z", *problems.GRADIENTS}}),
    ],
)
def test_what_a_pass_is_checked_by(passes: tuple[str, ...], names: dict[str, set[str]]) -> None:
    problem = problems.make_problem(SMALL, CPU)
    errors = suite.check(providers.build(providers.OURS_EAGER, problem), problem, problems.exact(problem), passes)
    assert {pass_: errors[pass_].keys() for pass_ in passes} == names
    assert max(max(found.values()) for found in errors.values()) < 2e-6


@pytest.mark.parametrize("passes", [("forward",), ("both",)])
def test_the_third_call_is_checked(passes: tuple[str, ...]) -> None:
    problem = problems.make_problem(SMALL, CPU)
    call, factors = providers.build("eager", problem), iter((1.5, 1.5, 1.0))
    errors = suite.check(lambda: call() * next(factors), problem, problems.exact(problem), passes)
    assert max(errors[passes[0]].values()) < 1e-5
    assert next(factors, None) is None


@pytest.mark.parametrize(("factor", "error"), [(1.1, 0.1), (torch.nan, None)])
def test_a_wrong_provider_gets_no_time(
    factor: float, error: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = providers.build
    monkeypatch.setattr(providers, "build", lambda *of: lambda: build(*of)() * factor)
    running = session(tmp_path)
    suite.run_tasks(running, [TASK], never)
    assert [row["pass"] for row in running.results.rows] == ["forward", "backward"]
    for row in running.results.rows:
        assert tuple(row) == ROW_KEYS
        assert row["median_us"] is None
        assert row["max_rel_error"] == (None if error is None else pytest.approx(error, rel=1e-3))
    assert all(row["reason"].startswith("wrong: ") for row in running.results.skipped)
    assert not running.ours_failed
    running.save()
    monkeypatch.setattr(suite.providers, "is_ours", lambda _: True)
    suite.run_tasks(running, [TASK], never)
    assert running.ours_failed


def test_what_a_provider_gave_is_kept_though_the_next_one_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[list[str]] = []
    build = providers.build

    def look(name: str, problem: problems.Problem) -> providers.Call:
        path = tmp_path / "aif.json"
        kept.append([row["provider"] for row in load(path).rows] if path.exists() else [])
        return build(name, problem)

    monkeypatch.setattr(providers, "build", look)
    task = replace(TASK, providers=("ours-eager-backend", "eager"), passes=("forward",))
    suite.run_tasks(session(tmp_path), [task], lambda *_: {"timing": Timing(2.0, 1.0, 3.0)})
    assert kept == [[], ["ours-eager-backend"]]


def test_a_tuned_mode_is_planned_shorter_after_the_other(tmp_path: Path) -> None:
    running, key = session(tmp_path, seconds=50.0), {"provider": "compile-max-autotune", "shape": [1]}
    with running.attempt("compile-max-autotune", [key]) as go:
        assert not go
    with running.attempt("compile-max-autotune-no-cudagraphs", [key]) as go:
        assert not go
    with running.budget.spend("compile-max-autotune-no-cudagraphs"):
        pass
    with running.attempt("compile-max-autotune", [key]) as go:
        assert go


@pytest.mark.gpu
def test_the_first_backward_of_a_check_runs_in_its_thread() -> None:
    threads = []

    class Named(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, z: torch.Tensor) -> torch.Tensor:
            return z.clone()

        @staticmethod
        def backward(ctx: object, dz: torch.Tensor) -> torch.Tensor:
            threads.append(threading.get_ident())
            return dz

    problem = problems.make_problem(SMALL, torch.device("cuda"))
    plain = providers.build("eager", problem)
    suite.check(lambda: Named.apply(plain()), problem, problems.exact(problem), ("both",))
    assert threads[0] == threading.get_ident()
    assert threads[1] != threads[0]


@pytest.mark.parametrize("shape", [(256, 128, 768), (2, 16, 32)])  # the second has a floor of a few thousandths
def test_a_row_tells_the_floor_and_how_far_the_time_lies_over_it(shape: cases.Shape, tmp_path: Path) -> None:
    running, case = session(tmp_path), cases.core_case(shape)
    floor = floor_us(case, "forward", CEILINGS)
    keys = case_keys("aif", "forward", case, "eager")
    running.add(keys, case, "forward", Timing(2.5 * floor, 2 * floor, 3 * floor), launches=4)
    running.add(keys, case, "forward", None, saved_bytes=8)
    timed, counted = running.results.rows
    assert [row["floor_us"] for row in (timed, counted)] == pytest.approx([floor, floor], rel=1e-5)
    assert (timed["of_floor"], timed["launches"]) == (2.5, 4)
    times = [timed[name] for name in ("p20_us", "median_us", "p80_us")]
    assert times == pytest.approx([2 * floor, 2.5 * floor, 3 * floor], abs=5e-4)
    assert (counted["of_floor"], counted["median_us"]) == (None, None)


@pytest.mark.parametrize("name", ["z", "lower", "local_squeeze_weight"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("provider", ["ours", "eager"])
def test_a_result_is_wrong_from_its_limit_on(provider: str, name: str, dtype: str, tmp_path: Path) -> None:
    running, keys = session(tmp_path), case_keys("aif", "both", replace(SMALL, dtype=dtype), provider)
    limit = problems.limit(name, getattr(torch, dtype), ours=provider == "ours")
    assert running.right(keys, {name: 0.99 * limit, "last": 0.0})
    assert running.results.rows == running.results.skipped == []
    assert not running.right(keys, {name: 1.01 * limit, "last": 0.0})
    assert [row["max_rel_error"] for row in running.results.rows] == [pytest.approx(1.01 * limit, rel=1e-2)]


def test_the_largest_error_is_told(tmp_path: Path) -> None:
    running, keys = session(tmp_path), case_keys("aif", "both", SMALL, "eager")
    assert not running.right(keys, {"z": 0.1, "last": 0.3, "lower": 0.2})
    assert running.results.rows[0]["max_rel_error"] == 0.3
    assert running.results.skipped[0]["reason"].startswith("wrong: last is off by 3.0e-01")


def test_passes_before_an_error_keep_their_rows(tmp_path: Path) -> None:
    def measure(_: suite.Session, work: suite.Work) -> dict[str, object]:
        if work.pass_ == "backward":
            raise RuntimeError("no such luck")
        return {"timing": Timing(2.0, 1.0, 3.0)}

    running = session(tmp_path)
    suite.run_tasks(running, [TASK], measure)
    assert [row["pass"] for row in running.results.rows] == ["forward"]
    assert [row["pass"] for row in running.results.skipped] == ["backward"]


def test_modes_with_graphs_are_not_timed_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, counters = providers.build, torch._dynamo.utils.counters["inductor"]

    def skipping(_: str, problem: problems.Problem) -> providers.Call:
        call = build("eager", problem)
        return lambda: (counters.update(cudagraph_skips=1), call())[1]

    monkeypatch.setattr(providers, "build", skipping)
    for name, reasons in (
        (providers.COMPILE_GRAPHS, ["RuntimeError: torch.compile made no CUDA graph"]),
        ("eager", []),
    ):
        running = session(tmp_path)
        task = replace(TASK, providers=(name,), passes=("forward",))
        suite.run_tasks(running, [task], lambda *_: {"timing": Timing(2.0, 1.0, 3.0)})
        assert [row["reason"] for row in running.results.skipped] == reasons


def test_no_provider_may_take_much_more_than_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    monkeypatch.setattr(suite, "time_limit", lambda seconds: nullcontext(limits.append(seconds)))
    for seconds in (20.0, 1000.0):
        with session(tmp_path, seconds).attempt("eager", []):
            pass
    assert limits == pytest.approx([20.0 + suite.GRACE_SECONDS, suite.MOST_SECONDS], abs=1.0)


@pytest.mark.parametrize("provider", ["eager", "ours"])
def test_errors_and_lack_of_time_are_recorded(provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = replace(TASK, providers=(provider,))

    def fail(*_: object) -> None:
        raise RuntimeError("no such luck\nand more")

    monkeypatch.setattr(providers, "build", fail)
    running = session(tmp_path)
    suite.run_tasks(running, [task], never)
    assert [row["reason"] for row in running.results.skipped] == ["RuntimeError: no such luck"] * 2
    assert running.ours_failed == (provider == "ours")
    late = session(tmp_path, seconds=0.0)
    suite.run_tasks(late, [task], never)
    assert [row["reason"] for row in late.results.skipped] == ["no time left"] * 2
    assert not late.ours_failed
    late.device_lost = True
    suite.run_tasks(late, [task], never)
    assert [row["reason"] for row in late.results.skipped[2:]] == ["the GPU no longer answers"] * 2
    assert running.results.rows == late.results.rows == []


def test_what_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object) -> None:
        while True:
            try:
                torch.ones(8).sum()
            except Exception:
                continue

    monkeypatch.setattr(providers, "build", hang)
    monkeypatch.setattr(suite, "MOST_SECONDS", 0.3)
    running = session(tmp_path)
    suite.run_tasks(running, [TASK], never)
    assert [row["reason"] for row in running.results.skipped] == ["took longer than its time"] * 2
    assert running.ours_failed == any(name.startswith("ours") for name in TASK.providers)
