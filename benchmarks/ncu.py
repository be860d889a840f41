"""DRAM bytes of AIF's kernels from the GPU's hardware counters, by Nsight Compute.

    python -m benchmarks.ncu [--out DIR] [--seconds S] [--l2-share F]

One forward and one backward at 256x128x768, bfloat16, gate, kernel size 1, H = E/4, launched below the operators so
that nothing else runs. Each is the third of its kind and so a replay (`dlfa_kernels.replays`), like all later ones.
With --l2-share, groups of sequences fill this share of L2 (`dlfa_kernels.groups`), and DIR/ncu-l2-PERCENT.json is
written.
Rows of DIR/ncu.json: {"kernel", "dram_read_bytes", "dram_write_bytes", "tensors"}, the last in tensors of B*T*E
elements, reads and writes together.

`ncu` must not control clocks and caches: with its usual flush before every kernel, the second read of x and y, which
should hit L2, would come from DRAM. Instead a large buffer is read before each pass, which then starts with a cold
cache, and again after it, which evicts what the pass has written: the DRAM writes of this read are the row "PASS,
written back". "PASS, total" is the sum. `replays` in the header is 1 if every kernel ran once, which is necessary for
each kernel to find the cache as the kernel before left it.
"""

from __future__ import annotations

import csv
import datetime
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from dlfa.terminal import one_line_errors

from .cases import BASE_SHAPE, core_case
from .hardware import ROOT, choose_device, commit, folder_name
from .output import print_table, write_rows
from .processes import cuda_tool, run_limited
from .targets import TRAFFIC_FILE
from .timing import FLUSHED_CACHES

READ_METRIC, WRITE_METRIC = "dram__bytes_read.sum", "dram__bytes_write.sum"
# The kernel that reads the buffer; one of ours has the same name without a namespace.
FLUSH_KERNEL = "at::native::reduce_kernel"
PASSES = ("forward", "backward")
UNITS = {"byte": 1, "Kbyte": 10**3, "Mbyte": 10**6, "Gbyte": 10**9}
DEFAULT_SECONDS = 150.0


def parse(text: str) -> list[dict[str, Any]]:
    """Return the kernels in launch order from the output of `ncu --csv --metrics ...`.

    Args:
        text: its log; lines before the CSV header are ignored.

    Returns:
        A {"kernel", "dram_read_bytes", "dram_write_bytes"} for each.

    Raises:
        ValueError: there is no CSV, an unknown unit, or a kernel without one of the two metrics.
    """
    lines = text.splitlines()
    start = next((index for index, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        last = next((line for line in reversed(lines) if line.strip()), "nothing")
        raise ValueError(f"ncu gave no table; its last line: {last}")
    kernels: dict[str, dict[str, Any]] = {}
    names = {READ_METRIC: "dram_read_bytes", WRITE_METRIC: "dram_write_bytes"}
    for row in csv.DictReader(line for line in lines[start:] if line.startswith('"')):
        kernel = kernels.setdefault(row["ID"], {"kernel": row["Kernel Name"]})
        if row["Metric Name"] not in names:
            continue
        if row["Metric Unit"] not in UNITS:
            raise ValueError(f"ncu's unit must be one of {', '.join(UNITS)}, got {row['Metric Unit']!r}")
        try:
            value = float(row["Metric Value"].replace(",", ""))
        except ValueError:
            what, value_given = f"{row['Metric Name']} of {row['Kernel Name']}", row["Metric Value"]
            raise ValueError(f"ncu's value of {what} must be a number, got {value_given!r}") from None
        kernel[names[row["Metric Name"]]] = round(value * UNITS[row["Metric Unit"]])
    for kernel in kernels.values():
        missing = [metric for metric, name in names.items() if name not in kernel]
        if missing:
            raise ValueError(f"ncu gave no {' or '.join(missing)} of {kernel['kernel']}")
    return list(kernels.values())


def traffic_rows(kernels: Iterable[dict[str, Any]], tensor_bytes: int) -> list[dict[str, Any]]:
    """Return the rows of both passes: a pass's kernels, the bytes written back after it, and its total.

    Args:
        kernels: the result of `parse`; torch's kernel that reads the buffer ends each pass.
        tensor_bytes: bytes of B*T*E elements.

    Raises:
        ValueError: the number of passes is wrong.
    """
    rows: list[dict[str, Any]] = []
    passes: list[list[dict[str, Any]]] = [[]]
    for kernel in kernels:
        passes[-1].append(kernel)
        if FLUSH_KERNEL in kernel["kernel"]:
            passes.append([])
    if passes.pop() or len(passes) != len(PASSES) or any(len(group) < 2 for group in passes):
        counts = ", ".join(str(len(group)) for group in passes)
        raise ValueError(
            f"ncu must see kernels of {len(PASSES)} passes, each ended by a reading of the cache, got {counts}"
        )
    for name, group in zip(PASSES, passes, strict=True):
        own = [{**kernel, "kernel": f"{name}, {kernel['kernel']}"} for kernel in group[:-1]]
        back = {
            "kernel": f"{name}, written back",
            "dram_read_bytes": 0,
            "dram_write_bytes": group[-1]["dram_write_bytes"],
        }
        total = {
            "kernel": f"{name}, total",
            **{key: sum(row[key] for row in [*own, back]) for key in ("dram_read_bytes", "dram_write_bytes")},
        }
        rows += [*own, back, total]
    for row in rows:
        row["tensors"] = round((row["dram_read_bytes"] + row["dram_write_bytes"]) / tensor_bytes, 4)
    return rows


def launch_passes(l2_share: float | None) -> None:
    """Run under `ncu`: warm up, then run both passes between cudaProfilerStart and cudaProfilerStop."""
    from dlfa_kernels.operands import Inputs
    from dlfa_kernels.overrides import using_l2_share
    from dlfa_kernels.parameters import AIFWeights

    from .calls import CallVariant, run_backward, run_forward
    from .problems import make_problem

    device = choose_device("cuda")
    problem = make_problem(core_case(BASE_SHAPE), device)
    weights = AIFWeights._make(weight.detach() for weight in problem.aif.weights)
    inputs = Inputs(
        last=problem.last.detach(), lower=problem.lower.detach(), dz=problem.dz, mask=problem.mask, cu_seqlens=None,
        weights=weights,
    )  # fmt: skip
    buffer = torch.zeros(FLUSHED_CACHES * torch.cuda.get_device_properties(device).L2_cache_size // 4, device=device)

    def flush() -> None:
        buffer.sum()
        torch.cuda.synchronize()

    with using_l2_share(l2_share):
        for _ in range(2):  # compiled, then recorded as a replay
            saved = run_forward(CallVariant(), inputs)
            run_backward(CallVariant(), inputs, saved)
        for profiled in (
            lambda: run_forward(CallVariant(), inputs),
            lambda: run_backward(CallVariant(), inputs, saved),
        ):
            flush()
            torch.cuda.profiler.start()
            profiled()
            flush()
            torch.cuda.profiler.stop()


def command_line(log: Path, l2_share: float | None = None) -> list[str]:
    """Return the `ncu` command that runs `launch_passes` and writes its table to `log`."""
    share = () if l2_share is None else ("--l2-share", str(l2_share))
    return [
        cuda_tool("ncu"), "--csv", "--page", "details", "--print-units", "base", "--log-file", str(log),
        "--force-overwrite", "--metrics", f"{READ_METRIC},{WRITE_METRIC}",
        "--clock-control", "none", "--cache-control", "none",
        "--profile-from-start", "off", "--print-kernel-base", "demangled",
        sys.executable, "-m", "benchmarks.ncu", "--launch", *share,
    ]  # fmt: skip


def measure(folder: Path, seconds: float, l2_share: float | None = None) -> list[dict[str, Any]]:
    """Run `ncu`; write and return the rows.

    Args:
        folder: the folder of the rows.
        seconds: time limit.
        l2_share: launch by groups that fill this share of L2; None means that of the shipped tiles.

    Raises:
        ValueError: there is no `ncu`, or it gave no figures; the message has its output.
    """
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "ncu.csv"
        with (Path(scratch) / "output").open("w+", encoding="utf-8") as output:
            status = run_limited(command_line(log, l2_share), seconds, cwd=ROOT, log=output)
            output.seek(0)
            said = output.read()
        text = log.read_text(encoding="utf-8") if log.is_file() else ""
    if status is None:
        raise ValueError(f"ncu took longer than {seconds:.0f} s")
    if status != 0:
        last = ((text + said).strip().splitlines() or ["nothing"])[-1]
        raise ValueError(f"ncu ended with status {status}; its last line: {last}")
    case = core_case(BASE_SHAPE)
    rows = traffic_rows(parse(text), case.tensor_bytes)
    option = "" if l2_share is None else f" --l2-share {l2_share}"
    header = {
        "gpu": torch.cuda.get_device_name(), "commit": commit(), "command": f"python -m benchmarks.ncu{option}",
        "torch": str(torch.__version__), "shape": list(case.shape), "squeeze_dim": case.squeeze_dim,
        "dtype": case.dtype, "replays": max(map(int, re.findall(r" - (\d+) pass", text + said)), default=None),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }  # fmt: skip
    name = TRAFFIC_FILE if l2_share is None else TRAFFIC_FILE.replace(".", f"-l2-{round(100 * l2_share)}.")
    write_rows(folder / name, header, rows)
    return rows


def command(
    out: Annotated[Path | None, typer.Option(help="Folder of ncu.json; default: benchmarks/results/GPU.")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Time limit.")] = DEFAULT_SECONDS,
    l2_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Schedule by groups that fill this share of L2; 0 is one group.")
    ] = None,
    launch: Annotated[bool, typer.Option("--launch", hidden=True)] = False,
) -> None:
    """Measure the DRAM traffic of forward and backward with hardware counters."""
    if launch:
        launch_passes(l2_share)
        return
    with one_line_errors():
        device = choose_device("cuda")
        rows = measure(out or ROOT / "benchmarks" / "results" / folder_name(device), seconds, l2_share)
    columns = ("kernel", "dram_read_bytes", "dram_write_bytes", "tensors")
    print_table("DRAM traffic", columns, (([row[c] for c in columns], False) for row in rows))


if __name__ == "__main__":
    typer.run(command)
