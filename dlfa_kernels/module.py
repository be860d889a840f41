"""AIF as a module that drops into any model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .backends import BACKENDS
from .checks import (
    ACTIVATIONS,
    FUSE_MODES,
    STATE_DTYPES,
    AIFWeights,
    check_inputs,
    finite_number,
    odd_kernel_size,
    one_of,
    positive_int,
)
from .functional import fused_aif
from .reference import gate_or_fused


def default_squeeze_dim(embed_dim: int, reduction: int) -> int:
    """H = max(16, E // reduction), rounded up to a multiple of 16."""
    return -(-max(16, embed_dim // reduction) // 16) * 16


_LAYERS = ("local_squeeze", "local_expand", "global_squeeze", "global_expand")
_LAYER_TYPES = (nn.Conv1d, nn.Linear)
_OWN_PARAMETERS = {"weight", "bias"}


class _LocalExpand(nn.Conv1d):
    """A convolution whose bias starts at 0."""

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]


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


class FusedAIF(nn.Module):
    """Attention information fusion of an encoder's last and one lower layer; `aif_reference` states the equations.

    The parameters have the shapes of torch's own layers (`local_squeeze` and `local_expand` of Conv1d, `global_squeeze`
    and `global_expand` of Linear), so a checkpoint can be read by plain PyTorch. These layers hold parameters and are
    never called: their forward hooks do not run, so nothing that works by hooks or by a layer in their place (pruning,
    offloading, LoRA, quantization) can be put on them, though on the whole module; torch.nn.utils.parametrize works.

    Args:
        embed_dim: E, channels of the hidden states.
        reduction: the squeeze width is max(16, E // reduction), rounded up to a multiple of 16.
        squeeze_dim: H itself, in place of `reduction`.
        kernel_size: k, the odd width in tokens of the local squeeze convolution.
        fuse: "gate" (z = m w) or "select" (z = m x + (1 - m) y, needs `lower`).
        activation: "relu", "gelu" (erf) or "silu".
        gate_bias: initial value of the global expand bias; sigmoid(gate_bias) is roughly the gate at the start.
        backend: "auto" (Triton on a GPU, else eager; DLFA_BACKEND overrides it), "triton" or "eager".
        device: of the parameters.
        dtype: of the parameters; float32 parameters serve bfloat16 and float16 states too.

    Raises:
        TypeError, ValueError: an argument out of its set, named in the message.
    """

    def __init__(
        self,
        embed_dim: int,
        *,
        reduction: int = 4,
        squeeze_dim: int | None = None,
        kernel_size: int = 1,
        fuse: str = "gate",
        activation: str = "relu",
        gate_bias: float = 0.0,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        positive_int("embed_dim", embed_dim)
        positive_int("reduction", reduction)
        if squeeze_dim is not None:
            positive_int("squeeze_dim", squeeze_dim)
        odd_kernel_size(kernel_size)
        one_of("fuse", fuse, FUSE_MODES)
        one_of("activation", activation, ACTIVATIONS)
        one_of("backend", backend, BACKENDS)
        finite_number("gate_bias", gate_bias)
        if dtype is not None and dtype not in STATE_DTYPES:
            raise TypeError(f"dtype must be float32, bfloat16, float16 or float64, got {dtype}")
        self.embed_dim = embed_dim
        self.squeeze_dim = default_squeeze_dim(embed_dim, reduction) if squeeze_dim is None else squeeze_dim
        self.kernel_size = kernel_size
        self.fuse = fuse
        self.activation = activation
        self.backend = backend
        self.local_squeeze = nn.Conv1d(embed_dim, self.squeeze_dim, kernel_size, device=device, dtype=dtype)
        self.local_expand = _LocalExpand(self.squeeze_dim, embed_dim, 1, device=device, dtype=dtype)
        self.global_squeeze = nn.Linear(embed_dim, self.squeeze_dim, device=device, dtype=dtype)
        self.global_expand = _GlobalExpand(self.squeeze_dim, embed_dim, float(gate_bias), device, dtype)

    @property
    def gate_bias(self) -> float:
        """The initial value of the global expand bias."""
        return self.global_expand.gate_bias

    def reset_parameters(self) -> None:
        """Initialise as torch's layers do, with b_le = 0 and b_ge = gate_bias."""
        for layer in (self.local_squeeze, self.local_expand, self.global_squeeze, self.global_expand):
            layer.reset_parameters()

    @property
    def weights(self) -> AIFWeights:
        """The eight parameters in the order of `fused_aif`.

        Raises:
            TypeError: another module stands in place of one of the layers, whose forward would never be called, or a
                layer's weight is made of other parameters by a hook, which would not run.
        """
        weights: list[Tensor] = []
        for name in _LAYERS:
            layer = self._modules[name]
            if not isinstance(layer, _LAYER_TYPES):
                got = f"{type(layer).__module__}.{type(layer).__qualname__}"
                raise TypeError(
                    f"{name} must be torch.nn's own layer, whose parameters are read, got {got}; "
                    "wrap the whole FusedAIF, with PEFT by modules_to_save, or leave it out of a quantization"
                )
            parameters = layer._parameters
            if parameters.keys() == _OWN_PARAMETERS:  # as attributes they take a tenth of a small batch's forward
                weights += parameters["weight"], parameters["bias"]  # type: ignore[arg-type]
            elif parameters.keys() < _OWN_PARAMETERS:  # the others are computed, by torch.nn.utils.parametrize
                weights += layer.weight, layer.bias  # type: ignore[arg-type]
            else:
                made_of = ", ".join(sorted(parameters.keys() - _OWN_PARAMETERS))
                raise TypeError(
                    f"{name}.weight must be a parameter, got one that a hook makes of {made_of} (pruning, "
                    "weight_norm, spectral_norm), which would not run; use torch.nn.utils.parametrizations"
                )
        return AIFWeights._make(weights)

    def forward(
        self,
        last: Tensor,
        lower: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        cu_seqlens: Tensor | None = None,
        token: int | None = None,
    ) -> Tensor:
        """Fuse `last` with `lower`.

        Args:
            last: x, (B, T, E), or (N, E) with `cu_seqlens`; float32, bfloat16, float16 or float64.
            lower: y, of the shape and dtype of `last`; or None.
            mask: (B, T), bool or integer 0/1, true at real tokens.
            cu_seqlens: (B+1,) int32, sequence starts of the packed form, 0 first and N last; rows behind the last
                sequence are unwritten memory in z and the gradients, see `fused_aif`.
            token: return only this token's fused state of each sequence.

        Returns:
            z in the shape and dtype of `last`, or (B, E) with `token`.

        Raises:
            ValueError, TypeError, RuntimeError: as `fused_aif`.
        """
        return fused_aif(
            last, lower, *self.weights, mask,
            cu_seqlens=cu_seqlens, token=token, fuse=self.fuse, activation=self.activation, backend=self.backend,
        )  # fmt: skip

    def gate(
        self,
        last: Tensor,
        lower: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        cu_seqlens: Tensor | None = None,
        token: int | None = None,
    ) -> Tensor:
        """The gate m in (0, 1), zero at padding; for analysis, always by the eager path.

        Args:
            last, lower, mask, cu_seqlens, token: as of `forward`.

        Returns:
            m in the shape and dtype of `last`, or (B, E) with `token`.

        Raises:
            ValueError, TypeError: as `forward`.
        """
        check_inputs(last, lower, self.weights, mask, cu_seqlens, token, self.fuse, self.activation)
        return gate_or_fused(
            last, lower, self.weights, mask, cu_seqlens, token, self.fuse, self.activation, gate_alone=True
        )

    def extra_repr(self) -> str:
        """The settings, for printing."""
        return (
            f"embed_dim={self.embed_dim}, squeeze_dim={self.squeeze_dim}, kernel_size={self.kernel_size}, "
            f"fuse={self.fuse!r}, activation={self.activation!r}, backend={self.backend!r}"
        )
