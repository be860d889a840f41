"""Launches by Triton's launcher without a GPU: what they run computes AIF, and how long the host takes."""

from __future__ import annotations

import json
import shutil
import sysconfig
from pathlib import Path

import pytest
from compiling_process import run

pytest.importorskip("triton", reason="triton is there on Linux only")

from benchmarks.host_driver.activate import activate, build, driver_installed

can_launch = pytest.mark.skipif(
    driver_installed() or shutil.which("cc") is None or not Path(sysconfig.get_path("include"), "Python.h").exists(),
    reason="needs a C compiler and Python's headers, as Triton's launcher does, and no NVIDIA driver",
)


@can_launch
def test_what_triton_launches_computes_aif() -> None:
    run("tests/benchmarks/launched_by_triton.py", "sm_90")


@can_launch
def test_times_of_the_host(tmp_path: Path) -> None:
    run("-m", "benchmarks.host", "--json", str(tmp_path / "host.json"), "--embed-dim", "64", "--dtype", "float16")
    rows = json.loads((tmp_path / "host.json").read_text())
    launches = {(row["form"], row["pass"]): row["launches"] for row in rows}
    assert launches == {
        ("padded", "forward"): 3, ("padded", "training step"): 7, ("packed", "forward"): 4,
        ("packed", "training step"): 9, ("token=0", "forward"): 3, ("token=0", "training step"): 9,
    }  # fmt: skip
    assert [row["sizes"] for row in rows] == ["known", "new"] * 6
    assert all(0 < row["p20_us"] <= row["median_us"] <= row["p80_us"] for row in rows)
    assert all((row["first_s"] is not None) == (row["sizes"] == "known") for row in rows)


def test_a_compiler_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "false")
    with pytest.raises(RuntimeError, match=r"false could not compile driver\.c"):
        build(tmp_path)


def test_no_compiler_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="no C compiler was found"):
        build(tmp_path)


def test_an_installed_driver_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    with pytest.raises(RuntimeError, match="an NVIDIA driver is installed"):
        activate(tmp_path, "sm_90")
    assert not any(tmp_path.iterdir())
