"""Imports go one way: between the parts of `dlfa`, and between the modules of `dlfa_kernels` and of the benchmarks."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def imported(path: Path, *, later: bool) -> Iterator[tuple[str, ...]]:
    """The modules of its own package that a file imports, as parts of their names; with `later` in functions, too."""
    package = path.relative_to(ROOT).parts[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if later else tree.body:
        if isinstance(node, ast.ImportFrom) and node.level:
            above = package[: len(package) - node.level + 1]
            if node.module:
                yield (*above, *node.module.split("."))
            else:
                yield from ((*above, name.name) for name in node.names)


def graph(package: str, depth: int, *, later: bool) -> dict[str, set[str]]:
    """Which parts of a package import which others; a part is named by at most `depth` names below the package."""
    edges: dict[str, set[str]] = {}
    for path in (ROOT / package).rglob("*.py"):
        part = ".".join(path.relative_to(ROOT).with_suffix("").parts[1 : 1 + depth])
        targets = {".".join(target[1 : 1 + depth]) for target in imported(path, later=later)}
        edges.setdefault(part, set()).update(targets - {part, ""})
    return edges


# Tuning, which a call may start, makes calls: `tile_trials` imports these when it does.
@pytest.mark.parametrize(
    ("package", "depth", "later", "lowest"),
    [("dlfa", 1, True, "files"), ("dlfa_kernels", 2, False, "rounding"), ("benchmarks", 1, True, "output")],
)
def test_imports_go_one_way(package: str, depth: int, later: bool, lowest: str) -> None:
    edges = graph(package, depth, later=later)
    assert edges[lowest] == set()
    assert any(lowest in targets for targets in edges.values())
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))
