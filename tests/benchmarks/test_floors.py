"""The least time that a pass can take."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("triton", reason="triton is there on Linux only")

from suite_cases import CEILINGS

from benchmarks import cases, floors
from benchmarks.cases import Case
from benchmarks.floors import Ceilings, floor_us


def test_floor_is_the_larger_of_bytes_and_operations() -> None:
    case = cases.core_case((256, 128, 768))
    tensor = 256 * 128 * 768 * 2 / 4e12 * 1e6
    assert floor_us(case, "forward", CEILINGS) == pytest.approx(3 * tensor)
    assert floor_us(case, "backward", CEILINGS) == pytest.approx(5 * tensor)
    assert floor_us(case, "both", CEILINGS) == pytest.approx(8 * tensor)
    slow = Ceilings(4.0, {"bfloat16": 100.0})
    product = 256 * 128 * 768 * 192 / 100e12 * 1e6
    assert floor_us(case, "forward", slow) == pytest.approx(4 * product)
    assert floor_us(case, "backward", slow) == pytest.approx(8 * product)
    assert floor_us(replace(case, kernel_size=3), "backward", slow) == pytest.approx(16 * product)


@pytest.mark.parametrize(
    ("change", "forward", "backward"),
    [
        ({"fill": 0.5}, 2 * 0.5 + 1, 3 * 0.5 + 2),
        ({"fill": 0.5, "packed": True}, 3 * 0.5, 5 * 0.5),
        ({"token": 0}, 2, 1),
        ({"token": 0, "fuse": "select"}, 2, 2),
    ],
)
def test_fewest_tensors_moved(change: dict[str, object], forward: float, backward: float) -> None:
    case = replace(Case((9, 16, 32), 16), **change)  # type: ignore[arg-type]
    assert floors.tensors_moved(case, "forward") == pytest.approx(forward)
    assert floors.tensors_moved(case, "backward") == pytest.approx(backward)


def test_operations_are_those_of_real_tokens_or_of_one_a_sequence() -> None:
    case = replace(Case((9, 16, 32), 16), fill=0.5)
    assert floors.operations(case, "forward") == 2 * sum(case.lengths) * 32 * 16 * 2
    assert floors.operations(replace(case, token=0), "backward") == 2 * 2 * 9 * 32 * 16 * 2


def test_floor_goes_by_the_rate_of_the_dtype() -> None:
    case = replace(Case((9, 16, 32), 16), dtype="float32")
    slow = Ceilings(4.0, {"bfloat16": 1e6, "float32": 1e-3})
    assert floor_us(case, "forward", slow) == pytest.approx(floors.operations(case, "forward") / 1e9 * 1e6)
