"""The fusions of an encoder's last layer with lower ones, with one interface.

Every fusion takes the last layer's states (B, T, E), the lower inputs in order, the mask of real tokens and optionally
a token position. It returns (B, T, E), or (B, E) with `token`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlfa_kernels import FusedAIF

from .configuration import DLFAConfig
from .residual import ResidualBranches


class Fusion(nn.Module):
    """Base class of all fusions."""

    def forward(
        self, last: Tensor, lowers: Sequence[Tensor], mask: Tensor | None = None, token: int | None = None
    ) -> Tensor:
        """Fuse the last layer with the lower inputs.

        Args:
            last: (B, T, E), the last layer.
            lowers: the lower inputs, (B, T, E) each, in the order of fusion.
            mask: (B, T), bool or integer 0/1, true at real tokens.
            token: return only this token of each sequence.

        Returns:
            (B, T, E) in the dtype of `last`, or (B, E) with `token`.

        Raises:
            NotImplementedError: in the base class.
        """
        raise NotImplementedError


def _rows(states: Tensor, token: int | None) -> Tensor:
    return states if token is None else states[:, token]


class LastLayer(Fusion):
    """The baseline: the last layer, unchanged."""

    def forward(
        self, last: Tensor, lowers: Sequence[Tensor], mask: Tensor | None = None, token: int | None = None
    ) -> Tensor:
        """Return x, (B, T, E) or (B, E)."""
        return _rows(last, token)


class LowerLayer(Fusion):
    """The lower input alone."""

    def forward(
        self, last: Tensor, lowers: Sequence[Tensor], mask: Tensor | None = None, token: int | None = None
    ) -> Tensor:
        """Return y, (B, T, E) or (B, E)."""
        return _rows(lowers[0], token)


class LayerSum(Fusion):
    """The last layer plus the lower inputs: AIF's initial integration, without attention."""

    def forward(
        self, last: Tensor, lowers: Sequence[Tensor], mask: Tensor | None = None, token: int | None = None
    ) -> Tensor:
        """Return x + y_1 + y_2 + ..., (B, T, E) or (B, E)."""
        total = _rows(last, token)
        for lower in lowers:
            total = total + _rows(lower, token)
        return total


class ScalarMix(Fusion):
    """gamma * sum_i softmax(s)_i h_i over the lower inputs and the last layer, as in ELMo and UDify.

    Args:
        num_layers: n, the number of mixed inputs, including the last layer.
        layer_dropout: the probability, in training, that a layer's s_i is set to minus infinity, drawn once per call.
            If all layers would be dropped, none is.
        layer_norm: normalise each input to mean 0 and variance 1 over its channels, per token. (AllenNLP's ScalarMix
            computes these statistics over the whole batch, so a sentence's result depends on the others in the batch.)

    The parameters are `scalars` (n), initially zero, in the order of the lower inputs followed by the last layer, and
    `gamma` (), initially one.
    """

    def __init__(self, num_layers: int, layer_dropout: float = 0.0, layer_norm: bool = False) -> None:
        super().__init__()
        self.layer_dropout = layer_dropout
        self.layer_norm = layer_norm
        self.scalars = nn.Parameter(torch.empty(num_layers))
        self.gamma = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set equal weights and gamma 1."""
        nn.init.zeros_(self.scalars)
        nn.init.ones_(self.gamma)

    def weights(self) -> Tensor:
        """Return softmax(s), (n,) float32: the weight of each layer, after layer dropout in training."""
        scalars = self.scalars.float()
        if self.training and self.layer_dropout > 0:
            dropped = torch.rand_like(scalars) < self.layer_dropout
            scalars = scalars.masked_fill(dropped & ~dropped.all(), -torch.inf)
        return torch.softmax(scalars, dim=0)

    def forward(
        self, last: Tensor, lowers: Sequence[Tensor], mask: Tensor | None = None, token: int | None = None
    ) -> Tensor:
        """Return the mix, (B, T, E) or (B, E), computed in float32."""
        mixed: Tensor | None = None
        for weight, layer in zip(self.weights(), (*lowers, last), strict=True):
            states = _rows(layer, token).float()
            if self.layer_norm:
                states = F.layer_norm(states, states.shape[-1:])
            mixed = weight * states if mixed is None else mixed + weight * states
        assert mixed is not None
        return (self.gamma.float() * mixed).to(last.dtype)

    def extra_repr(self) -> str:
        """Return the settings, for printing."""
        return f"{self.scalars.numel()}, layer_dropout={self.layer_dropout}, layer_norm={self.layer_norm}"


class FusionSequence(Fusion):
    """Fuses the last layer with the first lower input, the result with the second, and so on.

    Args:
        steps: one module per lower input, called like `FusedAIF`. They are stored in `self.aif`, so that AIF and its
            control have the same names in a state_dict.
    """

    def __init__(self, steps: Iterable[nn.Module]) -> None:
        super().__init__()
        self.aif = nn.ModuleList(steps)

    def forward(
        self, last: Tensor, lowers: Sequence[Tensor], mask: Tensor | None = None, token: int | None = None
    ) -> Tensor:
        """Return the last step's result, (B, T, E) or (B, E); zero at padding."""
        fused, final = last, len(self.aif) - 1
        for number, (step, lower) in enumerate(zip(self.aif, lowers, strict=True)):
            fused = step(fused, lower, mask, token=token if number == final else None)
        return fused


def _branch_options(config: DLFAConfig) -> dict[str, Any]:
    """The options AIF and the residual control share, so that both have the same parameters."""
    return {name: getattr(config, name) for name in ("reduction", "squeeze_dim", "kernel_size", "activation")}


class ResidualSequence(FusionSequence):
    """AIF's control without a gate: each step is a `ResidualBranches`."""

    def __init__(self, config: DLFAConfig) -> None:
        super().__init__(
            ResidualBranches(config.hidden_size, **_branch_options(config)) for _ in range(config.num_lower_inputs)
        )


class AIFSequence(FusionSequence):
    """AIF: each step is a `FusedAIF`."""

    def __init__(self, config: DLFAConfig) -> None:
        super().__init__(
            FusedAIF(
                config.hidden_size,
                **_branch_options(config),
                fuse=config.fuse,
                gate_bias=config.gate_bias,
                backend=config.aif_backend,
            )
            for _ in range(config.num_lower_inputs)
        )

    def gates(
        self, last: Tensor, lowers: Sequence[Tensor], mask: Tensor | None = None, token: int | None = None
    ) -> tuple[Tensor, ...]:
        """Return each step's gate in (0, 1), zero at padding, (B, T, E), or (B, E) with `token`; for analysis."""
        fused, gates = last, []
        for step, (aif, lower) in enumerate(zip(self.aif, lowers, strict=True)):
            assert isinstance(aif, FusedAIF)
            gates.append(aif.gate(fused, lower, mask, token=token))
            if step < len(self.aif) - 1:
                fused = aif(fused, lower, mask)
        return tuple(gates)


def build_fusion(config: DLFAConfig) -> Fusion:
    """Build the fusion that `config` describes."""
    return _BUILDERS[str(config.fusion)](config)


_BUILDERS: dict[str, Callable[[DLFAConfig], Fusion]] = {
    "last": lambda _: LastLayer(),
    "lower": lambda _: LowerLayer(),
    "sum": lambda _: LayerSum(),
    "scalar_mix": lambda config: ScalarMix(
        config.num_lower_inputs + 1, config.layer_dropout, config.scalar_mix_layer_norm
    ),
    "residual": ResidualSequence,
    "aif": AIFSequence,
}
