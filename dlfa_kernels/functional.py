"""AIF as a function: check, choose the backend, run."""

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
    """The dtype in which the kernels take products over tokens of the states `last`: autocast's for float32 ones.

    It is the states' own without autocast, and for states of 16 bits.

    This is what AIF of torch's own layers does: they multiply in autocast's dtype, and what is added and gated element
    by element stays float32, as the layer norm of an encoder's last layer hands it over. To cast the states would move
    more bytes than it saves, and leave copies to keep for the backward.
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
    """Fuse two layers of an encoder with AIF; `aif_reference` states the equations.

    Args:
        last: x, (B, T, E), or (N, E) with `cu_seqlens`; float32, bfloat16 or float16 (float64: eager only).
        lower: y, of the shape and dtype of `last`; or None.
        local_squeeze_weight: (H, E, k). All eight parameters are float32 or have the dtype of `last`; under autocast
            they may be bfloat16 or float16 too.
        local_squeeze_bias: (H,).
        local_expand_weight: (E, H, 1).
        local_expand_bias: (E,).
        global_squeeze_weight: (H, E).
        global_squeeze_bias: (H,).
        global_expand_weight: (E, H).
        global_expand_bias: (E,).
        mask: (B, T), bool or integer 0/1, true at real tokens; None means all real.
        cu_seqlens: (B+1,) int32, sequence starts of the packed form, 0 first and N last; sequences may be empty. On a
            GPU the values are checked with DLFA_VALIDATE=1 alone: rows behind the last sequence belong to none, so the
            kernels leave z and the gradients of the states unwritten there, and the eager path indexes out of range.
            Give the rows of a buffer that is padded to a fixed N, as for CUDA graphs, a sequence of their own: its end
            is then N. A compiled call checks them by an assertion: RuntimeError; on a GPU a device-side
            assertion, after which the process cannot use it.
        token: return only the fused state of this token of each sequence; zeros where it is padding or absent.
        fuse: "gate" or "select"; "select" needs `lower`.
        activation: "relu", "gelu" (erf) or "silu".
        backend: "auto", "triton" or "eager".

    Returns:
        z in the shape and dtype of `last`, or (B, E) with `token`. Under autocast too; float32 states are then
        multiplied in its dtype by the kernels, and in float32 by the eager path and with `token`.

    Raises:
        ValueError, TypeError: an argument that does not fit, see `checks.check_inputs`.
        RuntimeError: backend="triton" where it cannot run.
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
