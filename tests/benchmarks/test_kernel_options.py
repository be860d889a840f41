"""Options of the commands that compile or launch kernels without a GPU: values that are none are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

pytest.importorskip("triton", reason="triton is there on Linux only")

from benchmarks import codegen, execution, host, kernel_options, traffic


@pytest.mark.parametrize(
    ("command", "options", "interpreted", "said"),
    [
        (codegen.app, ("--arch", "sm_70"), False, "sm_80, sm_90, sm_100, sm_120, gfx942, got 'sm_70'"),
        (codegen.app, ("--dtype", "float64"), False, "bfloat16, float16, float32, got 'float64'"),
        (codegen.app, ("--call", "gate"), False, "gate k=1 padded, select k=1 padded"),
        (
            codegen.app,
            ("--kernel", "fuse", "--call", "gate k=1 padded"),
            False,
            "context, expand, input_grads, reduce, squeeze, weight_grads, got 'fuse'",
        ),
        (codegen.app, (), True, "TRITON_INTERPRET: must be unset"),
        (execution.app, ("--arch", "sm_100"), False, "sm_80, sm_90, got 'sm_100'"),
        (execution.app, ("--call", "gate"), False, "gate k=1 padded, select k=1 padded"),
        (execution.app, (), True, "TRITON_INTERPRET: must be unset"),
        (host.app, ("--dtype", "float64"), False, "bfloat16, float16, float32, got 'float64'"),
        (host.app, ("--embed-dim", "4"), False, "--embed-dim"),
        (host.app, (), True, "TRITON_INTERPRET: must be unset"),
        (traffic.app, ("--dtype", "float64"), True, "bfloat16, float16, float32, got 'float64'"),
    ],
)
def test_bad_options_are_refused(
    command: typer.Typer,
    options: tuple[str, ...],
    interpreted: bool,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel_options, "INTERPRETED", interpreted)
    monkeypatch.setenv("COLUMNS", "300")
    result = CliRunner().invoke(command, ["--json", str(tmp_path / "rows.json"), *options])
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "rows.json").exists()
