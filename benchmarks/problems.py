"""The tensors of a case, and AIF's results for them in float64."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from dlfa_kernels import FusedAIF, aif_reference
from dlfa_kernels.parameters import AIFWeights

from .cases import DTYPES, Case
from .errors import LIMITS

# The most float64 tensors of B*T*E elements that the definition and its backward hold at once.
TENSORS_OF_REFERENCE = 30
MOST_REFERENCE_BYTES = 8 << 30
CPU_REFERENCE_BYTES = 1 << 30

GRADIENTS = ("last", "lower", *AIFWeights._fields)

# As `LIMITS`, for the baselines: plain code rounds every intermediate result to its dtype, an error of up to 2.2e-2
# of a bfloat16 gradient's norm at the smallest sizes; and torch lets cuDNN run float32 convolutions in TF32.
BASELINE_LIMITS = {torch.bfloat16: (2e-2, 5e-2), torch.float16: (4e-3, 1e-2), torch.float32: (1e-3, 4e-3)}
# The distance of relu's arguments from zero by `decide_relu`, in standard deviations: none of 1e8 reaches zero.
DEVIATIONS = 6.0


@dataclass(frozen=True)
class Problem:
    """One call's tensors; `last`, `lower` and the parameters require gradients.

    Padded: `last`, `lower`, `dz` (B, T, E) and `mask` (B, T) int64, as in transformers; `cu_seqlens` is None.
    Packed: only the real tokens, (N, E), and `cu_seqlens` (B+1,) int32; `mask` is None.
    `dz` is (B, E) if the case is for one token.
    """

    case: Case
    aif: FusedAIF
    last: Tensor
    lower: Tensor
    dz: Tensor
    mask: Tensor | None
    cu_seqlens: Tensor | None

    @property
    def leaves(self) -> list[Tensor]:
        """The tensors that need gradients: `last`, `lower` and the eight parameters (shapes: see `AIFWeights`)."""
        return [self.last, self.lower, *self.aif.weights]


def decide_relu(aif: FusedAIF, last: Tensor, lower: Tensor) -> None:
    """Set the squeezes' biases so that no argument of relu is near zero: half of the channels are on, half off.

    Otherwise rounding moves values across zero, relu's mask flips, and gradients of correct code are wrong by whole
    terms: for plain bfloat16 code by 0.1 of the norm, which would hide real errors.

    Args:
        aif: with random weights, independent of the states.
        last, lower: (B, T, E), or (N, E) packed.
    """
    with torch.no_grad():
        largest = torch.linalg.vector_norm(last + lower, dim=-1, dtype=torch.float32).max()
        weights = aif.weights
        for weight, bias in (
            (weights.local_squeeze_weight, weights.local_squeeze_bias),
            (weights.global_squeeze_weight, weights.global_squeeze_bias),
        ):
            deviations = torch.linalg.vector_norm(weight.flatten(1), dim=1, dtype=torch.float32)
            far = DEVIATIONS * deviations * largest / math.sqrt(aif.embed_dim)
            far[::2] *= -1
            bias.copy_(far)


def make_problem(case: Case, device: torch.device) -> Problem:
    """Return random states and parameters after `decide_relu`; the same ones for the same case and device."""
    _, length, embed_dim = case.shape
    dtype = DTYPES[case.dtype]
    torch.manual_seed(0)
    aif = FusedAIF(
        embed_dim,
        squeeze_dim=case.squeeze_dim,
        kernel_size=case.kernel_size,
        fuse=case.fuse,
        device=device,
        dtype=dtype,
    )
    last, lower, dz = (torch.randn(case.shape, device=device, dtype=dtype) for _ in range(3))
    lengths = torch.tensor(case.lengths, device=device)
    mask = (torch.arange(length, device=device) < lengths[:, None]).long()
    if case.token is not None:
        dz = dz[:, case.token].contiguous()
    cu_seqlens = None
    if case.packed:
        last, lower, dz = (states[mask.bool()] for states in (last, lower, dz))
        cu_seqlens = torch.tensor([0, *accumulate(case.lengths)], device=device, dtype=torch.int32)
    decide_relu(aif, last, lower)
    return Problem(
        case, aif, last.requires_grad_(), lower.requires_grad_(), dz, None if case.packed else mask, cu_seqlens
    )


def exact(problem: Problem) -> dict[str, Tensor]:
    """Return z and every gradient from `aif_reference` in float64, by name and in the shapes of the problem's tensors.

    z and the gradients of the states are kept in float32. Sequences are independent except in the parameters'
    gradients, which are sums over them, so as many sequences are computed at a time as memory allows.
    """
    last, lower, dz, lengths = problem.last.detach(), problem.lower.detach(), problem.dz, problem.case.lengths
    weights = [weight.detach().double().requires_grad_() for weight in problem.aif.weights]
    z = torch.empty(dz.shape, dtype=torch.float32, device=dz.device)
    dx, dy = (torch.empty(last.shape, dtype=torch.float32, device=last.device) for _ in range(2))
    weight_gradients = [torch.zeros_like(weight) for weight in weights]
    starts = [0, *accumulate(lengths)]
    batch = len(lengths)
    step = _sequences_at_once(problem)
    for begin in range(0, batch, step):
        end = min(batch, begin + step)
        sequences = slice(begin, end)
        rows = slice(starts[begin], starts[end]) if problem.case.packed else sequences
        part = [states[rows].double().requires_grad_() for states in (last, lower)]
        given = rows if problem.case.token is None else sequences
        cu_seqlens = problem.cu_seqlens
        mask, fuse, token = problem.mask, problem.case.fuse, problem.case.token
        result = aif_reference(
            part[0],
            part[1],
            *AIFWeights._make(weights),
            mask=None if mask is None else mask[sequences],
            cu_seqlens=None if cu_seqlens is None else cu_seqlens[begin : end + 1] - cu_seqlens[begin],
            token=token,
            fuse=fuse,
        )
        gradients = torch.autograd.grad(result, [*part, *weights], dz[given].double())
        z[given] = result.detach().float()
        dx[rows], dy[rows] = gradients[0].float(), gradients[1].float()
        for total, gradient in zip(weight_gradients, gradients[2:], strict=True):
            total += gradient
    return {"z": z, **dict(zip(GRADIENTS, [dx, dy, *weight_gradients], strict=True))}


def _sequences_at_once(problem: Problem) -> int:
    room = CPU_REFERENCE_BYTES
    if problem.last.is_cuda:
        room = min(MOST_REFERENCE_BYTES, torch.cuda.mem_get_info(problem.last.device)[0] // 2)
    _, length, embed_dim = problem.case.shape
    return max(1, room // (TENSORS_OF_REFERENCE * 8 * length * embed_dim))


def limit(name: str, dtype: torch.dtype, ours: bool) -> float:
    """Return the largest relative error of a correct result `name`, "z" or one of `GRADIENTS`, of ours or a baseline.

    It holds after `decide_relu`.
    """
    forward, gradient = (LIMITS if ours else BASELINE_LIMITS)[dtype]
    return forward if name == "z" else gradient


def beyond_limits(errors: Mapping[str, float], dtype: torch.dtype, ours: bool) -> dict[str, float]:
    """Return the relative errors, by name, that exceed their `limit`."""
    return {name: error for name, error in errors.items() if error > limit(name, dtype, ours)}
