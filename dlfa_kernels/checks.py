"""Checks of AIF's arguments, for all three input forms; the code after them may assume valid input."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from . import environment
from .autocast import autocast_dtype
from .parameters import AIFWeights, weight_shapes

ACTIVATIONS = ("relu", "gelu", "silu")
FUSE_MODES = ("gate", "select")
STATE_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
LARGEST_INT = 2**31 - 1  # of sizes, as the kernels count in 32 bits
MASK_DTYPES = (
    torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int32, torch.int64
)  # fmt: skip


def check_one_of(name: str, value: object, valid: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of the strings `valid`."""
    if value not in valid:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, valid))}, got {value!r}")


def check_kernel_size(kernel_size: object) -> None:
    """Raise TypeError or ValueError unless `kernel_size` is an odd positive int of 32 bits."""
    if isinstance(kernel_size, bool) or not isinstance(kernel_size, int):
        raise TypeError(f"kernel_size must be an int, got {kernel_size!r}")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd and positive, got {kernel_size}")
    check_positive_int("kernel_size", kernel_size)


def check_positive_int(name: str, value: object) -> None:
    """Raise TypeError or ValueError unless `value` is a positive int of 32 bits."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be positive, got {value}")
    if value > LARGEST_INT:
        raise ValueError(f"{name} must be at most {LARGEST_INT}, got {value}")


def check_finite(name: str, value: object) -> None:
    """Raise TypeError or ValueError unless `value` is a number that float32 can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not abs(value) <= torch.finfo(torch.float32).max:  # not >: that is false for NaN
        raise ValueError(f"{name} must be finite in float32, got {value}")


def _shape(tensor: Tensor) -> str:
    return "(" + ", ".join(map(str, tensor.shape)) + ")"


def check_tensor(name: str, value: object) -> None:
    """Raise TypeError unless `value` is a dense tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.layout is not torch.strided or value.is_nested:
        kind = "a nested tensor" if value.is_nested else str(value.layout)
        raise TypeError(f"{name} must be a dense tensor (torch.strided; packed rows come with cu_seqlens), got {kind}")


def _check_device(name: str, tensor: Tensor, last: Tensor) -> None:
    if tensor.device != last.device:
        why = ", without values: offloaded, or not loaded yet" if tensor.is_meta else ""
        raise ValueError(f"{name} must be on the device of last, {last.device}, got {tensor.device}{why}")


def _check_states(last: Tensor, lower: Tensor | None, packed: bool) -> None:
    rank, form = (2, "(N, E), as cu_seqlens is given") if packed else (3, "(B, T, E)")
    if last.dim() != rank:
        raise ValueError(f"last must have shape {form}, got {_shape(last)}")
    if last.shape[-1] < 1:
        raise ValueError(f"last must have shape {form}, with E positive, got {_shape(last)}")
    if last.dtype not in STATE_DTYPES:
        raise TypeError(f"last must be float32, bfloat16, float16 or float64, got {last.dtype}")
    if lower is not None:
        check_lower("lower", lower, last)


def check_lower(name: str, lower: Tensor, last: Tensor) -> None:
    """Raise TypeError or ValueError unless `lower` is a tensor with the shape, dtype and device of `last`."""
    check_tensor(name, lower)
    if lower.shape != last.shape:
        raise ValueError(f"{name} must have the shape of last, {_shape(last)}, got {_shape(lower)}")
    if lower.dtype != last.dtype:
        raise TypeError(f"{name} must have the dtype of last, {last.dtype}, got {lower.dtype}")
    _check_device(name, lower, last)


def _check_weights(weights: AIFWeights, last: Tensor) -> None:
    for name, weight in zip(AIFWeights._fields, weights, strict=True):
        check_tensor(name, weight)
    squeeze = weights.local_squeeze_weight
    if squeeze.dim() != 3:
        raise ValueError(f"local_squeeze_weight must have shape (H, E, k), got {_shape(squeeze)}")
    squeeze_dim, embed_dim, kernel_size = squeeze.shape
    if last.shape[-1] != embed_dim:
        raise ValueError(
            f"last and local_squeeze_weight (H, E, k) must have one E, got {_shape(last)} and {_shape(squeeze)}"
        )
    if squeeze_dim < 1 or kernel_size % 2 == 0:
        raise ValueError(
            "local_squeeze_weight must have shape (H, E, k), with H positive and the kernel_size k odd, "
            f"got {_shape(squeeze)}"
        )
    shapes = weight_shapes(embed_dim, squeeze_dim, kernel_size)
    dtype, device = squeeze.dtype, last.device
    # float32 master weights go with any states; otherwise both have one dtype, but under autocast, where a layer norm
    # hands over float32 states in a model of 16 bits.
    if dtype not in (last.dtype, torch.float32) and not (
        dtype in (torch.bfloat16, torch.float16) and autocast_dtype(device.type) is not None
    ):
        raise TypeError(
            f"local_squeeze_weight and the other parameters must be float32 or have the dtype of last, {last.dtype}, "
            f"got {dtype}"
        )
    for name, weight, shape in zip(AIFWeights._fields, weights, shapes, strict=True):
        if weight.shape != shape:
            raise ValueError(
                f"{name} must have shape {shape} (E = {embed_dim} as last, H = {squeeze_dim} as local_squeeze_weight), "
                f"got {_shape(weight)}"
            )
        if weight.dtype != dtype:
            raise TypeError(f"{name} must have the dtype of local_squeeze_weight, {dtype}, got {weight.dtype}")
        if weight.device != device:  # asked before the call, which for eight weights shows in a small batch's time
            _check_device(name, weight, last)


def check_mask(name: str, mask: Tensor, shape: torch.Size, device: torch.device) -> None:
    """Raise TypeError or ValueError unless `mask` is bool or integer, of `shape` (B, T) and on `device`."""
    check_tensor(name, mask)
    if mask.dtype not in MASK_DTYPES:
        raise TypeError(f"{name} must be bool or integer 0/1, true at real tokens, got {mask.dtype}")
    if mask.shape != shape:
        raise ValueError(f"{name} must have shape (B, T) = {tuple(shape)}, got {_shape(mask)}")
    if mask.device != device:
        raise ValueError(f"{name} must be on the device of the tokens, {device}, got {mask.device}")


def values_can_be_read(tensor: Tensor) -> bool:
    """Return whether to check the values of `tensor`: yes on the CPU, on a GPU only under DLFA_VALIDATE=1.

    Reading values on a GPU is a host sync. Tensors on the meta device and under tracing have no values.
    """
    if torch.compiler.is_compiling() or _is_fake(tensor) or tensor.device.type == "meta":
        return False
    return tensor.device.type == "cpu" or environment.validate()


def _check_cu_seqlens(cu_seqlens: Tensor, last: Tensor) -> None:
    check_tensor("cu_seqlens", cu_seqlens)
    if cu_seqlens.dtype != torch.int32:
        raise TypeError(f"cu_seqlens must be int32, got {cu_seqlens.dtype}")
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 1:
        raise ValueError(f"cu_seqlens must have shape (B+1,), got {_shape(cu_seqlens)}")
    if cu_seqlens.shape[0] == 1 and last.shape[0] > 0:
        raise ValueError(
            f"cu_seqlens must have shape (B+1,), with B at least 1 for the N = {last.shape[0]} rows of last, "
            f"got {_shape(cu_seqlens)}"
        )
    _check_device("cu_seqlens", cu_seqlens, last)
    rows = last.shape[0]
    if torch.compiler.is_compiling() and (cu_seqlens.device.type == "cpu" or environment.validate()):
        # a graph cannot depend on values, but it can stop at them
        right = (cu_seqlens[0] == 0) & (cu_seqlens[-1] == rows) & (cu_seqlens.diff() >= 0).all()
        torch._assert_async(right, "cu_seqlens must start at 0, end at N, the rows of last, and not decrease")
    if not values_can_be_read(cu_seqlens):
        return
    values = cu_seqlens.tolist()
    if values[0] != 0:
        raise ValueError(f"cu_seqlens must start at 0, got {values[0]}")
    if values[-1] != rows:
        raise ValueError(f"cu_seqlens must end at N = {rows}, the rows of last, got {values[-1]}")
    for index, (before, after) in enumerate(itertools.pairwise(values)):
        if after < before:
            raise ValueError(f"cu_seqlens must not decrease, got {before} then {after} at position {index + 1}")


def _is_fake(tensor: Tensor) -> bool:
    return isinstance(tensor, torch._subclasses.FakeTensor) or torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def _check_token(token: int, last: Tensor, packed: bool) -> None:
    if isinstance(token, bool) or not isinstance(token, int | torch.SymInt):
        raise TypeError(f"token must be an int, got {token!r}")
    if token < 0:
        raise ValueError(f"token must not be negative, got {int(token)}")
    if not packed and token >= last.shape[1]:
        raise ValueError(f"token must be less than T = {int(last.shape[1])}, got {int(token)}")
    # no sequence is longer than all rows; a compiled graph is not to depend on their number
    if packed and not torch.compiler.is_compiling() and 0 < last.shape[0] <= token:
        raise ValueError(f"token must be less than N = {last.shape[0]}, got {token}")


def check_inputs(
    last: Tensor,
    lower: Tensor | None,
    weights: AIFWeights,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    token: int | None,
    fuse: str,
    activation: str,
) -> None:
    """Check every argument of `fused_aif` before any work; its docstring lists the shapes.

    Raises:
        TypeError: an argument is not a tensor or has an invalid dtype.
        ValueError: an argument has an invalid shape, device or value, or does not fit the others; the message names it.
    """
    check_one_of("fuse", fuse, FUSE_MODES)
    check_one_of("activation", activation, ACTIVATIONS)
    check_tensor("last", last)  # first: torch.fx traces with proxies, of which none is None
    if cu_seqlens is not None and mask is not None:
        raise ValueError("mask and cu_seqlens cannot be given together: packed rows are all real tokens")
    _check_states(last, lower, packed=cu_seqlens is not None)
    if fuse == "select" and lower is None:
        raise ValueError("lower must be given for fuse='select', got None")
    _check_weights(weights, last)
    if mask is not None:
        check_mask("mask", mask, last.shape[:2], last.device)
    if cu_seqlens is not None:
        _check_cu_seqlens(cu_seqlens, last)
    if token is not None:
        _check_token(token, last, packed=cu_seqlens is not None)
