"""The parameters of AIF's global and local branch, shared by FusedAIF and its control without a gate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .checks import (
    ACTIVATIONS,
    STATE_DTYPES,
    AIFWeights,
    check_finite,
    check_kernel_size,
    check_one_of,
    check_positive_int,
)
from .rounding import cdiv


def default_squeeze_dim(embed_dim: int, reduction: int) -> int:
    """Return H = max(16, E // reduction), rounded up to a multiple of 16."""
    return cdiv(max(16, embed_dim // reduction), 16) * 16


_LAYERS = ("local_squeeze", "local_expand", "global_squeeze", "global_expand")
# Of the class: hooks of accelerate replace an instance's.
_FORWARDS = (nn.Conv1d.forward, nn.Linear.forward)
_OWN_PARAMETERS = {"weight", "bias"}


def weights_of(module: nn.Module) -> AIFWeights:
    """Return the parameters of a module's four layers, in the order of `fused_aif`.

    Raises:
        TypeError: a layer was replaced by another module, whose forward would never be called, or a hook, which would
            not run, computes a layer's weight from other parameters.
    """
    weights: list[Tensor] = []
    for name in _LAYERS:
        layer: Any = module._modules[name]
        if type(layer).forward not in _FORWARDS:
            got = f"{type(layer).__module__}.{type(layer).__qualname__}"
            raise TypeError(
                f"{name} must be torch.nn's own layer, whose parameters are read, got {got}; wrap the whole "
                f"{type(module).__name__}, with PEFT by modules_to_save, or leave it out of a quantization"
            )
        parameters = layer._parameters
        if parameters.keys() == _OWN_PARAMETERS:  # as attributes they take a tenth of a small batch's forward
            weights += parameters["weight"], parameters["bias"]
        elif parameters.keys() < _OWN_PARAMETERS:  # the others are computed, by torch.nn.utils.parametrize
            weights += layer.weight, layer.bias
        else:
            made_of = ", ".join(sorted(parameters.keys() - _OWN_PARAMETERS))
            raise TypeError(
                f"{name}.weight must be a parameter, got one that a hook makes of {made_of} (pruning, weight_norm, "
                "spectral_norm), which would not run; use torch.nn.utils.parametrizations"
            )
    return AIFWeights._make(weights)


class _LocalExpand(nn.Conv1d):
    """A convolution whose bias starts at 0. PEFT's LoRA makes others of its class without a bias."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class _GlobalExpand(nn.Linear):
    """A linear layer whose bias starts at `gate_bias`."""

    def __init__(
        self,
        squeeze_dim: int,
        embed_dim: int,
        gate_bias: float,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        self.gate_bias = gate_bias  # the constructor below initialises by it
        super().__init__(squeeze_dim, embed_dim, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.constant_(self.bias, self.gate_bias)


class AIFBranches(nn.Module):
    """The initialised parameters of the global and the local branch; subclasses define the computation.

    Args:
        embed_dim, reduction, squeeze_dim, kernel_size, activation, gate_bias, device, dtype: see `FusedAIF`.

    Raises:
        TypeError, ValueError: an argument has an invalid type or value; the message names it.
    """

    def __init__(
        self,
        embed_dim: int,
        *,
        reduction: int = 4,
        squeeze_dim: int | None = None,
        kernel_size: int = 1,
        activation: str = "relu",
        gate_bias: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_positive_int("embed_dim", embed_dim)
        check_positive_int("reduction", reduction)
        if squeeze_dim is not None:
            check_positive_int("squeeze_dim", squeeze_dim)
        check_kernel_size(kernel_size)
        check_one_of("activation", activation, ACTIVATIONS)
        check_finite("gate_bias", gate_bias)
        if dtype is not None and dtype not in STATE_DTYPES:
            raise TypeError(f"dtype must be float32, bfloat16, float16 or float64, got {dtype}")
        self.embed_dim = embed_dim
        self.squeeze_dim = default_squeeze_dim(embed_dim, reduction) if squeeze_dim is None else squeeze_dim
        self.kernel_size = kernel_size
        self.activation = activation
        self.local_squeeze = nn.Conv1d(embed_dim, self.squeeze_dim, kernel_size, device=device, dtype=dtype)
        self.local_expand = _LocalExpand(self.squeeze_dim, embed_dim, 1, device=device, dtype=dtype)
        self.global_squeeze = nn.Linear(embed_dim, self.squeeze_dim, device=device, dtype=dtype)
        self.global_expand = _GlobalExpand(self.squeeze_dim, embed_dim, float(gate_bias), device, dtype)

    def reset_parameters(self) -> None:
        """Initialise the layers as torch does, but with b_le = 0 and b_ge = gate_bias."""
        for layer in (self.local_squeeze, self.local_expand, self.global_squeeze, self.global_expand):
            layer.reset_parameters()

    @property
    def weights(self) -> AIFWeights:
        """The eight parameters in the order of `fused_aif`.

        Raises:
            TypeError: see `weights_of`.
        """
        return weights_of(self)

    def extra_repr(self) -> str:
        """Return the settings, for printing."""
        return (
            f"embed_dim={self.embed_dim}, squeeze_dim={self.squeeze_dim}, kernel_size={self.kernel_size}, "
            f"activation={self.activation!r}"
        )
