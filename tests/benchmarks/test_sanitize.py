"""NVIDIA's sanitizer over small calls: its summaries, its time, and which calls are made."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="triton is there on Linux only")

from fake_tools import program

from benchmarks import sanitize
from benchmarks.problems import Problem
from dlfa_kernels.overrides import overrides
from dlfa_kernels.tiles import with_fewer_tokens


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
