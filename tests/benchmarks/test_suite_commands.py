"""The commands of the suites on a machine without a GPU: small sizes run, and a GPU that is not there is said to be."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="triton is there on Linux only")

import benchmarks
from benchmarks import all as all_suites
from benchmarks import gpu_session, hardware, ncu, precompile, sanitize
from benchmarks import suite as suite_module
from benchmarks.results import ROW_KEYS, SUITES
from benchmarks.suite import main

HEADER_KEYS = {
    "gpu", "capability", "torch", "triton", "commit", "command", "copy_tb_s", "matmul_tflop_s", "date",
}  # fmt: skip
PASSES = {
    "aif": {"forward", "backward", "both"},
    "launch": {"both"},
    "step": {"step"},
    "memory": {"forward", "both"},
    "padding": {"forward", "both"},
    "token": {"forward", "both", "forward-token0", "both-token0"},
    "schedule": {"forward", "backward", "both"},
}
PNG = b"\x89PNG"


@pytest.fixture(autouse=True)
def _as_where_time_is_measured(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(hardware, "INTERPRETED", False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)  # for processes started here
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(suite: str, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    """The exit status of `python -m benchmarks.SUITE OPTIONS`."""
    monkeypatch.setattr(sys, "argv", [suite, *options])
    with pytest.raises(SystemExit) as exit_:
        main(importlib.import_module(f"benchmarks.{suite}").SUITE)
    return int(exit_.value.code or 0)


def check_file(suite: str, folder: Path) -> list[dict[str, Any]]:
    """The rows of a results file, whose form is checked."""
    content = json.loads((folder / f"{suite}.json").read_text())
    assert content["header"].keys() >= HEADER_KEYS
    assert content["header"]["gpu"] is None
    assert content["header"]["command"].startswith(f"python -m benchmarks.{suite} --device cpu")
    rows: list[dict[str, Any]] = content["rows"]
    assert {row["pass"] for row in rows} == PASSES[suite]
    for row in rows:
        assert tuple(row) == ROW_KEYS
        assert row["suite"] == suite
        assert row["launches"] is None
        if row["median_us"] is not None:
            assert 0 < row["p20_us"] <= row["median_us"] <= row["p80_us"]
            if suite != "step":
                assert row["of_floor"] == pytest.approx(row["median_us"] / row["floor_us"], rel=1e-2)
        if row["provider"] != "plain-head":
            assert row["max_rel_error"] < 0.15
    return rows


@pytest.mark.parametrize("suite", SUITES)
def test_suite_on_a_cpu(suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    only = () if suite == "step" else ("--provider", "eager", "--provider", "ours-eager-backend")
    assert run(suite, monkeypatch, "--device", "cpu", "--out", str(tmp_path), *only) == 0
    rows = check_file(suite, tmp_path)
    providers = {row["provider"].removesuffix("-packed") for row in rows}
    others = {"step": {"eager", "plain-head"}, "schedule": set()}.get(suite, {"eager"})
    assert providers == {"ours-eager-backend"} | others
    if suite == "memory":
        assert {row["saved_bytes"] is None for row in rows if row["pass"] == "both"} == {False}
        assert {row["median_us"] for row in rows} == {None}
    else:
        assert None not in {row["median_us"] for row in rows}
    assert (tmp_path / f"{suite}.png").read_bytes().startswith(PNG)
    assert (tmp_path / "roofline.png").exists() == (suite == "aif")
    table = capsys.readouterr().out
    assert all(name in table for name in providers)


def test_every_suite_is_run_and_read() -> None:
    modules = (hardware.ROOT / "benchmarks").glob("*.py")
    made = {path.stem for path in modules if "\nSUITE = " in path.read_text(encoding="utf-8")}
    assert {*all_suites.WEIGHTS, "schedule"} == made == set(SUITES) == PASSES.keys()
    assert made <= set(re.findall(r"\w+", benchmarks.__doc__ or ""))
    for name in SUITES:
        assert importlib.import_module(f"benchmarks.{name}").SUITE.name == name


def test_saved_memory_of_plain_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("memory", monkeypatch, "--device", "cpu", "--out", str(tmp_path), "--provider", "eager")
    (row,) = [
        row for row in check_file("memory", tmp_path) if row["pass"] == "both" and row["shape"] == [4, 24, 64]
    ]  # fmt: skip
    # w for two products and the gate, the gate, relu's output; pooled rows and squeezes of a sequence are small.
    w_and_gate, squeezed = 2 * 4 * 24 * 64 * 2, 4 * 24 * 16 * 2
    assert w_and_gate + squeezed <= row["saved_bytes"] <= 1.15 * (w_and_gate + squeezed)


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["launch", "memory"])
def test_torch_compile_on_a_cpu(suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--device", "cpu", "--out", str(tmp_path), "--provider", "compile", "--budget-seconds", "200")
    assert run(suite, monkeypatch, *options) == 0
    rows = check_file(suite, tmp_path)
    assert {row["provider"] for row in rows} == {"compile"}
    assert all(row["median_us" if suite == "launch" else "max_rel_error"] for row in rows)


COMMANDS = {
    **dict.fromkeys(SUITES, ()),
    "all": (),
    "ncu": (),
    "precompile": (),
    "sanitize": (),
    "gpu_session": ("--out", "unused", "--part", "checks"),
}


def run_command(name: str, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    if name in SUITES:
        return run(name, monkeypatch, *options)
    import typer

    modules = {"all": all_suites, "ncu": ncu, "precompile": precompile, "sanitize": sanitize}
    module = modules.get(name, gpu_session)
    monkeypatch.setattr(sys, "argv", [name, *options])
    with pytest.raises(SystemExit) as exit_:
        typer.run(module.command)
    return int(exit_.value.code or 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_gpu_that_is_not_there(name: str, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(name, monkeypatch, *COMMANDS[name]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    said = "--device cuda needs a GPU that torch can use, found none; --device cpu runs small sizes"
    assert output.err == f"dlfa: error: {said}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", COMMANDS)
def test_no_time_is_taken_of_the_interpreter(name: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(hardware, "INTERPRETED", True)
    assert run_command(name, monkeypatch, *COMMANDS[name]) == 2
    assert capsys.readouterr().err == "dlfa: error: TRITON_INTERPRET must be unset where time is measured\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device", "tpu"), "--device must be cuda or cpu, got 'tpu'"),
        (("--device", "cpu", "--provider", "theirs"), r"--provider must be one of ours, .*, got 'theirs'"),
    ],
)
def test_bad_options(options: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert run("aif", monkeypatch, *options) == 2
    assert re.fullmatch(f"dlfa: error: {message}\n", capsys.readouterr().err)


def test_shares_of_time_leave_some_for_all() -> None:
    remaining = all_suites.DEFAULT_SECONDS
    for suite in all_suites.WEIGHTS:
        budget = all_suites.share(suite, remaining)
        assert budget >= all_suites.START_SECONDS + 11, suite  # in which it measures
        remaining -= budget + all_suites.OVERHEAD_SECONDS
    assert remaining == pytest.approx(all_suites.TABLE_SECONDS + all_suites.LATE_SECONDS)
    assert all_suites.DEFAULT_SECONDS <= 480


@pytest.mark.parametrize("seconds", [60.0, 200.0, all_suites.DEFAULT_SECONDS])
def test_suites_that_all_hang_leave_time_for_the_table(
    seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]

    def hang(command: list[str], limit: float, *, cwd: Path) -> None:
        now[0] += limit + all_suites.GRACE_SECONDS

    monkeypatch.setattr(all_suites, "run_limited", hang)
    monkeypatch.setattr(all_suites, "time", SimpleNamespace(monotonic=lambda: now[0]))
    statuses = all_suites.run_all(tmp_path, "cuda", seconds)
    assert statuses == dict.fromkeys(all_suites.WEIGHTS)
    assert now[0] <= 1000.0 + seconds - all_suites.TABLE_SECONDS


def test_the_last_suite_has_time_to_draw_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports before its budget, a last row that is late, table and plots: it uses its budget up."""
    given: list[tuple[float, float]] = []

    def note(command: list[str], limit: float, *, cwd: Path) -> int:
        given.append((float(command[-1]), limit))
        return 0

    monkeypatch.setattr(all_suites, "run_limited", note)
    all_suites.run_all(tmp_path, "cuda", all_suites.DEFAULT_SECONDS)
    for budget, limit in given:
        assert limit - budget >= all_suites.OVERHEAD_SECONDS + suite_module.GRACE_SECONDS + 2


def test_the_table_is_there_though_the_suites_are_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    printed: list[Path] = []
    monkeypatch.setattr(all_suites, "run_limited", interrupted)
    monkeypatch.setattr(all_suites, "choose_device", lambda name: torch.device(name))
    monkeypatch.setattr(all_suites.targets, "print_targets", printed.append)
    with pytest.raises(KeyboardInterrupt):
        all_suites.command(tmp_path, "cuda", 470.0)
    assert printed == [tmp_path]


def test_all_runs_every_suite_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []
    answers: dict[str, int | None] = {"launch": None, "memory": 1}

    def note(command: list[str], seconds: float, *, cwd: Path) -> int | None:
        commands.append(command)
        return answers.get(command[2].removeprefix("benchmarks."), 0)

    monkeypatch.setattr(all_suites, "run_limited", note)
    assert run_command("all", monkeypatch, "--device", "cpu", "--out", str(tmp_path)) == 1
    assert [command[2] for command in commands] == [f"benchmarks.{suite}" for suite in all_suites.WEIGHTS]
    assert all(command[3:7] == ["--device", "cpu", "--out", str(tmp_path)] for command in commands)
    answers.clear()
    assert run_command("all", monkeypatch, "--device", "cpu", "--out", str(tmp_path)) == 0


@pytest.mark.gpu
@pytest.mark.parametrize("suite", SUITES)
def test_kernels_are_timed_on_a_gpu(suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--out", str(tmp_path), "--provider", "ours", "--budget-seconds", "20")
    if suite == "launch":
        options += ("--provider", "ours+graph")
    if suite == "schedule":
        options += ("--provider", "ours-l2-50")
    assert run(suite, monkeypatch, *options) == 0
    rows = json.loads((tmp_path / f"{suite}.json").read_text())["rows"]
    assert rows
    for row in rows:
        assert row["saved_bytes" if suite == "memory" and row["pass"] == "both" else "max_rel_error"] is not None
        assert suite == "memory" or row["median_us"] > 0
