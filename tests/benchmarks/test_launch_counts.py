"""How many kernels a pass launches, counted by records and by the profiler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="triton is there on Linux only")

from suite_cases import FORMS, PACKED, TASK, session

from benchmarks import floors, launch_counts, problems, providers
from benchmarks.cases import Case
from benchmarks.errors import relative_errors
from benchmarks.results import case_keys
from benchmarks.timing import Timing

pytestmark = pytest.mark.usefixtures("known_ceilings")


@pytest.mark.parametrize(("case", "counts"), [(FORMS[1], (3, 4)), (FORMS[5], (3, 6)), (PACKED[0], (4, 5))], ids=str)
def test_kernels_are_found_right_and_their_launches_counted(
    case: Case, counts: tuple[int, int], device: torch.device
) -> None:
    problem = problems.make_problem(case, device)
    call = providers.build(providers.OURS, problem)
    launches = {
        pass_: launch_counts.count_pass(pass_, call, problem, launch_counts.count_recorded) for pass_ in floors.PASSES
    }
    results = providers.results(call, problem)
    assert max(relative_errors(results, problems.exact(problem)).values()) < 2e-5
    assert results.keys() == {"z", *problems.GRADIENTS}
    assert launches == {"forward": counts[0], "backward": counts[1], "both": sum(counts)}


def test_launches_are_not_counted_where_there_is_no_time_or_no_counter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(call: Callable[[], object]) -> int:
        raise RuntimeError("not today")

    monkeypatch.setattr(launch_counts, "can_profile", lambda device: True)
    monkeypatch.setattr(launch_counts, "count_profiled", fail)
    for seconds in (60.0, 0.0):
        running = session(tmp_path, seconds)
        timing = Timing(1.0, 1.0, 1.0)
        running.add(case_keys("aif", "forward", TASK.case, "eager"), TASK.case, "forward", timing)
        launch_counts.count_others(running, [TASK])
        assert [row["launches"] for row in running.results.rows] == [None]
        assert running.results.skipped == []
        assert not running.ours_failed


@pytest.mark.gpu
def test_launches_of_eager_code_on_a_gpu() -> None:
    states = torch.randn(64, 64, device="cuda")
    assert launch_counts.count_profiled(lambda: states.add_(1).mul_(2)) == 2
