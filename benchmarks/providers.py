"""The providers of AIF that are compared: the kernels, plain torch, and torch.compile of it in three modes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .plain_aif import PlainAIF
from .problems import GRADIENTS, Problem

OURS = "ours"
# The module without a GPU, and the definition that it then uses, in float32.
OURS_EAGER = "ours-eager-backend"
# The kernels as `benchmarks.schedule` launches them: by groups of a share of L2, or with other tiles.
L2_SHARES = {f"{OURS}-one-group": 0.0, f"{OURS}-l2-25": 0.25, f"{OURS}-l2-50": 0.5, f"{OURS}-l2-75": 0.75}
ONE_SLOT = f"{OURS}-one-slot"
WAITING_REDUCE = f"{OURS}-waiting-reduce"
WAITING_INPUT_GRADS = f"{OURS}-waiting-input-grads"
FEWER_TOKENS = f"{OURS}-fewer-tokens"
ONE_SEQUENCE = f"{OURS}-one-sequence"
OTHER_TILES = (ONE_SEQUENCE, FEWER_TOKENS, ONE_SLOT, WAITING_REDUCE, WAITING_INPUT_GRADS)
SCHEDULES = (*OTHER_TILES, *L2_SHARES)
EAGER = "eager"
# A training step without AIF.
PLAIN_HEAD = "plain-head"
COMPILE = "compile"
COMPILE_TUNED = "compile-max-autotune-no-cudagraphs"
COMPILE_TUNED_GRAPHS = "compile-max-autotune"
COMPILE_GRAPHS = "compile-reduce-overhead"
COMPILE_MODES = {
    COMPILE: "default",
    COMPILE_TUNED: "max-autotune-no-cudagraphs",
    COMPILE_TUNED_GRAPHS: "max-autotune",
    COMPILE_GRAPHS: "reduce-overhead",
}
# Modes in which torch.compile compares kernels by time; they take longest, and are the first to run out of time.
TUNED = (COMPILE_TUNED, COMPILE_TUNED_GRAPHS)
# Modes in which torch.compile replays CUDA graphs.
WITH_GRAPHS = (COMPILE_TUNED_GRAPHS, COMPILE_GRAPHS)
# Inductor treats saved tensors as static inputs of the backward's graph, but not the gradients of outputs
# (`count_tangents` in torch/_inductor/compile_fx.py, torch 2.11 to 2.13).
GRAPHS_NOTE = (
    "torch.compile's modes with CUDA graphs copy the gradient of z into their graph's memory at every backward; "
    "graphs captured by hand (+graph) read it where it lies."
)
PROVIDERS = (OURS, OURS_EAGER, EAGER, *COMPILE_MODES)
# Suffix of a provider's name: its call is captured in a CUDA graph, by hand, and replayed.
GRAPH = "+graph"

# A provider bound to a problem; returns z, with an autograd graph if gradients are enabled.
Call = Callable[[], Tensor]


def ours(device: torch.device) -> str:
    """Return the name of `FusedAIF` as a provider on a device."""
    return OURS if device.type == "cuda" else OURS_EAGER


def is_ours(provider: str) -> bool:
    """Return whether `provider` is `FusedAIF`, with any backend, schedule or graph."""
    return provider.startswith(OURS)


def is_tuned(provider: str) -> bool:
    """Return whether `provider` is a max-autotune mode of torch.compile, captured by hand or not."""
    return provider.removesuffix(GRAPH) in TUNED


def build(provider: str, problem: Problem) -> Call:
    """Bind `provider`, with or without "+graph", to the tensors of `problem`; torch.compile compiles at the first call.

    Raises:
        ValueError: an unknown provider, or one that does not take packed sequences.
    """
    provider = provider.removesuffix(GRAPH)
    if provider in (OURS, OURS_EAGER, *SCHEDULES):
        return _fused(problem, "eager" if provider == OURS_EAGER else "triton")
    if provider != EAGER and provider not in COMPILE_MODES:
        raise ValueError(f"provider must be one of {', '.join(PROVIDERS)}, got {provider!r}")
    if problem.mask is None:
        raise ValueError(f"provider must be {OURS} or {OURS_EAGER} for packed sequences, got {provider!r}")
    last, lower, mask, token = problem.last, problem.lower, problem.mask, problem.case.token
    plain: Any = PlainAIF(problem.aif)
    if provider == EAGER:
        return lambda: plain(last, lower, mask, token)
    compiled = torch.compile(plain, mode=COMPILE_MODES[provider], dynamic=False, fullgraph=True)
    if provider not in WITH_GRAPHS:
        return lambda: compiled(last, lower, mask, token)
    for static in (last, lower, mask):  # else each replay would first copy them
        torch._dynamo.mark_static_address(static)

    def replay() -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return compiled(last, lower, mask, token)

    return replay


def _fused(problem: Problem, backend: str) -> Call:
    aif: nn.Module = copy.copy(problem.aif)  # shares the parameters
    aif.backend = backend  # type: ignore[assignment]
    last, lower, mask = problem.last, problem.lower, problem.mask
    cu_seqlens, token = problem.cu_seqlens, problem.case.token
    return lambda: aif(last, lower, mask, cu_seqlens=cu_seqlens, token=token)


def inference(call: Call) -> Tensor:
    """Return z, in the problem's form, without autograd: torch.compile then saves nothing for a backward."""
    with torch.no_grad():
        return call()


def gradients(z: Tensor, problem: Problem) -> Sequence[Tensor]:
    """Return the gradients of both inputs and all parameters, as `problem.leaves`, from z and the problem's dz."""
    return torch.autograd.grad(z, problem.leaves, problem.dz)


def results(call: Call, problem: Problem) -> dict[str, Tensor]:
    """Return z and every gradient by name, in the shapes of the problem's tensors: the results of one training step."""
    z = call()
    return {"z": z.detach(), **dict(zip(GRADIENTS, gradients(z, problem), strict=True))}
