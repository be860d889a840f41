"""Options of the commands that compile or launch kernels without a GPU: values that are none are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

pytest.importorskip("triton", reason="triton is there on Linux only")

from benchmarks import codegen, execution, host, traffic


@pytest.mark.parametrize(
    ("command", "options", "interpret", "said"),
    [
        (codegen.app, ("--arch", "sm_70"), "0", "sm_80, sm_90, sm_100, sm_120, gfx942, got 'sm_70'"),
        (codegen.app, ("--dtype", "float64"), "0", "bfloat16, float16, float32, got 'float64'"),
        (codegen.app, ("--call", "gate"), "0", "gate k=1 padded, select k=1 padded"),
        (codegen.app, (), "1", "TRITON_INTERPRET: must be unset"),
        (execution.app, ("--arch", "sm_100"), "0", "sm_80, sm_90, got 'sm_100'"),
        (execution.app, ("--call", "gate"), "0", "gate k=1 padded, select k=1 padded"),
        (execution.app, (), "1", "TRITON_INTERPRET: must be unset"),
        (host.app, ("--dtype", "float64"), "0", "bfloat16, float16, float32, got 'float64'"),
        (host.app, ("--embed-dim", "4"), "0", "--embed-dim"),
        (host.app, (), "1", "TRITON_INTERPRET: must be unset"),
        (traffic.app, ("--dtype", "float64"), "1", "bfloat16, float16, float32, got 'float64'"),
    ],
)
def test_bad_options_are_refused(
    command: typer.Typer,
    options: tuple[str, ...],
    interpret: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", interpret)
    monkeypatch.setenv("COLUMNS", "300")
    result = CliRunner().invoke(command, ["--json", str(tmp_path / "rows.json"), *options])
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "rows.json").exists()
