"""Compare the kernels' targets on an H200-class GPU with the measured values.

    python -m benchmarks.targets DIR

Targets are for bfloat16, kernel size 1, gate and H = E/4, at sizes from 256x128x768 up unless one is named. Of several
sizes the worst one counts, and is named. Best torch.compile is the fastest of its modes measured at that size; if
max-autotune was not measured, the verdict says so. Exit status: 0; 2 if DIR has no results of a GPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from dlfa.terminal import one_line_errors

from . import providers
from .cases import BASE_SHAPE, SHAPES, SMALL_SHAPE, Case, Shape, core_case, shape_name
from .memory import saved_tensors
from .output import print_table
from .plots import size
from .results import Results, load_folder, rows_of

LARGE = tuple(shape for shape in SHAPES if shape != SMALL_SHAPE)
TRAFFIC_FILE = "ncu.json"
NOT_MEASURED = "not measured"
# The least writes of z by the counters, in tensors.
LEAST_WRITTEN = 0.95

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Target:
    """One line of the table: `bound` is an upper one, or with `at_least` a lower one; `measured` maps cases to values.

    `untuned` counts those that were compared with torch.compile without max-autotune.
    """

    name: str
    bound: float
    at_least: bool
    measured: dict[str, float]
    expected: int = 1
    stretch: float | None = None
    untuned: int = 0

    @property
    def worst(self) -> tuple[str, float] | None:
        """The case that is worst relative to the bound, and its value."""
        if not self.measured:
            return None
        pick = min if self.at_least else max
        return pick(self.measured.items(), key=lambda item: item[1])

    def _meets(self, bound: float) -> bool:
        worst = self.worst
        return worst is not None and (worst[1] >= bound if self.at_least else worst[1] <= bound)

    @property
    def verdict(self) -> str:
        """One of "met", "met, stretch too", "not met", "not measured", or "met" and what was not measured."""
        if not self.measured:
            return NOT_MEASURED
        if not self._meets(self.bound):
            return "not met"
        if self.untuned:
            return f"met, but at {self.untuned} of {len(self.measured)} max-autotune was not measured"
        if len(self.measured) < self.expected:
            return f"met where measured ({len(self.measured)} of {self.expected})"
        return "met, stretch too" if self.stretch is not None and self._meets(self.stretch) else "met"

    @property
    def cells(self) -> list[str]:
        """Name, bound, measured value and verdict as text."""
        sign = ">=" if self.at_least else "<="
        bound = f"{sign} {self.bound:g}" + (f" (stretch {self.stretch:g})" if self.stretch is not None else "")
        worst = self.worst
        if worst is None:
            return [self.name, bound, "", self.verdict]
        text = f"{worst[1]:.2f} at {worst[0]}" if worst[0] else f"{worst[1]:.2f}"
        if len(self.measured) > 1:
            best = (max if self.at_least else min)(self.measured.values())
            text += f", best {best:.2f}"
        return [self.name, bound, text, self.verdict]


def targets(results: dict[str, Results], traffic: list[dict[str, Any]] | None) -> list[Target]:
    """Return the table from results by suite and the rows of hardware counters, if any."""
    aif, launch, padding, token = (_rows(results, suite) for suite in ("aif", "launch", "padding", "token"))
    large, ours, compiled = list(LARGE), providers.OURS, _compiled

    def over_floor(pass_: str) -> dict[str, float]:
        rows = {shape: _find(aif, core_case(shape), pass_, ours) for shape in large}
        return {shape_name(shape): row["of_floor"] for shape, row in rows.items() if row}

    def against(
        rows: Rows, shapes: Iterable[Shape], pass_: str, own: str, other: Callable[[str], bool]
    ) -> dict[str, float]:
        ratios = {}
        for shape in shapes:
            mine = _find(rows, core_case(shape), pass_, own)
            theirs = [row["median_us"] for row in rows_of(rows, core_case(shape), pass_) if other(row["provider"])]
            if mine and theirs:
                ratios[shape_name(shape)] = min(theirs) / mine["median_us"]
        return ratios

    def against_compiled(
        name: str, bound: float, rows: Rows, shapes: list[Shape], pass_: str, own: str, other: Callable[[str], bool]
    ) -> Target:
        measured = against(rows, shapes, pass_, own, other)
        tuned = against(rows, shapes, pass_, own, lambda name: other(name) and providers.is_tuned(name))
        return Target(name, bound, True, measured, len(shapes), untuned=len(measured.keys() - tuned.keys()))

    captured = f"{ours}{providers.GRAPH}"
    small, count = [SMALL_SHAPE], len(large)
    return [
        Target("forward, time over floor", 1.5, False, over_floor("forward"), count, 1.2),
        Target("backward, time over floor", 2.0, False, over_floor("backward"), count, 1.5),
        against_compiled("forward against best torch.compile", 1.7, aif, large, "forward", ours, compiled),
        Target("forward against eager", 3.5, True, against(aif, large, "forward", ours, _eager), count),
        against_compiled("both passes against best torch.compile", 1.5, aif, large, "both", ours, compiled),
        Target("both passes against eager", 3.0, True, against(aif, large, "both", ours, _eager), count),
        against_compiled(
            f"{shape_name(SMALL_SHAPE)}, CUDA graph, both passes against best torch.compile with graphs", 1.3,
            launch, small, "both", captured, _compiled_with_graphs,
        ),
        Target(
            f"{shape_name(SMALL_SHAPE)}, wall clock, no graph, against eager", 2.5, True,
            against(launch, small, "both", ours, _eager),
        ),
        against_compiled(
            f"{shape_name(SMALL_SHAPE)}, wall clock, no graph, against torch.compile", 1.0,
            launch, small, "both", ours, _compiled_without_graphs,
        ),
        Target(f"DRAM traffic of forward at {shape_name(BASE_SHAPE)}, tensors", 3.4, False, _forward_traffic(traffic)),
        Target("saved for backward beyond inputs and output, tensors", 0.3, False, _saved(results), len(SHAPES)),
        Target("training step of BERT-base, fused AIF over plain head", 1.02, False, _step(results)),
        Target("30 % real tokens against 100 %, both passes", 2.0, True, _padding(padding, ours), 3),
        Target("30 % real tokens, packed, against 100 %", 2.0, True, _padding(padding, f"{ours}-packed"), 3),
        Target("token=0 forward over full forward", 0.7, False, _token(token), 2),
    ]  # fmt: skip


def _eager(provider: str) -> bool:
    return provider == providers.EAGER


def _compiled(provider: str) -> bool:
    return provider.startswith(providers.COMPILE)


def _compiled_with_graphs(provider: str) -> bool:
    return _compiled(provider) and (provider in providers.WITH_GRAPHS or provider.endswith(providers.GRAPH))


def _compiled_without_graphs(provider: str) -> bool:
    return _compiled(provider) and not _compiled_with_graphs(provider)


def _rows(results: dict[str, Results], suite: str) -> Rows:
    return [row for row in results[suite].rows if row["median_us"] is not None] if suite in results else []


def _find(rows: Rows, case: Case, pass_: str, provider: str) -> dict[str, Any] | None:
    return next((row for row in rows_of(rows, case, pass_) if row["provider"] == provider), None)


def _saved(results: dict[str, Results]) -> dict[str, float]:
    rows = results["memory"].rows if "memory" in results else []
    found = {shape: _find(rows, core_case(shape), "both", providers.OURS) for shape in SHAPES}
    values = {shape_name(shape): saved_tensors(row) for shape, row in found.items() if row}
    return {shape: value for shape, value in values.items() if value is not None}


def _step(results: dict[str, Results]) -> dict[str, float]:
    rows = _rows(results, "step")
    ours, plain = (_find(rows, core_case(SMALL_SHAPE), "step", name) for name in (providers.OURS, providers.PLAIN_HEAD))
    return {"": ours["median_us"] / plain["median_us"]} if ours and plain else {}


def _padding(rows: Rows, provider: str) -> dict[str, float]:
    """Return the speed-up of `provider` at 30 % real tokens over ours with a mask at 100 %, by size.

    With a mask z, dx and dy are still written at padding: by tensors moved alone the speed-up is 8 / 4.5.
    """
    times: dict[str, dict[tuple[str, float], float]] = {}
    for row in rows:
        if row["pass"] == "both":
            times.setdefault(size(row), {})[row["provider"], row["fill"]] = row["median_us"]
    full, part = (providers.OURS, 1.0), (provider, 0.3)
    return {name: found[full] / found[part] for name, found in times.items() if {full, part} <= found.keys()}


def _token(rows: Rows) -> dict[str, float]:
    times: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["provider"] == providers.OURS and tuple(row["shape"]) in LARGE:
            times.setdefault(size(row), {})[row["pass"]] = row["median_us"]
    passes = ("forward-token0", "forward")
    return {name: t[passes[0]] / t[passes[1]] for name, t in times.items() if t.keys() >= set(passes)}


def _forward_traffic(traffic: list[dict[str, Any]] | None) -> dict[str, float]:
    """Return the tensors of the forward; nothing if the counters missed part of the writes of z."""
    total = next((row for row in traffic or () if row["kernel"] == "forward, total"), None)
    if total is None:
        return {}
    read, written = total["dram_read_bytes"], total["dram_write_bytes"]
    return {"": total["tensors"]} if total["tensors"] * written >= LEAST_WRITTEN * (read + written) else {}


def load_traffic(folder: Path) -> list[dict[str, Any]] | None:
    """Return the rows of `benchmarks.ncu` in a folder; None if there are none.

    Raises:
        ValueError: the file is not such a file; the message names it.
    """
    path = folder / TRAFFIC_FILE
    if not path.is_file():
        return None
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
        assert all({"kernel", "tensors", "dram_read_bytes", "dram_write_bytes"} <= row.keys() for row in rows)
    except (ValueError, KeyError, TypeError, AssertionError, AttributeError):
        raise ValueError(
            f"{path}: not a file of benchmarks.ncu, which has rows with kernel, bytes and tensors"
        ) from None
    return rows


def print_targets(folder: Path) -> None:
    """Print the table of a folder's results.

    Raises:
        ValueError: a file is not a results file, or results are of a CPU, which has no targets.
    """
    results = load_folder(folder)
    names = {loaded.header["gpu"] for loaded in results.values()}
    if None in names:
        raise ValueError(f"{folder}: measured on a CPU, and targets are for a GPU")
    rows = ((target.cells, target.verdict == "not met") for target in targets(results, load_traffic(folder)))
    print_table(f"Targets: {', '.join(sorted(names)) or 'nothing measured'}", ("", "target", "measured", ""), rows)


def command(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of results files.")]) -> None:
    """Print what the kernels are meant to reach, what was measured, and whether that is enough."""
    with one_line_errors():
        if not folder.is_dir():
            raise ValueError(f"DIR must be a folder of results, got {folder}")
        print_targets(folder)


if __name__ == "__main__":
    typer.run(command)
