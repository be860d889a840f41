"""The suite of launches: its order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is there on Linux only")

from suite_cases import SMALL, session

from benchmarks import launch, launch_counts, problems, providers, suite
from benchmarks.timing import Stopwatch

pytestmark = pytest.mark.usefixtures("known_ceilings")


def test_the_profiler_looks_at_nothing_before_all_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would slow down what is timed later; and what is compiled again is counted after what is not."""
    done: list[str] = []
    build, wall_time = providers.build, Stopwatch.wall_time

    def noted_build(name: str, problem: problems.Problem) -> providers.Call:
        done.append(f"build {name}")
        return build("eager", problem)

    def noted_time(*arguments: object) -> object:
        done.append("timed")
        return wall_time(*arguments)

    def count(call: Callable[[], object]) -> int:
        done.append("counted")
        call()
        return 11

    def tasks(running: suite.Session) -> list[suite.Task]:
        return [suite.Task(SMALL, ("ours-eager-backend", "compile-reduce-overhead", "compile", "eager"), ("both",))]

    monkeypatch.setattr(providers, "build", noted_build)
    monkeypatch.setattr(Stopwatch, "wall_time", noted_time)
    monkeypatch.setattr(launch_counts, "count_profiled", count)
    monkeypatch.setattr(launch_counts, "can_profile", lambda device: True)
    monkeypatch.setattr(launch, "tasks", tasks)
    running = session(tmp_path)
    launch.run(running)
    assert done.index("counted") > len(done) - 1 - done[::-1].index("timed")
    assert [what for what in done[-8:] if what.startswith("build")] == [
        "build ours-eager-backend", "build eager", "build compile", "build compile-reduce-overhead",
    ]  # fmt: skip
    assert [row["launches"] for row in running.results.rows] == [11] * 4
    assert running.results.skipped == []
