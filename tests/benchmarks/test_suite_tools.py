"""What runs around the suites: counters, sanitizer, time limits, and the session that does all at once."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

pytest.importorskip("triton", reason="triton is there on Linux only")

from benchmarks import budget as budget_module
from benchmarks import gpu_session, ncu, processes, providers, sanitize, schedule
from benchmarks import timing as timing_module
from benchmarks.budget import Budget, OutOfTime, time_limit
from benchmarks.cases import BASE_SHAPE, core_case
from benchmarks.gpu_session import Part, Step
from benchmarks.hardware import ROOT, commit, header, measure_ceilings
from benchmarks.problems import Problem
from benchmarks.processes import cuda_tool, run_limited
from benchmarks.timing import CapturedCall, Stopwatch, summarise
from dlfa_kernels.overrides import overrides
from dlfa_kernels.tiles import with_fewer_tokens

FLUSH = "void at::native::reduce_kernel<(int)512, (int)1, at::native::ReduceOp<float, ...>>(T3)"
COLUMNS = (
    '"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream","Block Size","Grid Size","Device",'
    '"CC","Section Name","Metric Name","Metric Unit","Metric Value"'
)


def ncu_log(kernels: list[tuple[str, str, str]], unit: str = "byte") -> str:
    """What ncu writes for kernels with these bytes read and written."""
    lines = ["==PROF== Connected to process 7 (/usr/bin/python3.12)", '==PROF== Profiling "k" - 0: 0%....100% - 1 pass']
    lines += ["==PROF== Disconnected from process 7", COLUMNS]
    for index, (name, *values) in enumerate(kernels):
        for metric, value in zip((ncu.READ_METRIC, ncu.WRITE_METRIC), values, strict=True):
            cells = (index, 7, "python3.12", "127.0.0.1", name, 1, 7, "(256, 1, 1)", "(512, 1, 1)", 0, "9.0",
                     "Command line profiler metrics", metric, unit, value)  # fmt: skip
            lines.append(",".join(f'"{cell}"' for cell in cells))
    return "\n".join(lines) + "\n"


KERNELS = [
    ("squeeze_kernel", "100,663,296", "1,048,576"),
    ("expand_kernel", "2,097,152", "40,000,000"),
    (FLUSH, "250,000,000", "10,331,648"),
    ("reduce_kernel", "150,994,944", "0"),
    (FLUSH, "250,000,000", "50,331,648"),
]


def test_counters_are_read_from_the_log() -> None:
    kernels = ncu.parse(ncu_log(KERNELS))
    assert [kernel["kernel"] for kernel in kernels] == [name for name, *_ in KERNELS]
    assert kernels[0] == {"kernel": "squeeze_kernel", "dram_read_bytes": 100663296, "dram_write_bytes": 1048576}
    tensor = 256 * 128 * 768 * 2
    rows = {row.pop("kernel"): row for row in ncu.traffic_rows(kernels, tensor)}
    assert list(rows) == [
        "forward, squeeze_kernel", "forward, expand_kernel", "forward, written back", "forward, total",
        "backward, reduce_kernel", "backward, written back", "backward, total",
    ]  # fmt: skip
    total = rows["forward, total"]
    assert total["dram_read_bytes"] == 100663296 + 2097152
    assert total["dram_write_bytes"] == 1048576 + 40000000 + 10331648
    assert total["tensors"] == pytest.approx((total["dram_read_bytes"] + total["dram_write_bytes"]) / tensor, abs=1e-4)
    assert rows["backward, total"]["tensors"] == pytest.approx(4.0)
    assert rows["backward, written back"]["dram_read_bytes"] == 0


def test_units_of_counters() -> None:
    (kernel,) = ncu.parse(ncu_log([("k", "1.5", "2")], unit="Mbyte"))
    assert (kernel["dram_read_bytes"], kernel["dram_write_bytes"]) == (1_500_000, 2_000_000)


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("==ERROR== ERR_NVGPUCTRPERM\n", "ncu gave no table; its last line: ==ERROR== ERR_NVGPUCTRPERM"),
        ("", "ncu gave no table; its last line: nothing"),
        (ncu_log([("k", "1", "2")], unit="inch"), "ncu's unit must be one of byte, .*, got 'inch'"),
        (ncu_log([("k", "n/a", "2")]), r"ncu's value of dram__bytes_read.sum of k must be a number, got 'n/a'"),
        (ncu_log([("k", "1", "2")]).rsplit("\n", 2)[0], "ncu gave no dram__bytes_write.sum of k"),
    ],
)
def test_logs_without_counters(log: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ncu.parse(log)


@pytest.mark.parametrize("kernels", [KERNELS[:3], KERNELS[:4], [*KERNELS, KERNELS[0]], [*KERNELS, KERNELS[2]], []])
def test_passes_must_be_whole(kernels: list[tuple[str, str, str]]) -> None:
    given = [{"kernel": name, "dram_read_bytes": 1, "dram_write_bytes": 1} for name, *_ in kernels]
    with pytest.raises(ValueError, match="ncu must see kernels of 2 passes"):
        ncu.traffic_rows(given, 1)


def program(path: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python script on the PATH in place of a tool."""
    tool = path / name
    tool.write_text(f"#!{sys.executable}\nimport sys\n{text}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path}{os.pathsep}{os.environ['PATH']}")


def test_tools_of_the_cuda_toolkit_are_found_off_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    monkeypatch.setattr(processes, "NSIGHT_COMPUTE", tmp_path / "nsight-compute")
    with pytest.raises(ValueError, match="ncu, of the CUDA toolkit, must be on the PATH, below CUDA_HOME or in /"):
        cuda_tool("ncu")
    for folder in ("nsight-compute/2025.2.0", "nsight-compute/2025.3.1", "cuda/bin"):
        ncu_path = tmp_path / folder / "ncu"
        ncu_path.parent.mkdir(parents=True)
        ncu_path.write_text("#!/bin/sh\n")
        ncu_path.chmod(0o755)
        assert cuda_tool("ncu") == str(ncu_path)


def test_counters_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = ncu_log(KERNELS)
    program(
        tmp_path, "ncu", f"open(sys.argv[sys.argv.index('--log-file') + 1], 'w').write({log!r})", monkeypatch
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Imaginary GPU")
    rows = ncu.measure(tmp_path, 30)
    content = json.loads((tmp_path / "ncu.json").read_text())
    assert content["rows"] == rows
    assert content["header"]["replays"] == 1
    assert content["header"]["shape"] == list(BASE_SHAPE)
    assert all(row.keys() == {"kernel", "dram_read_bytes", "dram_write_bytes", "tensors"} for row in rows)
    ncu.measure(tmp_path, 30, 0.5)
    assert json.loads((tmp_path / "ncu-l2-50.json").read_text())["header"]["command"].endswith("ncu --l2-share 0.5")
    program(tmp_path, "ncu", "print('==ERROR== no permission')\nsys.exit(9)", monkeypatch)
    with pytest.raises(ValueError, match="ncu ended with status 9; its last line: ==ERROR== no permission"):
        ncu.measure(tmp_path, 30)


def test_the_third_calls_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first compiles and the second keeps; all later ones are replays."""
    order: list[str] = []
    monkeypatch.setattr(ncu, "choose_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(ncu, "core_case", lambda shape: core_case((2, 5, 32)))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(L2_cache_size=1024))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    for name in ("start", "stop"):
        monkeypatch.setattr(torch.cuda.profiler, name, lambda name=name: order.append(name))
    for name in ("forward", "backward"):
        monkeypatch.setattr(f"benchmarks.calls.run_{name}", lambda *given, name=name: order.append(name))
    ncu.launch_passes(None)
    warm_up = ["forward", "backward"] * 2
    assert order == [*warm_up, "start", "forward", "stop", "start", "backward", "stop"]


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ("========= ERROR SUMMARY: 0 errors\n", 0),
        ("========= Invalid __global__ read\n========= ERROR SUMMARY: 12 errors\n", 12),
        ("========= RACECHECK SUMMARY: 3 hazards displayed (2 errors, 1 warning)\n", 3),
        ("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n", 0),
        ("Killed\n", None),
    ],
)
def test_sanitizer_summaries(text: str, errors: int | None) -> None:
    assert sanitize.error_count(text) == errors


@pytest.mark.parametrize(
    ("text", "errors", "status"),
    [
        ("print('========= ERROR SUMMARY: 0 errors')", 0, 0),
        ("print('========= Invalid read'); print('========= ERROR SUMMARY: 2 errors')", 2, 0),
        ("print('========= ERROR SUMMARY: 0 errors'); sys.exit(1)", None, 1),
        ("import time; print('started', flush=True); time.sleep(60)", None, None),
    ],
)
def test_sanitizer_runs(
    text: str, errors: int | None, status: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "compute-sanitizer", text, monkeypatch)
    (row,) = sanitize.run_together(["memcheck"], 2.0)
    assert (row["errors"], row["status"]) == (errors, status)
    assert bool(row["report"])


def test_sanitizer_says_what_was_found_before_its_time_was_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list(map(str, sanitize.small_calls()))
    said = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    said += "print('the first call', flush=True); print('========= Invalid __global__ read', flush=True)\n"
    said += f"for call in {calls[:20]}: print(call, flush=True)\ntime.sleep(60)"
    program(tmp_path, "compute-sanitizer", said, monkeypatch)
    (row,) = sanitize.run_together(["racecheck"], 2.0)
    assert (row["errors"], row["status"], row["calls"]) == (None, None, 20)
    assert row["report"][0] == "========= Invalid __global__ read"
    assert row["report"][-1] == calls[19]
    assert len(row["report"]) == 1 + sanitize.LINES_KEPT
    assert len(calls) == len(set(calls))


def test_calls_without_a_tool_come_first_and_tools_share_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[list[str], float]] = []

    def note(tools: list[str], seconds: float) -> list[dict[str, object]]:
        given.append((tools, seconds))
        time.sleep(0.5)
        return [{}] * len(tools)

    monkeypatch.setattr(sanitize, "run_together", note)
    seconds = 10.0 + sanitize.GRACE_SECONDS
    assert len(list(sanitize.run_tools(["memcheck", "racecheck"], seconds))) == 3
    assert [tools for tools, _ in given] == [[sanitize.NO_TOOL], ["memcheck", "racecheck"]]
    assert [seconds for _, seconds in given] == pytest.approx([5.0, 9.5], abs=0.2)


def test_tools_run_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is kept as it ends, and what one is asked for is not asked of others."""
    waits = "import time\nprint(*sys.argv[1:])\ntime.sleep(60 if 'racecheck' in sys.argv else 2)\n"
    program(tmp_path, "compute-sanitizer", f"{waits}print('========= ERROR SUMMARY: 0 errors')", monkeypatch)
    start = time.monotonic()
    rows = list(sanitize.run_together(["racecheck", "memcheck", "synccheck"], 5.0))
    assert time.monotonic() - start < 12
    assert [row["tool"] for row in rows][2] == "racecheck"
    assert {row["tool"]: row["errors"] for row in rows} == {"memcheck": 0, "synccheck": 0, "racecheck": None}
    assert all(row["seconds"] < 5 for row in rows[:2])
    options = {tool: " ".join(sanitize.command_line(tool)) for tool in sanitize.TOOLS}
    assert [tool for tool in sanitize.TOOLS if "--report-api-errors no" in options[tool]] == ["memcheck"]


def test_calls_without_a_tool_are_a_check_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    for ending, errors in (("0", 0), ("1", None)):
        (tmp_path / "python").write_text(f"#!/bin/sh\necho given $*\nexit {ending}\n")
        (tmp_path / "python").chmod(0o755)
        (row,) = sanitize.run_together([sanitize.NO_TOOL], 5.0)
        assert (row["errors"], row["status"]) == (errors, int(ending))
    assert row["report"][0].startswith("given -u -m benchmarks.sanitize --call ")


def test_small_calls_take_the_tiles_of_large_batches_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tokens take smaller ones by themselves on a GPU, and the largest kernels would never be checked."""
    taken, made = {}, []

    def note(call: object, problem: Problem) -> dict[str, torch.Tensor]:
        taken[problem.case] = overrides().tiles
        made.append((problem.case, taken[problem.case]))
        return {"z": torch.ones(1)}

    monkeypatch.setattr(sanitize, "results", note)
    calls = list(sanitize.small_calls())
    for call in calls:
        sanitize.run_call(call, torch.device("cpu"))
    assert len(taken) == len(calls)
    assert len(made) == 3 * len(set(made)) == 3 * len(calls)  # of one kind, the third of which is a replay
    wide = [tiles for tiles in taken.values() if tiles is not None]
    assert len(wide) == len(sanitize.FORMS)
    for tiles in wide:
        assert {(tile.block_t, tile.num_warps) for tile in (tiles.squeeze, tiles.expand, tiles.reduce)} == {(128, 8)}
        assert with_fewer_tokens(tiles) != tiles
    monkeypatch.setattr(sanitize, "results", lambda call, problem: {"dx": torch.tensor(torch.nan)})
    with pytest.raises(ValueError, match="dx is not finite"):
        sanitize.run_call(calls[0], torch.device("cpu"))


def test_other_tiles_are_timed_where_they_are_not_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "device_architecture", lambda device: "sm_90")
    monkeypatch.setattr("dlfa_kernels.tiles.multiprocessors", lambda device: 132)
    device = torch.device("cuda")
    session: Any = SimpleNamespace(device=device, shapes=lambda sizes: [(32, 128, 768), *sizes])
    tasks = list(schedule.tasks(session))
    assert {task.providers[0] for task in tasks} == {"ours", *providers.SCHEDULES}
    (case,) = (task.case for task in tasks if task.providers == (providers.ONE_SLOT,))
    assert case == core_case(BASE_SHAPE)
    shipped = schedule.shipped_tiles(case, device)
    changed = {"one-slot": "squeeze", "waiting-reduce": "reduce", "waiting-inputs": "inputs"}
    for name, stage in changed.items():
        with schedule.schedule(f"ours-{name}", case, device):
            tiles = overrides().tiles
        assert tiles is not None
        assert getattr(tiles, stage) != getattr(shipped, stage)
        assert replace(tiles, **{stage: getattr(shipped, stage)}) == shipped
    with schedule.schedule("ours-l2-50", case, device):
        assert (overrides().tiles, overrides().l2_share) == (None, 0.5)


def test_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGALRM)

    def stubborn() -> None:
        with time_limit(0.05):
            while True:
                with contextlib.suppress(Exception):
                    time.sleep(0.01)

    with pytest.raises(OutOfTime):
        stubborn()

    def swallowing() -> None:
        with time_limit(0.05):
            with contextlib.suppress(OutOfTime):
                time.sleep(10)
            time.sleep(10)

    monkeypatch.setattr(budget_module, "REPEAT_SECONDS", 0.05)
    with pytest.raises(OutOfTime):
        swallowing()
    with time_limit(5):
        pass
    time.sleep(0.01)
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_budget_learns_what_parts_take() -> None:
    budget = Budget(10)
    assert budget.allows("compile", 9)
    assert not budget.allows("compile", 11)
    with budget.spend("compile"):
        time.sleep(0.01)
    assert budget.allows("compile", 11)
    assert not Budget(0).allows("compile", 0.001)


def test_budget_goes_by_the_latest_part(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("benchmarks.budget.time", SimpleNamespace(monotonic=lambda: now[0]))
    budget = Budget(10)
    for taken, fits in ((1, True), (5, False), (2, True)):
        with budget.spend("compile"):
            now[0] += taken
        assert budget.remaining == 10 - now[0]
        assert budget.allows("compile", 0) is fits


def test_timing_on_a_cpu() -> None:
    assert summarise([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == (3.5, 2.0, 5.0)
    prepared = []

    def prepare() -> int:
        time.sleep(0.002)
        prepared.append(0)
        return len(prepared)

    seen: list[int] = []
    timing = Stopwatch(torch.device("cpu")).device_time(seen.append, prepare)
    assert seen == list(range(1, len(prepared) + 1))
    assert len(seen) >= 8
    assert timing.p20_us <= timing.median_us < 1500


class Clock:
    """A clock that what is timed moves, for host and device alike; events of a device note its time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.microseconds = 0.0
        monkeypatch.setattr(timing_module, "time", SimpleNamespace(perf_counter=lambda: self.microseconds / 1e6))
        monkeypatch.setattr(timing_module, "synchronise", lambda device: None)

    def takes(self, microseconds: float) -> Callable[..., None]:
        """Something that takes so long, and counts how often it was called."""

        def call(*_: object) -> None:
            call.calls += 1  # type: ignore[attr-defined]
            self.microseconds += microseconds

        call.calls = 0  # type: ignore[attr-defined]
        return call

    def event(self) -> SimpleNamespace:
        made = SimpleNamespace(elapsed_time=lambda end: (end.at - made.at) / 1000)
        made.record = lambda: setattr(made, "at", self.microseconds)
        return made

    def stopwatch(self, flush: Callable[..., None], flush_microseconds: float) -> Stopwatch:
        stopwatch = object.__new__(Stopwatch)
        stopwatch.device, stopwatch.flush_seconds = torch.device("cuda"), flush_microseconds / 1e6
        stopwatch.buffer = SimpleNamespace(sum=flush)  # type: ignore[assignment]
        stopwatch._event = self.event  # type: ignore[method-assign]
        return stopwatch


def test_device_time_is_that_of_the_call_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    timed, prepare, flush = clock.takes(45), clock.takes(2000), clock.takes(10)
    timing = clock.stopwatch(flush, 10).device_time(timed, prepare, 0.1)
    assert timing == pytest.approx((45, 45, 45))
    warm_up, samples = 48, int(0.1 / (2045 + 60) * 1e6)  # 0.1 s each
    assert prepare.calls == timed.calls == 4 + warm_up + samples
    # the host hands a call over in 45 us: the buffer is read for 1.3 times as long, at least
    assert flush.calls == 6 * (warm_up + samples)
    assert clock.stopwatch(flush, 10).device_time(clock.takes(1), clock.takes(9e6), 0.1)[0] == pytest.approx(1)
    assert flush.calls == 6 * (warm_up + samples) + 1 + timing_module.LEAST_SAMPLES


def test_wall_time_is_of_one_call_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    call = clock.takes(300)
    assert clock.stopwatch(call, 1).wall_time(call, seconds=0.3, calls=20) == pytest.approx((300, 300, 300))
    assert call.calls == 334 + 20 * 50  # 0.1 s to warm up


@pytest.mark.gpu
def test_timing_on_a_gpu() -> None:
    device = torch.device("cuda")
    stopwatch, a = Stopwatch(device), torch.randn(4096, 4096, device=device)
    big = stopwatch.device_time(lambda _: a @ a, lambda: None)
    small = stopwatch.device_time(lambda _: a[:512] @ a, lambda: None)
    prepared = stopwatch.device_time(lambda _: a[:512] @ a, lambda: a @ a)
    assert big.median_us > 3 * small.median_us
    assert prepared.median_us < 2 * small.median_us
    captured = CapturedCall(lambda: a[:64] @ a, device)
    a.fill_(1)
    captured()
    torch.cuda.synchronize()
    assert torch.equal(captured.outputs, torch.full((64, 4096), 4096.0, device=device))


def test_session_goes_on_and_keeps_what_there_is(tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    (work / "results").mkdir(parents=True)
    python = (sys.executable, "-c")
    save = f"open({str(work / 'results' / 'aif.json')!r}, 'w').write('half'); print('began', flush=True)"
    planned = [
        Step("fails", (*python, "print('told why'); raise SystemExit(4)"), 1.0, grace=1.0),
        Step("hangs", (*python, f"{save}; import time; time.sleep(60)"), 1.0, grace=1.0),
        Step("missing", ("no-such-program-anywhere",), 1.0, grace=1.0),
        Step("works", (*python, "print('given', {seconds})"), 1.0, grace=1.0),
    ]
    start = time.monotonic()
    statuses = gpu_session.run_session(planned, work, out, gpu_session.RESERVE_SECONDS + 12, "suites")
    assert time.monotonic() - start < 20
    assert statuses == {"fails": 4, "hangs": None, "missing": 127, "works": 0}
    assert {path.name for path in out.iterdir()} == {"suites.tar.gz", "suites.txt"}
    summary = (out / "suites.txt").read_text()
    for said in ("fails: exit status 4", "hangs: ran over its time", "told why", "began", "works: exit status 0"):
        assert said in summary
    with tarfile.open(out / "suites.tar.gz") as archive:
        names = set(archive.getnames())
        kept = archive.extractfile("results/aif.json")
        assert kept is not None
        assert kept.read() == b"half"
    logs = {"1-fails.log", "2-hangs.log", "3-missing.log", "4-works.log"}
    assert names == {"results/aif.json", *logs}


def test_session_without_time(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    planned = [Step("late", (sys.executable, "-c", "raise SystemExit(0)"), 1.0)]
    assert gpu_session.run_session(planned, tmp_path / "work", tmp_path / "out", 1.0, "checks") == {"late": None}
    assert "late: no time left" in (tmp_path / "out" / "checks.txt").read_text()


def test_session_steps_name_files_and_modules_that_exist(tmp_path: Path) -> None:
    names = {Part.CHECKS: ["tests", "sanitizer", "traffic of groups"], Part.SUITES: ["traffic", "suites"]}
    for part in Part:
        planned = gpu_session.steps(tmp_path, part)
        assert [step.name for step in planned] == names[part]
        for step in planned:
            assert step.command[:2] == (sys.executable, "-m")
            module = step.command[2]
            assert module == "pytest" or (ROOT / f"{module.replace('.', '/')}.py").is_file()
            assert module == "pytest" or gpu_session.BUDGET in step.command
    files = [Path(word) for word in gpu_session.kernel_tests() if word.endswith(".py")]
    assert [path.name for path in files[:2]] == list(gpu_session.FIRST_TESTS)
    assert {path.name for path in files} | {*gpu_session.TESTS_WITHOUT_GPU} == {
        path.name for path in (ROOT / "tests" / "dlfa_kernels").glob("test_*.py")
    }


def test_each_part_has_a_budget_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def note(planned: list[Step], work: Path, out: Path, seconds: float, name: str) -> dict[str, int]:
        ran.append((name, len(planned), seconds))
        return {}

    monkeypatch.setattr(gpu_session, "choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(gpu_session, "run_session", note)
    app = typer.Typer()
    app.command()(gpu_session.command)
    for options in (("--part", "suites", "--budget-seconds", "570"), ("--part", "suites"), ("--part", "checks")):
        assert CliRunner().invoke(app, ["--out", str(tmp_path), *options]).exit_code == 0
    checks, suites = (gpu_session.PART_SECONDS[part] for part in (Part.CHECKS, Part.SUITES))
    assert ran == [("suites", 2, 570), ("suites", 2, suites), ("checks", 3, checks)]
    assert checks + suites + 2 * gpu_session.START_SECONDS <= 13 * 60
    for options in (("--part", "lunch"), ()):
        assert CliRunner().invoke(app, ["--out", str(tmp_path), *options]).exit_code == 2


def test_every_step_has_time_to_work_though_those_before_it_take_all_of_theirs(tmp_path: Path) -> None:
    for part, least in ((Part.CHECKS, {"tests": 110, "sanitizer": 70}), (Part.SUITES, {"traffic": 50, "suites": 385})):
        planned = gpu_session.steps(tmp_path, part)
        remaining = gpu_session.PART_SECONDS[part] - gpu_session.RESERVE_SECONDS
        for index, step in enumerate(planned):
            limit = remaining * step.weight / sum(later.weight for later in planned[index:])
            assert limit - step.grace - gpu_session.START_SECONDS >= least.get(step.name, -999), step.name
            remaining -= limit


def test_session_leaves_out_the_tests_without_a_gpu_alone() -> None:
    folder = ROOT / "tests" / "dlfa_kernels"
    uses_gpu = re.compile(r"^def test_.*\n?.*device: torch\.device|mark\.gpu", re.MULTILINE)
    without = {path.name for path in folder.glob("test_*.py") if not uses_gpu.search(path.read_text())}
    assert without == set(gpu_session.TESTS_WITHOUT_GPU)


@pytest.mark.skipif(importlib.util.find_spec("xdist") is None, reason="needs pytest-xdist")
def test_tests_that_are_cut_short_name_what_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow:\n gpu:\n")
    (tmp_path / "test_some.py").write_text(
        "import os, signal, time, pytest\n"
        "def test_fails(): assert 1 == 2\n"
        "@pytest.mark.slow\n@pytest.mark.gpu\ndef test_slow_on_a_gpu(): pass\n"
        "@pytest.mark.slow\ndef test_slow(): pass\n"
        "def test_hangs():\n"
        "    time.sleep(4)\n"
        "    os.killpg(os.getpgid(0), signal.SIGINT)  # as all are interrupted when the time is over\n"
        "    time.sleep(60)\n"
    )
    command = [word.replace(f"={gpu_session.HANGING_SECONDS}", "=2") for word in gpu_session.kernel_tests(tmp_path)]
    with (tmp_path / "log").open("w+") as log:
        assert run_limited(command, 120.0, cwd=tmp_path, log=log) is not None  # it ended by itself, interrupted
        log.seek(0)
        said = log.read()
    for named in ("FAILED test_some.py::test_fails - assert 1 == 2", "PASSED", "in test_hangs"):
        assert named in said
    assert "test_slow_on_a_gpu" in said
    assert "test_slow " not in said


def test_ceilings_count_both_ways_of_a_copy_and_both_operations_of_a_product() -> None:
    microseconds = iter([50.0, 100.0, 200.0, 400.0])
    stopwatch = SimpleNamespace(device_time=lambda *_: summarise([next(microseconds)]))
    found = measure_ceilings(torch.device("cpu"), stopwatch)  # type: ignore[arg-type]
    assert found.copy_tb_s == pytest.approx(2 * (16 << 20) / 50e-6 / 1e12)
    assert list(found.matmul_tflop_s) == ["bfloat16", "float16", "float32"]
    rates = [2 * 256**3 / seconds / 1e12 for seconds in (100e-6, 200e-6, 400e-6)]
    assert list(found.matmul_tflop_s.values()) == pytest.approx(rates)


def test_header_of_a_cpu() -> None:
    found = header(torch.device("cpu"), "command")
    assert found["gpu"] is None
    assert found["torch"] == str(torch.__version__)
    assert found["command"] == "command"
    json.dumps(found, allow_nan=False)


def test_commit_of_a_tree_without_history(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("benchmarks.hardware.ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("BENCHMARK_COMMIT", raising=False)
    assert commit() == "unknown"
    monkeypatch.setenv("BENCHMARK_COMMIT", "abc123")
    assert commit() == "abc123"
    assert core_case(BASE_SHAPE).tensor_bytes == 256 * 128 * 768 * 2
