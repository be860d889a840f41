"""Programs in place of tools that are not there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest


def program(path: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python script on the PATH in place of a tool."""
    tool = path / name
    tool.write_text(f"#!{sys.executable}\nimport sys\n{text}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path}{os.pathsep}{os.environ['PATH']}")
