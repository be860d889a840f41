"""AIF as a function: check the arguments, choose the backend, run it."""

from __future__ import annotations

import torch
from torch import Tensor

from .autocast import autocast_dtype
from .backends import TRITON_AVAILABLE, resolve_backend
from .checks import check_inputs
from .parameters import AIFWeights
from .reference import aif_output

if TRITON_AVAILABLE:
    from . import operators


def product_dtype_of(last: Tensor) -> torch.dtype:
    """Return the dtype in which the kernels compute matrix products over tokens of the states `last`.

    It is autocast's dtype for float32 states under autocast, and the dtype of the states otherwise.

    AIF made of torch's own layers does the same: matrix products use autocast's dtype, and element-wise sums and gates
    stay in float32, the dtype that the layer norm of an encoder's last layer returns. Casting the states would move
    more bytes than it saves, and the backward would have to keep the copies.
    """
    if last.dtype != torch.float32:
        return last.dtype
    dtype = autocast_dtype(last.device.type)
    return dtype if dtype in (torch.bfloat16, torch.float16) else last.dtype


def fused_aif(
    last: Tensor,
    lower: Tensor | None,
    local_squeeze_weight: Tensor,
    local_squeeze_bias: Tensor,
    local_expand_weight: Tensor,
    local_expand_bias: Tensor,
    global_squeeze_weight: Tensor,
    global_squeeze_bias: Tensor,
    global_expand_weight: Tensor,
    global_expand_bias: Tensor,
    mask: Tensor | None = None,
    *,
    cu_seqlens: Tensor | None = None,
    token: int | None = None,
    fuse: str = "gate",
    activation: str = "relu",
    backend: str = "auto",
) -> Tensor:
    """Fuse two layers of an encoder with AIF; see `aif_reference` for the equations.

    Args:
        last: x, (B, T, E), or (N, E) with `cu_seqlens`; float32, bfloat16 or float16 (float64: eager only).
        lower: y, same shape and dtype as `last`; or None.
        local_squeeze_weight: (H, E, k). All eight parameters are float32 or have the dtype of `last`; under autocast
            they may also be bfloat16 or float16.
        local_squeeze_bias: (H,).
        local_expand_weight: (E, H, 1).
        local_expand_bias: (E,).
        global_squeeze_weight: (H, E).
        global_squeeze_bias: (H,).
        global_expand_weight: (E, H).
        global_expand_bias: (E,).
        mask: (B, T), bool or integer 0/1, true at real tokens; None means that all tokens are real.
        cu_seqlens: (B+1,) int32, the sequence starts of packed input; the first is 0, the last N. Sequences may be
            empty. Values are checked on the CPU, and on a GPU only under DLFA_VALIDATE=1. A compiled call checks them
            under the same conditions, but by an assertion: RuntimeError on the CPU, a device-side assertion on a GPU,
            after which the process cannot use the GPU. Unchecked rows after the last sequence belong to no sequence:
            the kernels do not write z and the gradients of the states there, and the eager path indexes out of range.
            If a buffer is padded to a fixed N, as for CUDA graphs, make the padding a sequence of its own that ends
            at N.
        token: return only the fused state of this token of each sequence; zeros if it is padding or absent.
        fuse: "gate" or "select"; "select" needs `lower`.
        activation: "relu", "gelu" (erf) or "silu".
        backend: "auto", "triton" or "eager"; see `backends.resolve_backend`.

    Returns:
        z in the shape and dtype of `last`, or (B, E) with `token`, under autocast too. For float32 states under
        autocast, the kernels multiply in autocast's dtype, the eager path and `token` in float32.

    Raises:
        ValueError, TypeError: an invalid argument; see `checks.check_inputs`.
        RuntimeError: backend="triton" cannot run here.
    """
    weights = AIFWeights(
        local_squeeze_weight, local_squeeze_bias, local_expand_weight, local_expand_bias,
        global_squeeze_weight, global_squeeze_bias, global_expand_weight, global_expand_bias,
    )  # fmt: skip
    check_inputs(last, lower, weights, mask, cu_seqlens, token, fuse, activation)
    if resolve_backend(backend, last) == "triton":
        inputs = (last, lower, *weights, mask, cu_seqlens)
        if token is None:
            return operators.aif(*inputs, fuse, activation, product_dtype_of(last))
        return operators.aif_token(*inputs, token, fuse, activation)
    return aif_output(last, lower, weights, mask, cu_seqlens, token, fuse, activation)
