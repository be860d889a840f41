"""Two processes: gradients under DDP and FSDP2 are those of one process with the whole batch."""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from dlfa_kernels import FusedAIF

WORLD = 2
pytestmark = pytest.mark.skipif(not dist.is_available(), reason="needs torch.distributed")


class Tagger(nn.Module):
    """A layer before and a head after AIF, so that gradients flow through it on both sides."""

    def __init__(self, backend: str) -> None:
        super().__init__()
        self.before = nn.Linear(16, 16)
        self.aif = FusedAIF(16, kernel_size=3, fuse="select", backend=backend)
        self.head = nn.Linear(16, 4)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        return self.head(self.aif(self.before(states), states, mask))


def loss(model: nn.Module, states: Tensor, mask: Tensor) -> Tensor:
    """A mean over all tokens, so that the mean over equal shares is the mean over the whole."""
    return model(states, mask).square().mean()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    states = torch.randn(2 * WORLD, 6, 16, generator=generator)
    return states, torch.rand(2 * WORLD, 6, generator=generator) > 0.3


def steps(model: nn.Module, states: Tensor, mask: Tensor) -> None:
    """Two steps of training, so that the second sees updated weights."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        loss(model, states, mask).backward()
        optimizer.step()


def check(wrapper: str, backend: str) -> None:
    """Train as `wrapper` says on this process's share and compare with the whole batch on one process."""
    torch.manual_seed(0)
    alone = Tagger(backend)
    model: nn.Module = copy.deepcopy(alone)
    if wrapper == "ddp":
        model = DistributedDataParallel(model)
    else:
        mesh = init_device_mesh("cpu", (WORLD,))
        fully_shard(model.aif, mesh=mesh)
        fully_shard(model, mesh=mesh)
    states, mask = batch()
    share = slice(2 * dist.get_rank(), 2 * dist.get_rank() + 2)
    steps(model, states[share], mask[share])
    steps(alone, states, mask)
    trained = {name.removeprefix("module."): value for name, value in model.named_parameters()}
    for name, value in alone.named_parameters():
        actual = trained[name].full_tensor() if isinstance(trained[name], DTensor) else trained[name]
        torch.testing.assert_close(actual, value, msg=lambda text, name=name: f"{wrapper} {backend} {name}: {text}")


def process(rank: int, rendezvous: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=WORLD)
    try:
        for wrapper in ("ddp", "fsdp2"):
            check(wrapper, "eager")
        if os.environ.get("TRITON_INTERPRET") == "1":
            check("ddp", "triton")
            check("fsdp2", "triton")
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo over a file needs POSIX")
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(process, (str(tmp_path / "rendezvous"),), nprocs=WORLD)
