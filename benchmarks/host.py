"""Host time of a call of `FusedAIF`, measured without a GPU: Triton launches through a stub driver.

    python -m benchmarks.host --json FILE [--arch sm_90] [--dtype bfloat16] [--embed-dim 768] [--reduction 4]

At the small size a GPU waits for the host, so `benchmarks.launch` measures the same there, except for torch's
allocations on a GPU, the driver's time for a launch, and the processor. A row is a pass of a call:

    sizes       known: as in earlier calls (`dlfa_kernels.replays`); new: each call has a new batch size
    launches    kernels launched by a call
    median_us   of consecutive calls, and their 20th and 80th percentile
    first_s     the first call with empty caches of compiled kernels, for "known" rows; a step's forward is compiled
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count, islice, repeat
from pathlib import Path
from typing import Any

import torch
import typer
from rich.console import Console
from rich.progress import track
from torch import Tensor

from dlfa_kernels import FusedAIF
from dlfa_kernels.branches import default_squeeze_dim

from .cases import DTYPES
from .cpu_as_gpu import cpu_as_gpu
from .host_driver.activate import HostDriver, activate
from .kernel_options import Architecture, Dtype, EmbedDim, Reduction, RowsPath, refuse_interpreter
from .output import print_table, write_json
from .timing import Timing, summarise

FORMS = ("padded", "packed", "token=0")
PASSES = ("forward", "training step")
COLUMNS = ("form", "pass", "sizes", "launches", "median_us", "p20_us", "p80_us", "first_s")
BATCH, LENGTH = 2, 8  # small tensors, so that the CPU's memory does not affect the time
WARM_CALLS, TIMED_CALLS = 40, 300


class Calls:
    """Calls of a module in one input form."""

    def __init__(self, form: str, module: FusedAIF, dtype: torch.dtype) -> None:
        self.form, self.module, self.dtype = form, module, dtype
        self.parameters = list(module.parameters())  # collecting them takes a tenth of a step's time

    def inputs(self, batch: int) -> dict[str, Any]:
        """Return the arguments of a call on `batch` sequences."""
        shape: tuple[int, ...] = (batch, LENGTH, self.module.embed_dim)
        given: dict[str, Any] = {"mask": torch.ones(batch, LENGTH, dtype=torch.bool)}
        if self.form == "packed":
            shape = (batch * LENGTH, self.module.embed_dim)
            given = {"cu_seqlens": torch.arange(batch + 1, dtype=torch.int32) * LENGTH}
        elif self.form == "token=0":
            given["token"] = 0
        # uninitialised: filling them would evict other data from the processor's caches
        last, lower = (torch.empty(shape, dtype=self.dtype, requires_grad=True) for _ in range(2))
        return {"last": last, "lower": lower, **given}

    def forward(self, inputs: dict[str, Any]) -> None:
        """Run a forward pass that saves nothing for a backward."""
        with torch.no_grad():
            self.module(**inputs)

    def step(self, inputs: dict[str, Any]) -> None:
        """Run a forward and a backward pass."""
        fused: Tensor = self.module(**inputs)
        leaves = [inputs["last"], inputs["lower"], *self.parameters]
        torch.autograd.grad(fused, leaves, fused.detach())


def timed(call: Callable[[dict[str, Any]], None], inputs: Iterator[dict[str, Any]]) -> Timing:
    """Return the microseconds of `call` on the next of `inputs` each time, after a warm-up."""
    laps = []
    for given in islice(inputs, WARM_CALLS + TIMED_CALLS):
        begin = time.perf_counter()
        call(given)
        laps.append(1e6 * (time.perf_counter() - begin))
    return summarise(laps[WARM_CALLS:])


def measure(form: str, module: FusedAIF, dtype: torch.dtype, driver: HostDriver) -> list[dict[str, Any]]:
    """Return the rows of one input form."""
    calls = Calls(form, module, dtype)
    known = calls.inputs(BATCH)
    rows = []
    for name, call in zip(PASSES, (calls.forward, calls.step), strict=True):
        begin = time.perf_counter()
        call(known)
        first, before = time.perf_counter() - begin, driver.launches
        call(known)
        launches, batches = driver.launches - before, map(calls.inputs, count(BATCH + 1))
        for sizes, inputs in (("known", repeat(known)), ("new", batches)):
            timing = timed(call, inputs)
            rows.append(
                {"form": form, "pass": name, "sizes": sizes, "launches": launches, **timing._asdict(),
                 "first_s": first if sizes == "known" else None}
            )  # fmt: skip
    return rows


app = typer.Typer(add_completion=False)


@app.command()
def main(
    json_path: RowsPath,
    arch: Architecture = "sm_90",
    dtype: Dtype = "bfloat16",
    embed_dim: EmbedDim = 768,
    reduction: Reduction = 4,
) -> None:
    """Time what the host does for calls of FusedAIF, launches through Triton included; one thread."""
    refuse_interpreter()
    torch.set_num_threads(1)
    squeeze_dim = default_squeeze_dim(embed_dim, reduction)
    state_dtype = DTYPES[dtype]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, cpu_as_gpu(arch):
        os.environ["TRITON_CACHE_DIR"] = str(Path(folder) / "compiled")
        try:
            driver = activate(Path(folder), arch)
        except RuntimeError as error:
            raise typer.BadParameter(str(error)) from error
        module = FusedAIF(embed_dim, squeeze_dim=squeeze_dim, backend="triton", dtype=state_dtype)
        for form in track(FORMS, "measuring", console=Console(stderr=True)):
            rows += measure(form, module, state_dtype, driver)
    header = {"arch": arch, "dtype": dtype, "embed_dim": embed_dim, "squeeze_dim": squeeze_dim}
    write_json(json_path, [{**header, **row} for row in rows])
    print_table(
        f"Microseconds of the host for a call, {dtype}, E = {embed_dim}, H = {squeeze_dim}, {arch}",
        [column.replace("_", " ") for column in COLUMNS],
        (([shown(row[column]) for column in COLUMNS], False) for row in rows),
    )


def shown(value: object) -> str:
    """Return a cell's text; numbers have one decimal."""
    return "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    app()
