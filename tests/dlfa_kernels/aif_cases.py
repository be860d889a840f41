"""Cases of AIF for the tests: what to call it with, a second way to compute it, and how far two results are apart."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import errors
from dlfa_kernels import aif_reference
from dlfa_kernels.backends import INTERPRETED
from dlfa_kernels.checks import ACTIVATIONS
from dlfa_kernels.parameters import AIFWeights, weight_shapes

PHI = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}


@dataclass(frozen=True)
class Case:
    """One configuration. `lengths`, where given, makes it packed: rows of each sequence, for batch and length.

    Of `frozen` states no gradient is asked for.
    """

    batch: int = 2
    length: int = 12
    embed_dim: int = 24
    squeeze_dim: int = 16
    kernel_size: int = 1
    fuse: str = "gate"
    activation: str = "gelu"
    lower: bool = True
    mask: str = "holes"  # of `MASKS`
    lengths: tuple[int, ...] | None = None
    token: int | None = None
    frozen: bool = False
    dtype: torch.dtype = torch.float32
    weight_dtype: torch.dtype = torch.float32
    seed: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of `run`; where states are not frozen, of `fused_aif` and `aif_reference` too."""
        return (
            {"fuse": self.fuse, "activation": self.activation}
            | ({} if self.token is None else {"token": self.token})
            | ({"frozen": True} if self.frozen else {})
        )

    def but(self, **changes: Any) -> Case:
        """This case with some fields changed."""
        return replace(self, **changes)

    def __str__(self) -> str:
        changed = {name: value for name, value in vars(self).items() if value != getattr(Case, name)}
        return " ".join(f"{name}={str(value).removeprefix('torch.')}" for name, value in changed.items()) or "default"


MASKS = ("none", "full", "holes", "right", "left", "empty", "all_empty", "islands")


@dataclass
class Inputs:
    """Tensors of one case; packed where cu_seqlens is there."""

    last: Tensor
    lower: Tensor | None
    weights: AIFWeights
    mask: Tensor | None
    cu_seqlens: Tensor | None
    dz: Tensor  # gradient of z, as last
    dz_token: Tensor  # gradient of z with `token`, (B, E)

    def double(self) -> Inputs:
        """The same values in float64."""
        return Inputs(
            self.last.double(),
            None if self.lower is None else self.lower.double(),
            AIFWeights._make(weight.double() for weight in self.weights),
            self.mask,
            self.cu_seqlens,
            self.dz.double(),
            self.dz_token.double(),
        )


def make_mask(kind: str, batch: int, length: int, generator: torch.Generator) -> Tensor | None:
    """A bool mask (batch, length); every kind but "all_empty" leaves the first sequence a real token.

    "empty" has holes and a last sequence without a real token; "islands" has real tokens at both ends alone.
    """
    if kind == "none":
        return None
    if kind in ("full", "all_empty"):
        return torch.full((batch, length), kind == "full")
    if kind in ("right", "left"):
        real = torch.randint(1, length + 1, (batch,), generator=generator)[:, None]
        position = torch.arange(length)
        return position < real if kind == "right" else position >= length - real
    if kind == "islands":
        position = torch.arange(length).expand(batch, length)
        return (position < 2) | (position == length - 1)
    mask = torch.rand(batch, length, generator=generator) > 0.4
    mask[0, length // 2] = True
    if kind == "empty":
        mask[-1] = False
    return mask


def make_weights(
    embed_dim: int, squeeze_dim: int, kernel_size: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> AIFWeights:
    """Random weights that keep every stage near unit size, so that no branch drowns in another."""

    def make(shape: tuple[int, ...]) -> Tensor:
        fan_in = math.prod(shape[1:]) if len(shape) > 1 else 4
        return (torch.randn(shape, generator=generator, dtype=torch.float64) / fan_in**0.5).to(dtype)

    return AIFWeights._make(map(make, weight_shapes(embed_dim, squeeze_dim, kernel_size)))


def make_inputs(case: Case, device: torch.device | str = "cpu") -> Inputs:
    """Random tensors of a case; padding holds numbers too, which must not matter."""
    generator = torch.Generator().manual_seed(case.seed)
    cu_seqlens = None
    batch, rows = case.batch, (case.batch, case.length)
    if case.lengths is not None:
        cu_seqlens = torch.tensor([0, *case.lengths]).cumsum(0).int().to(device)
        batch, rows = len(case.lengths), (sum(case.lengths),)

    def states(*shape: int) -> Tensor:
        return torch.randn(*shape, case.embed_dim, generator=generator, dtype=torch.float64).to(case.dtype).to(device)

    weights = make_weights(case.embed_dim, case.squeeze_dim, case.kernel_size, generator, case.weight_dtype)
    mask = None if case.lengths is not None else make_mask(case.mask, case.batch, case.length, generator)
    return Inputs(
        last=states(*rows),
        lower=states(*rows) if case.lower else None,
        weights=AIFWeights._make(weight.to(device) for weight in weights),
        mask=None if mask is None else mask.to(device),
        cu_seqlens=cu_seqlens,
        dz=states(*rows),
        dz_token=states(batch),
    )


GRADIENTS = ("last", "lower", *AIFWeights._fields)


def run(
    fused: Callable[..., Tensor], inputs: Inputs, token: int | None = None, frozen: bool = False, **options: object
) -> dict[str, Tensor]:
    """`fused`(inputs), called like `fused_aif`: z, and every gradient for `inputs.dz`, by argument name.

    Those of the states are left out where they are `frozen`.
    """
    states = {"last": inputs.last, "lower": inputs.lower}
    leaves = inputs.weights._asdict() if frozen else {**states, **inputs.weights._asdict()}
    leaves = {name: leaf.detach().requires_grad_() for name, leaf in leaves.items() if leaf is not None}
    arguments = [leaves.get(name, states.get(name)) for name in GRADIENTS]
    if token is not None:
        options["token"] = token
    z = fused(*arguments, inputs.mask, cu_seqlens=inputs.cu_seqlens, **options)
    dz = inputs.dz if token is None else inputs.dz_token
    gradients = torch.autograd.grad(z, list(leaves.values()), dz, allow_unused=True)
    zero_filled = (
        torch.zeros_like(leaf) if gradient is None else gradient
        for leaf, gradient in zip(leaves.values(), gradients, strict=True)
    )
    return {"z": z.detach(), **dict(zip(leaves, zero_filled, strict=True))}


def worst_row_errors(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """As `relative_errors`, of the worst row, a token's or an output channel's: in the whole one wrong tile can hide.

    Of rows smaller than usual the usual size counts, which is what their roundings are relative to.
    """
    worst = {}
    for name, value in expected.items():
        if value.numel() == 0:
            continue
        width = value.shape[-1] if name in ("z", "last", "lower") else value[0].numel()
        rows = value.double().reshape(-1, width)
        sizes = rows.norm(dim=1)
        distances = (actual[name].double().reshape(-1, width) - rows).norm(dim=1)
        usual = sizes.square().mean().sqrt().item()
        worst[name] = (distances / sizes.clamp(min=usual)).max().item() if usual > 0 else distances.max().item()
    return worst


def relative_errors(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """`benchmarks.errors.relative_errors`, of all of `run`'s results."""
    assert actual.keys() == expected.keys()
    return errors.relative_errors(actual, expected)


def assert_equal_bits(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


def assert_equal_to_rounding(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Results of kernels that were compiled anew, for other arguments, and may add up in another order.

    The interpreter has one order; numbers of 16 bits, where they are rounded otherwise at all, are by one place.
    """
    if INTERPRETED:
        return assert_equal_bits(actual, expected)
    for name, value in expected.items():
        places = 8 if value.dtype == torch.float32 else 1
        assert errors.relative_error(actual[name], value) < places * torch.finfo(value.dtype).eps, name


def exact(inputs: Inputs, case: Case) -> dict[str, Tensor]:
    """What every implementation is measured by: `aif_reference` in float64 on the very numbers of `inputs`."""
    return run(aif_reference, inputs.double(), **case.options)


def relu_undecided(inputs: Inputs, case: Case) -> dict[str, float]:
    """How far relu's exact gradients move when pre-activations move by a rounding error, relative to themselves.

    Where rounding carries a value over zero, relu's mask flips and the gradient is off by a whole term: up to this it
    is not determined by arithmetic in the dtype of the states. `make_weights` keeps pre-activations near 1.
    """
    moved = []
    for sign in (1, -1):
        wide, step = inputs.double(), sign * torch.finfo(case.dtype).eps
        wide.weights = wide.weights._replace(
            local_squeeze_bias=wide.weights.local_squeeze_bias + step,
            global_squeeze_bias=wide.weights.global_squeeze_bias + step,
        )
        moved.append(run(aif_reference, wide, **case.options))
    return relative_errors(*moved)


class AIFBySequence(nn.Module):
    """AIF of torch's own layers, one sequence at a time: the definition said a second way, and what eager code does."""

    def __init__(self, embed_dim: int, squeeze_dim: int, kernel_size: int, fuse: str, activation: str) -> None:
        super().__init__()
        self.local_squeeze = nn.Conv1d(embed_dim, squeeze_dim, kernel_size, padding="same")
        self.local_expand = nn.Conv1d(squeeze_dim, embed_dim, 1)
        self.global_squeeze = nn.Linear(embed_dim, squeeze_dim)
        self.global_expand = nn.Linear(squeeze_dim, embed_dim)
        self.fuse, self.phi = fuse, PHI[activation]

    def sequence(self, x: Tensor, y: Tensor | None, real: Tensor) -> Tensor:
        """z (L, E) of one sequence; real (L,)."""
        if not real.any():
            return torch.zeros_like(x)
        x = x.masked_fill(~real[:, None], 0)
        w = x if y is None else x + y.masked_fill(~real[:, None], 0)
        context = self.global_expand(self.phi(self.global_squeeze(w[real].mean(dim=0))))
        local = self.local_expand(self.phi(self.local_squeeze(w.T[None])))[0].T
        m = torch.sigmoid(context + local).masked_fill(~real[:, None], 0)
        if self.fuse == "select":
            assert y is not None
            return m * x + (1 - m) * y.masked_fill(~real[:, None], 0)
        return m * w

    def forward(
        self, last: Tensor, lower: Tensor | None, mask: Tensor | None, cu_seqlens: Tensor | None, token: int | None
    ) -> Tensor:
        """z in any of the three input forms."""
        if cu_seqlens is None:
            bounds = [(b, slice(None)) for b in range(last.shape[0])]
            real = torch.ones(last.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
        else:
            bounds = [(slice(a, b),) for a, b in zip(cu_seqlens[:-1].tolist(), cu_seqlens[1:].tolist(), strict=True)]
            real = torch.ones(last.shape[0], dtype=torch.bool)
        real = real.to(last.device)
        z = [self.sequence(last[at], None if lower is None else lower[at], real[at]) for at in bounds]
        if token is not None:
            return torch.stack([rows[token] if token < len(rows) else last.new_zeros(last.shape[-1]) for rows in z])
        return torch.stack(z) if cu_seqlens is None else torch.cat(z)


def plain_aif(
    last: Tensor,
    lower: Tensor | None,
    *rest: Tensor | None,
    cu_seqlens: Tensor | None = None,
    token: int | None = None,
    fuse: str = "gate",
    activation: str = "relu",
) -> Tensor:
    """`AIFBySequence` with given weights, called like `fused_aif`; computes in the dtype of `last`."""
    *weights, mask = rest
    squeeze_dim, embed_dim, kernel_size = weights[0].shape
    with torch.device("meta"):
        module = AIFBySequence(embed_dim, squeeze_dim, kernel_size, fuse, activation)
    state = dict(zip(state_names(), (weight.to(last.dtype) for weight in weights), strict=True))
    return torch.func.functional_call(module, state, (last, lower, mask, cu_seqlens, token), strict=True)


def state_names() -> list[str]:
    """Names in a state_dict, in the order of `AIFWeights`."""
    return [f"{field.rsplit('_', 1)[0]}.{field.rsplit('_', 1)[1]}" for field in AIFWeights._fields]


def random_case(seed: int) -> Case:
    """A case drawn from all that the kernels take, at sizes that the interpreter runs in about a second."""
    draw = random.Random(seed)
    dtype = draw.choice((torch.float32, torch.float16, torch.bfloat16))
    lower = draw.random() < 0.8
    size: dict[str, Any] = {
        "batch": draw.choice((1, 2, 3)),
        "length": draw.choice((1, 2, 5, 17, 31, 63, 64, 65, 90, 128)),
        "mask": draw.choice(("none", "holes", "right", "left", "empty", "islands")),
    }
    if draw.random() < 0.35:
        lengths = [draw.choice((0, 0, 1, 2, 7, 33, 63, 64, 65)) for _ in range(draw.randint(1, 4))]
        draw.shuffle(lengths := [*lengths, draw.randint(1, 70)])
        size = {"lengths": tuple(lengths)}
    token = draw.choice((0, 0, 1, 3, 40)) if draw.random() < 0.2 else None
    if token is not None:
        token = min(token, size["length"] - 1 if "length" in size else sum(size["lengths"]) - 1)
    return Case(
        **size,
        token=token,
        embed_dim=draw.choice((8, 13, 16, 24, 31, 32, 33, 40, 64, 72)),
        squeeze_dim=draw.choice((8, 16, 17, 24, 32, 33, 48, 64)),
        kernel_size=draw.choice((1, 1, 3, 5, 7)),
        fuse=draw.choice(("gate", "select")) if lower else "gate",
        activation=draw.choice(ACTIVATIONS),
        lower=lower,
        dtype=dtype,
        weight_dtype=draw.choice((torch.float32, dtype)),
        seed=seed,
    )


def random_wide_case(seed: int) -> Case:
    """The same with more channels than one block holds, of H more than one program; some with tiles of 128 tokens."""
    case, draw = random_case(seed), random.Random(seed)
    length = draw.choice((100, 129, 200, 300)) if case.token is None and not case.lengths else case.length
    return replace(
        case,
        length=length,
        embed_dim=draw.choice((24, 64, 72, 128, 136, 200)),
        squeeze_dim=draw.choice((80, 100, 128, 160, 192, 256, 257, 320, 384, 512)),
    )
