"""Run the cells of a sweep, one at a time or in several processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from ..processes import end_with_parent
from ..terminal import quiet_libraries
from ..training.recorded_runs import run_recorded, write_error
from ..training.shared_inputs import SharedInputs, load_data, load_shared_inputs
from .config import Cell, SweepConfig

# Starting a process takes as long as a few runs over a frozen encoder.
_RUNS_WORTH_A_PROCESS = 8


class ProcessEndedError(RuntimeError):
    """One of a sweep's processes was killed, which ended the others too; no run caused it."""


def default_processes(config: SweepConfig, runs: int) -> int:
    """Return how many runs to run at a time: one per GPU; on a CPU one, or with a frozen encoder one per 8 `runs`."""
    if config.base.freeze_encoder and not torch.accelerator.is_available():
        return max(1, min(torch.get_num_threads(), runs // _RUNS_WORTH_A_PROCESS))
    return max(1, torch.cuda.device_count())


def run_cells(
    config: SweepConfig,
    cells: Sequence[Cell],
    shared: SharedInputs | None,
    keep_models: bool,
    processes: int,
    started: Callable[[Cell], None],
) -> Generator[Cell, None, None]:
    """Run `cells`, yielding each one when it has ended.

    An error, Ctrl-C or closing the generator also ends the processes; the cells that they were running can be resumed.

    Args:
        config: the sweep.
        cells: the cells to run.
        shared: the inputs of the cells; None if `processes` is more than 1, as each process reads them once itself.
        keep_models: save each cell's model.
        processes: number of cells to run at a time.
        started: called with each cell when it starts.

    Raises:
        ProcessEndedError: a process was killed, for example when memory ran out; the running cells can be resumed.
    """
    if shared is not None:
        for cell in cells:
            started(cell)
            _run_cell(config, cell, shared, keep_models)
            yield cell
        return
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(processes):
        numbers.put(number)
    shares = (numbers, processes, torch.cuda.device_count())
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(processes, context, initializer=_start_worker, initargs=shares)
    try:
        waiting, running = deque(cells), dict[Future[None], Cell]()
        while waiting or running:
            while waiting and len(running) < processes:
                cell = waiting.popleft()
                running[pool.submit(_run_in_worker, config, cell, keep_models)] = cell
                started(cell)
            over, _ = wait(running, return_when=FIRST_COMPLETED)
            broken: BrokenProcessPool | None = None
            for future in over:
                cell, error = running.pop(future), future.exception()
                if isinstance(error, BrokenProcessPool):
                    broken = error
                    continue
                if error is not None:
                    write_error(config.run_config(cell).output_dir, error)
                yield cell
            if broken is not None:
                raise broken
    except BrokenProcessPool as error:
        raise ProcessEndedError("a process of the sweep was killed, or ran out of memory") from error
    except BaseException:
        # Otherwise the workers would finish their cells.
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _run_cell(config: SweepConfig, cell: Cell, shared: SharedInputs, keep_models: bool) -> None:
    run_recorded(config.run_config(cell), lambda: shared, keep_model=keep_models)


_in_worker: dict[str, SharedInputs] = {}


def _start_worker(numbers: Any, processes: int, gpus: int) -> None:
    """Assign this process its own GPU, or its share of the cores, before either is used."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the main one ends the others
    number = numbers.get()
    if gpus > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[number % gpus]
    elif gpus == 0:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    quiet_libraries()


def _run_in_worker(config: SweepConfig, cell: Cell, keep_models: bool) -> None:
    if "shared" not in _in_worker:
        base = config.base.with_presets()
        _in_worker["shared"] = load_shared_inputs(base, load_data(base))
    _run_cell(config, cell, _in_worker["shared"], keep_models)
