"""Memory of AIF: bytes saved for the backward, and the peak of a pass.

    python -m benchmarks.memory [--device cuda|cpu] [--out DIR] [--budget-seconds S] [--provider NAME ...] [--full]

`saved_bytes` are the distinct storages that autograd saves, except those of the inputs, the parameters and the output.
`peak_extra_bytes` is the allocator's peak during the pass minus the bytes allocated before it, with results; it is
missing for a CPU and for torch.compile with CUDA graphs, which has its own memory pool. "forward" is inference, "both"
a training step. `ours-eager-backend` is the definition in float32, the fallback of `FusedAIF` without a GPU.
`--full` adds kernel size 3 and H = E/16.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from . import providers
from .cases import core_case, shapes, variations
from .plots import Bars, size
from .suite import Session, Suite, Task, Work, main, run_tasks


def tasks(session: Session) -> Iterator[Task]:
    """Yield the tasks by importance."""
    first = (providers.OURS, providers.EAGER) if session.device.type == "cuda" else (providers.EAGER,)
    others = (providers.OURS_EAGER, providers.COMPILE)
    for names in (first, others):
        for shape in shapes(session.device):
            yield Task(core_case(shape), names, ("forward", "both"))
    for shape in shapes(session.device) if session.full else ():
        for case in variations(shape):
            yield Task(case, (*first, *others), ("forward", "both"))


def saved_bytes(work: Work) -> int:
    """Return the bytes of storages that a forward saves for its backward, without inputs, parameters and output."""
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        z = work.call()
    problem = work.problem
    given = [*problem.leaves, z, *(tensor for tensor in (problem.mask, problem.cu_seqlens) if tensor is not None)]
    known = {tensor.untyped_storage().data_ptr() for tensor in given}
    return sum(size for address, size in saved.items() if address not in known)


def peak_extra_bytes(work: Work, device: torch.device) -> int:
    """Return the allocator's peak during a pass minus the bytes allocated before it."""
    gc.collect()  # else memory that it frees during the pass would reduce the result
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    if work.pass_ == "forward":
        providers.inference(work.call)
    else:
        providers.results(work.call, work.problem)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def measure(session: Session, work: Work) -> dict[str, Any]:
    """Measure saved and peak bytes of a pass."""
    measured: dict[str, Any] = {}
    if work.pass_ == "both":
        measured["saved_bytes"] = saved_bytes(work)
    if session.device.type == "cuda" and work.provider not in providers.WITH_GRAPHS:
        measured["peak_extra_bytes"] = peak_extra_bytes(work, session.device)
    return measured


def run(session: Session) -> None:
    """Measure all tasks."""
    run_tasks(session, tasks(session), measure)


def saved_tensors(row: dict[str, Any]) -> float | None:
    """Return `saved_bytes` in tensors of B*T*E elements of the row's dtype."""
    if row["saved_bytes"] is None:
        return None
    batch, length, embed_dim = row["shape"]
    return float(row["saved_bytes"] / (batch * length * embed_dim * getattr(torch, row["dtype"]).itemsize))


SUITE = Suite(
    "memory",
    "Memory of AIF",
    run,
    Bars(saved_tensors, size, "kept for the backward, in tensors of B*T*E elements"),
    60,
)

if __name__ == "__main__":
    main(SUITE)
