"""What is promised to whoever installs the project: dependencies declared and pinned, a wheel with all it needs."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
MODULE_OF = {"scikit-learn": "sklearn"}


if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # transformers brings it


def declared(*extras: str) -> list[Requirement]:
    """The requirements in pyproject.toml, those of `extras` and of the extras that they name included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = [Requirement(line) for line in project["dependencies"]]
    waiting = list(extras)
    while waiting:
        for item in map(Requirement, project["optional-dependencies"][waiting.pop()]):
            if item.name == "dlfa":
                waiting += item.extras
            else:
                found.append(item)
    return [item for item in found if not item.marker or item.marker.evaluate()]


def pins(file: str = "constraints.txt") -> dict[str, str]:
    lines = (ROOT / file).read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {
        canonicalize_name(item.name): str(item.specifier).removeprefix("==")
        for item in requirements
        if not item.marker or item.marker.evaluate()
    }


def imported_by(package: str) -> set[str]:
    """Top-level modules that a package imports anywhere, in functions too, without itself and the standard library."""
    modules: set[str] = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                modules.add(node.module.split(".")[0])
    return modules - sys.stdlib_module_names - {package}


def test_the_kernels_need_torch_and_triton_alone() -> None:
    assert imported_by("dlfa_kernels") <= {"torch", "triton"}


def test_every_import_is_a_declared_dependency_and_every_dependency_is_imported() -> None:
    imported = imported_by("dlfa") | imported_by("dlfa_kernels")
    needed = {MODULE_OF.get(item.name, item.name.replace("-", "_")) for item in declared()}
    optional = {item.name for item in declared("lora", "hub")} - {item.name for item in declared()}
    assert imported - {"dlfa", "dlfa_kernels"} - optional <= needed
    assert needed <= imported


@pytest.mark.parametrize("extra", ["lora", "hub", "test", "benchmark", "dev"])
def test_constraints_pin_what_is_declared_within_its_range(extra: str) -> None:
    pinned = pins()
    for item in declared(extra):
        assert canonicalize_name(item.name) in pinned, f"{item.name} is not in constraints.txt"
        assert item.specifier.contains(pinned[canonicalize_name(item.name)]), f"{item} excludes the pinned version"


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    lowest = {
        canonicalize_name(item.name): next(Version(bound.version) for bound in item.specifier if bound.operator == ">=")
        for item in declared("test", "benchmark")
    }
    assert {name: Version(pinned) for name, pinned in pins("constraints-oldest.txt").items()} == lowest


def test_constraints_pin_everything_that_comes_along() -> None:
    pinned = pins()
    if importlib.metadata.version("torch").split("+")[0] != pinned["torch"]:
        pytest.skip("this environment was not installed under constraints.txt")
    seen: set[str] = set()
    waiting = declared("test")
    while waiting:
        item = waiting.pop()
        name = canonicalize_name(item.name)
        if name in seen or name.startswith(("cuda-", "nvidia-")):  # CUDA's libraries are torch's own choice
            continue
        seen.add(name)
        assert name in pinned, f"{name} is not in constraints.txt"
        for line in importlib.metadata.requires(name) or []:
            needed = Requirement(line)
            extras = ("", *item.extras)
            if not needed.marker or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    assert len(seen) > 40


def test_the_wheel_holds_both_packages_typed_and_the_licence(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("dlfa", "dlfa_kernels"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tests", "benchmarks"):
        (source / name).mkdir()
        (source / name / "__init__.py").touch()
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "README.md").touch()
    # Without isolation, nothing is downloaded: setuptools is there, as torch needs it.
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(source)], check=True, timeout=120)
    (wheel,) = tmp_path.glob("dlfa-*-py3-none-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        path.relative_to(ROOT).as_posix() for name in ("dlfa", "dlfa_kernels") for path in (ROOT / name).rglob("*.py")
    }
    assert modules | {"dlfa/py.typed", "dlfa_kernels/py.typed"} <= names
    assert any(re.fullmatch(r"dlfa-[^/]+\.dist-info/licenses/LICENSE", name) for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"dlfa", "dlfa_kernels"}


def test_the_licence_is_the_whole_text() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "END OF TERMS AND CONDITIONS" in text
    assert "APPENDIX: How to apply the Apache License to your work." in text


def test_the_source_is_python_3_10() -> None:
    newer = re.compile(
        r"\b(tomllib|StrEnum|ExceptionGroup)\b|from typing import .*\b(Self|Never|LiteralString|override)\b"
    )
    for name in ("dlfa", "dlfa_kernels", "benchmarks"):
        for path in (ROOT / name).rglob("*.py"):
            source = path.read_text()
            ast.parse(source, feature_version=(3, 10))
            assert not newer.search(source), f"{path}: {newer.search(source)}"
