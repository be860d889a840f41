"""The tile of a packed slot, which every program of the packed form looks up."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="triton is there on Linux only")

import triton
import triton.language as tl

from dlfa_kernels.backends import INTERPRETED
from dlfa_kernels.kernels.rows import locate_tile

BLOCK_T = 16


@triton.jit
def locate_slots(slots_ptr, cu_seqlens_ptr, found_ptr, batch, BLOCK_T: tl.constexpr):
    program = tl.program_id(0)
    slot = tl.load(slots_ptr + program)
    sequence, start, rows, first_row = locate_tile(slot, cu_seqlens_ptr, batch, 0, BLOCK_T, True, 1)
    tl.store(found_ptr + 4 * program, sequence)
    tl.store(found_ptr + 4 * program + 1, start)
    tl.store(found_ptr + 4 * program + 2, rows)
    tl.store(found_ptr + 4 * program + 3, first_row)


def expected(slot: int, lengths: list[int]) -> tuple[int, int, int, int]:
    """The last sequence whose first slot, first row // BLOCK_T + sequence, is not behind `slot`, and where in it."""
    first_row, last = 0, (0, 0, 0, 0)
    for sequence, rows in enumerate(lengths):
        first_slot = first_row // BLOCK_T + sequence
        if first_slot > slot:
            break
        last = (sequence, (slot - first_slot) * BLOCK_T, rows, first_row)
        first_row += rows
    return last


# One step of the search up to 256 sequences, then two; from 65,793 on the second takes more than one block.
@pytest.mark.parametrize("batch", [1, 2, 255, 256, 257, 600, 66_000])
def test_every_slot_finds_its_tile(batch: int, device: torch.device) -> None:
    if device.type == "cpu" and not INTERPRETED:
        pytest.skip("compiled code is executed for the launches of passes alone; packed ones look up many sequences")
    generator = torch.Generator().manual_seed(batch)
    lengths = torch.randint(0, 3 * BLOCK_T, (batch,), generator=generator)
    lengths[torch.rand(batch, generator=generator) < 0.3] = 0
    cu_seqlens = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    last_slot = int(cu_seqlens[-1]) // BLOCK_T + batch - 1
    slots = torch.randint(0, last_slot + 1, (40,), generator=generator)
    slots[:2] = torch.tensor([0, last_slot])
    found = torch.empty(len(slots), 4, dtype=torch.int64, device=device)
    locate_slots[(len(slots),)](
        slots.int().to(device), cu_seqlens.int().to(device), found, batch, BLOCK_T=BLOCK_T
    )  # fmt: skip
    assert found.tolist() == [list(expected(int(slot), lengths.tolist())) for slot in slots]
