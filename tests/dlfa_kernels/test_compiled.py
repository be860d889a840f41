"""What the kernels compile to, executed by `benchmarks.ptx_machine`: their numbers, on a machine without a GPU.

The interpreter takes Python that the compiler refuses, and knows nothing of layouts, copies under way and barriers.
Each architecture is tested in a process of its own, as this one runs the kernels otherwise.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is there on Linux only")

ROOT = Path(__file__).resolve().parents[2]


def run_compiled(architecture: str, *options: str) -> str:
    """Run tests of kernels on what they compile to; what pytest says."""
    environment = {**os.environ, "DLFA_TEST_PTX": architecture}
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/dlfa_kernels/test_kernels.py"]
    done = subprocess.run([*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# What is launched again is launched in the same way everywhere.
@pytest.mark.parametrize(
    ("architecture", "cases"),
    [
        pytest.param("sm_80", "test_one_of_each_kind and not again", marks=pytest.mark.slow),
        ("sm_90", "test_one_of_each_kind"),
    ],
)
def test_cases_that_compile_differently(architecture: str, cases: str) -> None:
    said = run_compiled(architecture, "-k", cases)
    assert f"compiled for {architecture}, executed by benchmarks.ptx_machine" in said


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_random_cases(architecture: str) -> None:
    run_compiled(architecture, "-m", "", "-k", "test_random_configuration or test_random_wide_configuration")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_widths_of_encoders(architecture: str) -> None:
    run_compiled(architecture, "-m", "", "-k", "test_widths_of_encoders")


@pytest.mark.slow
def test_all_cases_on_hopper() -> None:
    run_compiled("sm_90")
