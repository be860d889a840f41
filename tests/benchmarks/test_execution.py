"""Counts of what a program does: of accesses whose counts are known, and of the kernels."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from compiling_process import run

pytest.importorskip("triton", reason="triton is there on Linux only")

from benchmarks import execution


@pytest.mark.parametrize(
    ("stride", "vector", "cycles", "least"),
    [
        (4, 1, 1, 1),  # neighbours
        (8, 1, 2, 1),  # every second word: two to a bank
        (128, 1, 32, 1),  # all of one bank
        (0, 1, 1, 1),  # one word for all
        (16, 4, 4, 4),  # 16 bytes a thread: four quarters of a warp
        (128, 4, 32, 4),
    ],
)
def test_cycles_of_shared_memory(stride: int, vector: int, cycles: int, least: int) -> None:
    memory = execution.CountedSharedMemory.shared(8192)
    places = 1024 + stride * np.arange(32)
    memory.load(places, 4, vector)
    memory.store(places, np.zeros((32, vector), dtype=np.uint32))
    memory.forget(places, vector)
    assert (memory.cycles, memory.least_cycles) == (2 * cycles, 2 * least)


@pytest.mark.parametrize(("stride", "size", "sectors"), [(4, 4, 4), (16, 4, 16), (32, 4, 32), (16, 16, 16), (0, 4, 1)])
def test_sectors_of_global_memory(stride: int, size: int, sectors: int) -> None:
    words = np.zeros(4096, dtype=np.uint32)
    begin = -words.ctypes.data % 32 + words.ctypes.data
    memory = execution.CountedGlobalMemory.of_process([(words.ctypes.data, words.ctypes.data + words.nbytes)])
    memory.load(begin + stride * np.arange(32), 4, size // 4)
    assert memory.sectors == sectors


def test_figures_of_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    class Program:
        warp_instructions = 401

        def __init__(self, code: Any, place: Any, grid: Any, parameters: Any, memories: dict[str, Any]) -> None:
            self.memories = memories

        def run(self) -> None:
            self.memories["shared"].load(1024 + 8 * np.arange(32), 4)
            self.memories["shared"].load(1024 + 16 * np.arange(32), 4)
            self.memories["global"].sectors = 3

    made = SimpleNamespace(shared_bytes=8192, code=SimpleNamespace(program=SimpleNamespace(threads=256)))
    made.parameters = lambda arguments: None
    monkeypatch.setattr(execution, "Block", Program)
    monkeypatch.setattr(execution.launching, "compiled", lambda launch, architecture: made)
    setting = execution.Setting("sm_90", "bfloat16", 64, 16)
    (_, item), *_ = execution.recorded_launches(setting, execution.VARIANTS[execution.CALLS[0]])
    assert execution.execute(item, "sm_90") == {
        "kernel": "squeeze", "programs": math.prod(item.grid), "threads": 256, "issue": 100, "shared": 2 + 4,
        "conflicts": 3.0, "l2_bytes": 3 * 32,
    }  # fmt: skip


def test_kernels_of_a_call(tmp_path: Path) -> None:
    run("-m", "benchmarks.execution", "--json", str(tmp_path / "rows.json"), "--embed-dim", "64")
    rows = json.loads((tmp_path / "rows.json").read_text())
    by_name = {(row["kernel"], row["pass"]): row for row in rows}
    assert list(by_name) == [
        ("squeeze", "forward"), ("context", "forward"), ("expand", "forward"), ("reduce", "backward"),
        ("context", "backward"), ("input_grads", "backward"), ("weight_grads", "backward"),
    ]  # fmt: skip
    assert all(row["issue"] > 0 and row["conflicts"] >= 1 for row in rows)
    # a tile's x, y and z or dz, 64 channels of 2 bytes, and little more
    tile_bytes = 512 * 128 // by_name["expand", "forward"]["programs"] * 64 * 2
    for kernel, pass_, tensors in (("squeeze", "forward", 2), ("expand", "forward", 3), ("reduce", "backward", 3)):
        assert tensors <= by_name[kernel, pass_]["l2_bytes"] / tile_bytes <= tensors + 2
