"""The sigmoid of the gate, and the gradient before it."""

import triton
import triton.language as tl


@triton.jit
def sigmoid(a, TARGET: tl.constexpr):
    """1 / (1 + exp(-a)) of a float32 block, to some units in the last place; on NVIDIA in four instructions."""
    divisor = 1 + tl.exp2(a * -1.4426950408889634)
    if TARGET == "nvidia":
        # A division would scale its operands first, in case that they are out of the range of the reciprocal.
        return tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [divisor], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        return 1 / divisor


@triton.jit
def gate_gradient(dz, m, gated):
    """ds, the gradient before the sigmoid: dz m (1-m) times what the gate multiplies, w or with SELECT x - y."""
    return dz * m * (1 - m) * gated
