"""Weights of more than 2^31 elements, k H E: offsets of a tap are 64 bits wide."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="triton is there on Linux only")

import triton
import triton.language as tl

from dlfa_kernels.backends import INTERPRETED
from dlfa_kernels.kernels.chunks import load_squeeze_weight

EMBED_DIM, SQUEEZE_DIM, KERNEL_SIZE = 12288, 3072, 59  # the widest layer, and enough taps
BLOCK = 16


@triton.jit
def copy_last_block(
    weight_ptr,
    copy_ptr,
    tap,
    EMBED_DIM: tl.constexpr,
    SQUEEZE_DIM: tl.constexpr,
    TARGET: tl.constexpr,
    BLOCK: tl.constexpr,
):
    h = SQUEEZE_DIM - BLOCK + tl.arange(0, BLOCK)
    e = EMBED_DIM - BLOCK + tl.arange(0, BLOCK)
    block = load_squeeze_weight(
        weight_ptr, tap, h, h < SQUEEZE_DIM, e, SQUEEZE_DIM, EMBED_DIM, tl.float32, TARGET, BLOCK
    )
    tl.store(copy_ptr + tl.arange(0, BLOCK)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :], block)


def test_the_last_tap_is_found(device: torch.device) -> None:
    if device.type == "cpu" and not INTERPRETED:
        pytest.skip("compiled code is executed for the launches of passes alone")
    weight = torch.empty(KERNEL_SIZE, SQUEEZE_DIM, EMBED_DIM, dtype=torch.float16, device=device)  # no page is touched
    assert weight.numel() > 1 << 31
    expected = torch.randn(BLOCK, BLOCK).half().to(device)
    weight[-1, -BLOCK:, -BLOCK:] = expected
    copied = torch.empty(BLOCK, BLOCK, device=device)
    target = "interpreter" if INTERPRETED else "nvidia"
    copy_last_block[(1,)](weight, copied, KERNEL_SIZE - 1, EMBED_DIM, SQUEEZE_DIM, target, BLOCK)
    assert torch.equal(copied, expected.float())
