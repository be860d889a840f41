"""A lower bound of AIF's time for any implementation, on a machine with known ceilings.

A floor is max(bytes / copy bandwidth, operations / matrix rate) of the fewest bytes and operations a pass needs.

    pass      tensors of B*T*E elements                     operations
    forward   x, y read, z written                     3    2 N E H (k + 1)
    backward  dz, x, y read, dx, dy written            5    4 N E H (k + 1)
    both      the two passes one after the other: the sum of their floors

N is the number of real tokens: x, y and dz need not be read at padding, but z, dx and dy are written there (zeros)
unless sequences are packed. The backward's operations exclude products of the forward that an implementation may
recompute. In gate mode one gradient serves both inputs, so 4 tensors would suffice; the floor still counts 5, the same
for both fuse modes, so where memory is the bound, time over floor is up to 5/4 better than by the strictest count. With
`token=i` the forward reads x and y for pooling and writes one row a sequence, and the backward writes dx and dy, one
tensor in gate mode; operations are those of one row a sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

from .cases import Case

PASSES = ("forward", "backward", "both")


@dataclass(frozen=True)
class Ceilings:
    """Measured limits of a device: copy bandwidth in TB/s, matrix rate by dtype in TFLOP/s."""

    copy_tb_s: float
    matmul_tflop_s: dict[str, float]


def tensors_moved(case: Case, pass_: str) -> float:
    """Return the fewest bytes of "forward" or "backward", in tensors of B*T*E elements."""
    batch, length, _ = case.shape
    real = sum(case.lengths) / (batch * length)
    written = real if case.packed else 1.0
    if case.token is not None:
        return 2 * real if pass_ == "forward" else (written if case.fuse == "gate" else 2 * written)
    return 2 * real + written if pass_ == "forward" else 3 * real + 2 * written


def operations(case: Case, pass_: str) -> int:
    """Return the fewest floating-point operations of "forward" or "backward" in the local branch's products."""
    tokens = len(case.lengths) if case.token is not None else sum(case.lengths)
    once = 2 * tokens * case.shape[-1] * case.squeeze_dim * (case.kernel_size + 1)
    return once if pass_ == "forward" else 2 * once


def floor_us(case: Case, pass_: str, ceilings: Ceilings) -> float:
    """Return the floor of a pass, "forward", "backward" or "both", in microseconds."""
    if pass_ == "both":
        return floor_us(case, "forward", ceilings) + floor_us(case, "backward", ceilings)
    moving = tensors_moved(case, pass_) * case.tensor_bytes / (ceilings.copy_tb_s * 1e12)
    computing = operations(case, pass_) / (ceilings.matmul_tflop_s[case.dtype] * 1e12)
    return max(moving, computing) * 1e6
