"""A sweep: one run for every combination of fusion mode, lower layer and seed, each kept as soon as it is there.

DIR/cells/<mode>[-layer<N>]-seed<S>/ are ordinary run directories, a failed one with the reason in error.txt;
DIR/sweep.json holds the sweep's configuration, hashes of its data and encoder, the state of every cell, and the summary
over seeds.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import statistics
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from transformers import AutoConfig

from dlfa_kernels.checks import FUSE_MODES

from . import atomic
from .configuration import DLFAConfig
from .directory_lock import LOCK, exclusive
from .frozen.fingerprints import weights_fingerprint
from .fusion_names import FUSIONS
from .intermediate import Predecessor
from .json_files import read_object
from .materials import Materials, compute_states, load_data, load_encoder, load_materials
from .pretrained import no_encoder
from .processes import check_alone
from .results import installed_version
from .run_config import RunConfig, differences
from .run_directory import SWEEP, RunDirectory
from .terminal import quiet_libraries
from .training import fit, prepare

MODES = (*(fusion for fusion in FUSIONS if fusion != "aif"), *(f"aif:{fuse}" for fuse in FUSE_MODES))
_WITHOUT_LAYER = ("last", "scalar_mix")
# A process takes as long to start as a few runs over a frozen encoder.
_RUNS_WORTH_A_PROCESS = 8


@dataclass(frozen=True)
class Cell:
    """One run of a sweep; `fusion_layer` is None for a mode that takes no lower layer, or all of them."""

    mode: str
    fusion_layer: int | None
    seed: int

    @property
    def name(self) -> str:
        """Of the run's directory."""
        layer = "" if self.fusion_layer is None else f"-layer{self.fusion_layer}"
        return f"{self.mode.replace(':', '-')}{layer}-seed{self.seed}"

    @property
    def model_options(self) -> dict[str, Any]:
        """The options of the model that tell this cell from others."""
        fusion, _, fuse = self.mode.partition(":")
        return {"fusion": fusion, "fusion_layer": self.fusion_layer} | ({"fuse": fuse} if fuse else {})


@dataclass(frozen=True)
class SweepConfig:
    """What a sweep runs.

    Args:
        base: every run's options; its own seed, output directory and choice of fusion are replaced.
        output_dir: of the sweep.
        fusion_layers: lower layers, as `hidden_states` counts them; None takes all.
        seeds: of each combination.
        modes: of `MODES`; "last", and "scalar_mix", which mixes all layers, run once a seed.

    Raises:
        ValueError: an unknown mode, something twice, or nothing at all.
    """

    base: RunConfig
    output_dir: Path
    fusion_layers: tuple[int, ...] | None
    seeds: tuple[int, ...] = (1,)
    modes: tuple[str, ...] = ("last", "aif:gate")

    def __post_init__(self) -> None:
        for mode in self.modes:
            if mode not in MODES:
                raise ValueError(f"modes must be of {', '.join(MODES)}, got {mode!r}")
        for name in ("fusion_layers", "seeds", "modes"):
            values = getattr(self, name)
            if values is not None and (not values or len(set(values)) < len(values)):
                raise ValueError(f"{name} must name at least one, and none twice, got {','.join(map(str, values))}")

    def resolved(self) -> SweepConfig:
        """The same sweep with all layers named as 0..L-1, and every run's options checked against the encoder.

        Raises:
            ValueError: a layer that the encoder does not have, or twice the same, an option out of its range, or no
                encoder.
        """
        try:
            encoder = AutoConfig.from_pretrained(self.base.model)
        except (OSError, ValueError) as error:
            raise no_encoder(self.base.model, error) from error
        depth = encoder.num_hidden_layers
        named = tuple(range(depth)) if self.fusion_layers is None else self.fusion_layers
        # A negative index and what it stands for are one layer; one that there is not is refused below.
        layers = tuple(layer + depth + 1 if -depth - 1 <= layer < 0 else layer for layer in named)
        resolved = dataclasses.replace(self, fusion_layers=layers)
        for cell in resolved.cells():
            DLFAConfig(encoder_config=encoder, **self.run_config(cell).model_options)
        return resolved

    def cells(self) -> list[Cell]:
        """All runs, seed by seed, so that a sweep that is cut short has something of everything."""
        return [
            Cell(mode, layer, seed)
            for seed in self.seeds
            for mode in self.modes
            for layer in ((None,) if mode in _WITHOUT_LAYER else self.fusion_layers or ())
        ]

    def run_config(self, cell: Cell) -> RunConfig:
        """The run of a cell."""
        return dataclasses.replace(
            self.base,
            output_dir=self.output_dir / "cells" / cell.name,
            seed=cell.seed,
            model_options={**self.base.model_options, **cell.model_options},
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, without the output directory."""
        shared = {name: value for name, value in self.base.with_presets().to_json().items() if name != "seed"}
        layers = None if self.fusion_layers is None else list(self.fusion_layers)
        return {**shared, "fusion_layers": layers, "seeds": list(self.seeds), "modes": list(self.modes)}


def run_sweep(
    config: SweepConfig, *, keep_models: bool = False, processes: int | None = None, progress: bool = False
) -> dict[str, Any]:
    """Run what is missing of a sweep.

    Cells that are complete are kept, an interrupted one goes on, a failed one is tried again. What several cells need
    (data, tokenised data, a frozen encoder and its states) is read once by each process.

    Args:
        config: the sweep.
        keep_models: write each cell's model.
        processes: how many run at a time; None takes one for each GPU. Without a GPU it takes one, but over a frozen
            encoder, whose runs gain nothing from several threads, up to one a thread where there are many runs.
        progress: show a bar on standard error.

    Returns:
        The content of sweep.json.

    Raises:
        ValueError, TypeError: bad input, or a directory that holds another sweep, or one of other data or another
            encoder of which something is missing; raised before any training.
    """
    if processes is not None and processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}")
    check_alone("a sweep starts its own processes, one a GPU")
    config = config.resolved()
    with exclusive(config.output_dir):
        return _run_held(config, keep_models, processes, progress)


def _run_held(config: SweepConfig, keep_models: bool, processes: int | None, progress: bool) -> dict[str, Any]:
    """`run_sweep`, in a directory that no other process works in."""
    _check_directory(config)
    record = _Record(config)
    base = config.base.with_presets()
    data = load_data(base)
    data_sha256 = data.sha256()
    record.check({"data_sha256": data_sha256})
    todo = [cell for cell in config.cells() if record.state_of(cell) != "done"]
    for cell in config.cells():
        if cell not in todo:  # it may have been killed between its results and the removal of its checkpoints
            RunDirectory(config.run_config(cell).output_dir).remove_leftovers()
    if todo:
        # All data are read and checked before the directory is claimed for this configuration.
        predecessor = Predecessor.of(config.base)
        stages = [] if predecessor is None else predecessor.check()
        materials = load_materials(base, data)
        encoder = materials.encoder_sha256 or weights_fingerprint(load_encoder(base.model).encoder)
        record.claim({"data_sha256": data_sha256, "encoder_sha256": encoder, "intermediate_data_sha256": stages})
        record.write()
        compute_states(materials, ({**config.base.model_options, **cell.model_options} for cell in todo))
        count = min(processes or _default_processes(config, len(todo)), len(todo))
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, disable=not progress) as bar:
            done = bar.add_task("sweep", total=len(config.cells()), completed=len(config.cells()) - len(todo))
            for cell in _run_all(config, todo, materials, keep_models, count, _describer(bar, done)):
                record.write()
                bar.advance(done)
                if record.state_of(cell) == "failed":
                    console.print(f"{cell.name} failed: {record.reason(cell)}", markup=False, highlight=False)
    return record.write()


def _default_processes(config: SweepConfig, runs: int) -> int:
    if config.base.freeze_encoder and not torch.accelerator.is_available():
        return max(1, min(torch.get_num_threads(), runs // _RUNS_WORTH_A_PROCESS))
    return max(1, torch.cuda.device_count())


def _describer(bar: Progress, task: Any) -> Callable[[Cell], None]:
    return lambda cell: bar.update(task, description=cell.name)


def _check_directory(config: SweepConfig) -> None:
    """Refuse a directory that holds something else."""
    path, now = config.output_dir / SWEEP, config.to_json()
    if path.exists():
        before = read_object(path, ("config", "cells"))["config"]
        if changed := differences(before, now):
            shown = "; ".join(f"{name}: {before.get(name)!r} there, {now.get(name)!r} now" for name in changed)
            raise ValueError(f"--output-dir {config.output_dir} holds a sweep of another configuration ({shown})")
    elif any(found.name != LOCK for found in config.output_dir.iterdir()):
        raise ValueError(f"--output-dir {config.output_dir} holds something else than a sweep; give a new directory")


class _Record:
    """sweep.json: drawn from the cells' directories each time, so that it never tells of what is not there."""

    def __init__(self, config: SweepConfig) -> None:
        self.config = config
        before = read_object(self.file) if self.file.exists() else {}
        self.inputs: dict[str, Any] | None = before.get("inputs")

    @property
    def file(self) -> Path:
        """sweep.json itself."""
        return self.config.output_dir / SWEEP

    def check(self, inputs: Mapping[str, Any]) -> None:
        """Raise ValueError where the cells that are there were made from others than `inputs`."""
        before = inputs if self.inputs is None else self.inputs
        if changed := [name for name in inputs if before.get(name) != inputs[name]]:
            raise ValueError(
                f"--output-dir {self.config.output_dir} holds a sweep of other data or another encoder (another "
                f"{', '.join(changed)}); give a new directory"
            )

    def claim(self, inputs: dict[str, Any]) -> None:
        """Keep what further cells are made from.

        Raises:
            ValueError: those that are there were made from something else, or it was not recorded.
        """
        if self.inputs is None and self.file.exists():
            raise ValueError(
                f"--output-dir {self.config.output_dir} holds a sweep of an earlier release, which did not record its "
                "data and encoder; give a new directory"
            )
        self.check(inputs)
        self.inputs = inputs

    def _directory(self, cell: Cell) -> RunDirectory:
        return RunDirectory(self.config.output_dir / "cells" / cell.name)

    def state_of(self, cell: Cell) -> str:
        """ "done", "failed", "interrupted" or "to do"."""
        directory = self._directory(cell)
        if directory.results_file.exists():
            return "done"
        if error_file(directory.path).exists():
            return "failed"
        return "interrupted" if directory.run_file.exists() else "to do"

    def reason(self, cell: Cell) -> str:
        """The last line of a failed cell's error."""
        return failure_reason(self._directory(cell).path)

    def write(self) -> dict[str, Any]:
        """Write and return it."""
        cells: list[dict[str, Any]] = []
        for cell in self.config.cells():
            entry: dict[str, Any] = {"name": cell.name, **dataclasses.asdict(cell), "state": self.state_of(cell)}
            if entry["state"] == "done":
                results = read_object(self._directory(cell).results_file, ("average", "train"))
                entry |= {name: results[name] for name in ("metric", "average", "average_zero_shot")}
                entry["seconds"] = results["train"]["seconds"]
            elif entry["state"] == "failed":
                entry["error"] = self.reason(cell)
            cells.append(entry)
        content = {
            "config": self.config.to_json(),
            "inputs": self.inputs,
            "dlfa": installed_version("dlfa"),
            "cells": cells,
            "summary": _summary(cells),
        }
        atomic.write_json(self.file, content)
        return content


def _summary(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and sample standard deviation over the seeds of each mode and layer; null where there is none."""
    groups: dict[tuple[str, int | None], list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["mode"], cell["fusion_layer"]), []).append(cell)
    rows = []
    for (mode, layer), members in groups.items():
        done = [cell for cell in members if cell["state"] == "done"]
        row: dict[str, Any] = {"mode": mode, "fusion_layer": layer, "done": len(done), "of": len(members)}
        for name in ("average_zero_shot", "average", "seconds"):
            values = [cell[name] for cell in done if cell[name] is not None]
            row[name] = statistics.fmean(values) if values else None
            row[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else None
        rows.append(row)
    return rows


def error_file(run: Path) -> Path:
    """Where a run that failed, in the directory `run`, has its traceback."""
    return run / "error.txt"


def failure_reason(run: Path) -> str:
    """The last line of a failed run's traceback."""
    return error_file(run).read_text(encoding="utf-8").strip().split("\n")[-1]


def _load(config: SweepConfig) -> Materials:
    base = config.base.with_presets()
    return load_materials(base, load_data(base))


def _run_all(
    config: SweepConfig,
    cells: Sequence[Cell],
    materials: Materials,
    keep_models: bool,
    processes: int,
    started: Callable[[Cell], None],
) -> Iterator[Cell]:
    """Run `cells`, yielding each when it is over."""
    if processes == 1:
        for cell in cells:
            started(cell)
            _run_cell(config, cell, materials, keep_models)
            yield cell
        return
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(processes):
        numbers.put(number)
    shares = (numbers, processes, torch.cuda.device_count())
    pool = ProcessPoolExecutor(processes, context, initializer=_start_worker, initargs=shares)
    try:
        running: dict[Future[None], Cell] = {
            pool.submit(_run_in_worker, config, cell, keep_models): cell for cell in cells
        }
        while running:
            over, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in over:
                cell = running.pop(future)
                if (error := future.exception()) is not None:
                    _write_error(config.run_config(cell).output_dir, error)
                yield cell
    finally:
        pool.shutdown(cancel_futures=True)


def _run_cell(config: SweepConfig, cell: Cell, materials: Materials, keep_models: bool) -> None:
    run_recorded(config.run_config(cell), lambda: materials, keep_model=keep_models)


def run_recorded(run: RunConfig, materials: Callable[[], Materials], *, keep_model: bool) -> bool:
    """Run, or go on with, one of many runs; whatever goes wrong in it is written down in its directory.

    One that failed before starts anew.

    Args:
        run: the run.
        materials: gives what it shares with others.
        keep_model: write the trained model.

    Returns:
        Whether the run is complete.
    """
    failed_before = error_file(run.output_dir)
    again = failed_before.exists()
    failed_before.unlink(missing_ok=True)
    try:
        prepared = prepare(run, overwrite=again, resume=not again, materials=materials())
        if prepared is not None:
            fit(prepared, keep_model=keep_model)
    except Exception as error:
        _write_error(run.output_dir, error)
        return False
    return True


def _write_error(run: Path, error: BaseException) -> None:
    atomic.write_text(error_file(run), "".join(traceback.format_exception(error)))


_in_worker: dict[str, Materials] = {}


def _start_worker(numbers: Any, processes: int, gpus: int) -> None:
    """Give this process its own GPU, or its share of the cores, before anything touches either."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    number = numbers.get()
    if gpus > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[number % gpus]
    elif gpus == 0:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    quiet_libraries()


def _end_with_parent() -> None:
    """End this process when its parent is gone, however it went: the same command again is then alone in the cells."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_in_worker(config: SweepConfig, cell: Cell, keep_models: bool) -> None:
    if "materials" not in _in_worker:
        _in_worker["materials"] = _load(config)
    _run_cell(config, cell, _in_worker["materials"], keep_models)
