"""What a results file says of the machine: its ceilings, its header, the commit."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton", reason="triton is there on Linux only")

from benchmarks.cases import BASE_SHAPE, core_case
from benchmarks.hardware import commit, header, measure_ceilings
from benchmarks.timing import summarise


def test_ceilings_count_both_ways_of_a_copy_and_both_operations_of_a_product() -> None:
    microseconds = iter([50.0, 100.0, 200.0, 400.0])
    stopwatch = SimpleNamespace(device_time=lambda *_: summarise([next(microseconds)]))
    found = measure_ceilings(torch.device("cpu"), stopwatch)  # type: ignore[arg-type]
    assert found.copy_tb_s == pytest.approx(2 * (16 << 20) / 50e-6 / 1e12)
    assert list(found.matmul_tflop_s) == ["bfloat16", "float16", "float32"]
    rates = [2 * 256**3 / seconds / 1e12 for seconds in (100e-6, 200e-6, 400e-6)]
    assert list(found.matmul_tflop_s.values()) == pytest.approx(rates)


def test_products_of_a_floor_take_tf32_and_the_setting_stays() -> None:
    settings = torch.backends.cuda.matmul
    assert not settings.allow_tf32  # torch's default
    taken: list[bool] = []
    stopwatch = SimpleNamespace(device_time=lambda *_: taken.append(settings.allow_tf32) or summarise([1.0]))
    measure_ceilings(torch.device("cpu"), stopwatch)  # type: ignore[arg-type]
    assert taken[1:] == [True] * 3
    assert not settings.allow_tf32


def test_header_of_a_cpu() -> None:
    found = header(torch.device("cpu"), "command")
    assert found["gpu"] is None
    assert found["torch"] == str(torch.__version__)
    assert found["command"] == "command"
    json.dumps(found, allow_nan=False)


def test_commit_of_a_tree_without_history(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("dlfa.evaluation.source._ROOT", tmp_path)
    monkeypatch.delenv("BENCHMARK_COMMIT", raising=False)
    assert commit() == "unknown"
    monkeypatch.setenv("BENCHMARK_COMMIT", "abc123")
    assert commit() == "abc123"
    assert core_case(BASE_SHAPE).tensor_bytes == 256 * 128 * 768 * 2
