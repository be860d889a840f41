"""Count the bytes that the kernels move for each pointer argument, under Triton's interpreter; no GPU is needed.

    python -m benchmarks.traffic --json FILE [--dtype bfloat16]

A row is one tensor argument of the launches of a forward or backward pass: how much of it is read and written, in units
of one states tensor, B*T*E elements with padding or N*E packed, in the states' dtype. `size` is the size of the tensor
in this unit, `by_kernel` splits the figures by launch, `launches` is the number of launches of the pass, and `fill` the
share of real tokens.

Counted are the elements that unmasked lanes access, in cache or DRAM: a small tensor that every program reads, such as
a weight, comes from cache except once. DRAM must move at most the rows with a large `size`.
"""

from __future__ import annotations

import os

if __name__ == "__main__":
    os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it when kernels are defined, in the imports below

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import typer
from rich.console import Console
from rich.progress import track

from dlfa_kernels.backends import INTERPRETED
from dlfa_kernels.branches import default_squeeze_dim
from dlfa_kernels.launches import Launch
from dlfa_kernels.operands import Inputs
from dlfa_kernels.overrides import record_launches
from dlfa_kernels.parameters import AIFWeights

from .calls import CallVariant, meta_weights, run_backward, run_forward
from .cases import DTYPES
from .kernel_options import Dtype, RowsPath
from .output import print_table, write_json

# Lengths of the sequences of a ragged batch in turn, as shares of T.
RAGGED = (0.6, 0.0, 0.3, 0.3)

COLUMNS = (
    "pass",
    "shape",
    "fill",
    "call",
    "launches",
    "argument",
    "size",
    "tensors_read",
    "tensors_written",
    "kernels",
)


@dataclass(frozen=True)
class Case:
    """One measured call: (B, T, E) of the padded form, and whether all tokens are real."""

    shape: tuple[int, int, int]
    ragged: bool
    variant: CallVariant

    @property
    def lengths(self) -> list[int]:
        """The real tokens of each sequence."""
        batch, length, _ = self.shape
        return [round(length * RAGGED[i % len(RAGGED)]) if self.ragged else length for i in range(batch)]


CASES = (
    *(
        Case(shape, ragged, CallVariant(fuse=fuse, kernel_size=kernel_size, packed=packed))
        for shape, (ragged, packed), kernel_size, fuse in product(
            # a multiple of every tile; long enough for a separate pooling launch; a multiple of no tile
            ((2, 128, 64), (4, 320, 64), (3, 77, 33)),
            ((False, False), (True, False), (True, True)),
            (1, 3),
            ("gate", "select"),
        )
    ),
    *(
        Case((4, 320, 64), True, CallVariant(fuse=fuse, kernel_size=kernel_size, packed=packed, frozen=True))
        for packed, kernel_size, fuse in product((False, True), (1, 3), ("gate", "select"))
    ),
    Case((2, 128, 384), False, CallVariant()),
    Case((4, 320, 64), False, CallVariant(lower=False)),
    Case((4, 320, 64), True, CallVariant(token=0)),
    Case((4, 320, 64), True, CallVariant(token=0, fuse="select", packed=True)),
    Case((4, 320, 64), True, CallVariant(token=0, frozen=True)),
)


def make_inputs(case: Case, dtype: torch.dtype) -> Inputs:
    """Return random tensors on the CPU; the mask is int64, like transformers' attention_mask."""
    (batch, length, embed_dim), variant, lengths = case.shape, case.variant, torch.tensor(case.lengths)
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(shape, generator=generator).mul(scale).to(dtype)

    shape = (int(lengths.sum()), embed_dim) if variant.packed else case.shape
    weights = meta_weights(embed_dim, default_squeeze_dim(embed_dim, 4), variant.kernel_size)
    mask = (torch.arange(length) < lengths[:, None]).long()
    starts = torch.cat([torch.zeros(1), lengths.cumsum(0)]).int()
    return Inputs(
        last=random(*shape),
        lower=random(*shape) if variant.lower else None,
        dz=random(*shape) if variant.token is None else random(batch, embed_dim),
        weights=AIFWeights._make(random(*weight.shape, scale=0.1) for weight in weights),
        mask=None if variant.packed else mask,
        cu_seqlens=starts if variant.packed else None,
    )


class Traffic:
    """Bytes moved by each launch of a pass, by the pointer argument whose tensor contains the address."""

    def __init__(self, launches: list[Launch]) -> None:
        self.launches = launches
        self.moved: dict[tuple[int, str, str], int] = {}  # (launch, argument, "read" or "written") -> bytes

    def count(self, direction: str, pointers: Any, mask: Any) -> None:
        """Count one load or store of the interpreter.

        Raises:
            RuntimeError: an address outside every tensor of the launch, or a block that spans two of them.
        """
        addresses = pointers.data[mask.data]
        if addresses.size == 0:
            return
        index = len(self.launches) - 1
        size = pointers.get_element_ty().primitive_bitwidth // 8
        lowest, highest = int(addresses.min()), int(addresses.max())
        for name, tensor in self.launches[index].arguments.items():
            if isinstance(tensor, torch.Tensor) and _begin(tensor) <= lowest and highest + size <= _end(tensor):
                key = (index, name.removesuffix("_ptr"), direction)
                self.moved[key] = self.moved.get(key, 0) + addresses.size * size
                return
        raise RuntimeError(f"{self.launches[index].kernel.__name__} accesses memory outside its arguments")


def _begin(tensor: torch.Tensor) -> int:
    return tensor.data_ptr()


def _end(tensor: torch.Tensor) -> int:
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr() + (last + 1) * tensor.element_size() if tensor.numel() else tensor.data_ptr()


@contextmanager
def counted() -> Iterator[Traffic]:
    """Count the bytes that launches inside the context move.

    Raises:
        RuntimeError: the kernels were not imported under TRITON_INTERPRET=1.
    """
    from triton.runtime import interpreter

    if not INTERPRETED:
        raise RuntimeError("traffic is counted by Triton's interpreter: set TRITON_INTERPRET=1 before the start")
    builder = interpreter.interpreter_builder

    # `create_load` and `create_store` also call these two.
    def counting(direction: str, original: Callable[..., Any], mask_position: int) -> Callable[..., Any]:
        def access(pointers: Any, *rest: Any, **keywords: Any) -> Any:
            traffic.count(direction, pointers, rest[mask_position])
            return original(pointers, *rest, **keywords)

        return access

    with record_launches() as launches:
        traffic = Traffic(launches)
        builder.create_masked_load = counting("read", builder.create_masked_load, 0)
        builder.create_masked_store = counting("written", builder.create_masked_store, 1)
        try:
            yield traffic
        finally:
            del builder.create_masked_load, builder.create_masked_store


def _rows(case: Case, pass_: str, traffic: Traffic, names: dict[int, str], inputs: Inputs) -> list[dict[str, Any]]:
    """Return one row for each tensor, named by `names` (by address) or else by the argument of its last launch."""
    unit = inputs.last.numel() * inputs.last.element_size()
    tensors: dict[int, torch.Tensor] = {}
    called: dict[int, str] = {}
    moved: dict[int, dict[str, list[float]]] = {}
    for index, item in enumerate(traffic.launches):
        kernel = item.kernel.__name__.removesuffix("_kernel")
        for argument, tensor in item.arguments.items():
            if isinstance(tensor, torch.Tensor) and tensor.numel():
                address, name = tensor.data_ptr(), argument.removesuffix("_ptr")
                tensors[address] = tensor
                called[address] = names.get(address, name)
                amounts = [traffic.moved.get((index, name, direction), 0) / unit for direction in ("read", "written")]
                if any(amounts):
                    so_far = moved.setdefault(address, {}).setdefault(kernel, [0.0, 0.0])
                    so_far[:] = [so_far[0] + amounts[0], so_far[1] + amounts[1]]
    return [
        {
            "pass": pass_, "shape": list(case.shape), "squeeze_dim": inputs.weights.local_squeeze_bias.shape[0],
            "fill": sum(case.lengths) / (case.shape[0] * case.shape[1]), "fuse": case.variant.fuse,
            "kernel_size": case.variant.kernel_size, "packed": case.variant.packed, "token": case.variant.token,
            "call": str(case.variant), "dtype": str(inputs.last.dtype).removeprefix("torch."),
            "launches": len(traffic.launches), "argument": called[address],
            "size": tensor.numel() * tensor.element_size() / unit,
            "tensors_read": sum((read for read, _ in moved.get(address, {}).values()), 0.0),
            "tensors_written": sum((written for _, written in moved.get(address, {}).values()), 0.0),
            "by_kernel": moved.get(address, {}), "kernels": " ".join(moved.get(address, {})),
        }
        for address, tensor in tensors.items()
    ]  # fmt: skip


def measure(case: Case, dtype: torch.dtype) -> list[dict[str, Any]]:
    """Return the rows of the forward and the backward pass of one case.

    Raises:
        RuntimeError: see `counted`.
    """
    inputs = make_inputs(case, dtype)
    given = {"x": inputs.last, "y": inputs.lower, "dz": inputs.dz, "mask": inputs.mask, "cu_seqlens": inputs.cu_seqlens}
    names = {tensor.data_ptr(): name for name, tensor in given.items() if tensor is not None}
    names |= {tensor.data_ptr(): name for name, tensor in inputs.weights._asdict().items()}
    with counted() as forward:
        saved = run_forward(case.variant, inputs)
    names |= {tensor.data_ptr(): name for name, tensor in saved._asdict().items() if tensor.numel()}
    rows = _rows(case, "forward", forward, names, inputs)
    with counted() as backward:
        result = run_backward(case.variant, inputs, saved)
    names |= {tensor.data_ptr(): name for name, tensor in (("dx", result.dx), ("dy", result.dy)) if tensor.numel()}
    names |= {tensor.data_ptr(): f"{name} gradient" for name, tensor in result.weights._asdict().items()}
    return rows + _rows(case, "backward", backward, names, inputs)


app = typer.Typer(add_completion=False)


@app.command()
def main(
    json_path: RowsPath,
    dtype: Dtype = "bfloat16",
) -> None:
    """Count the bytes that each tensor of a forward and a backward pass moves, in units of one states tensor."""
    rows: list[dict[str, Any]] = []
    for case in track(CASES, description="interpreting", console=Console(stderr=True)):
        rows += measure(case, DTYPES[dtype])
    write_json(json_path, rows)
    cells = [[f"{row[c]:.3f}" if isinstance(row[c], float) else row[c] for c in COLUMNS] for row in rows]
    print_table("Traffic in units of one states tensor", COLUMNS, ((row, False) for row in cells))


if __name__ == "__main__":
    app()
