"""AIF as a module for any model."""

from __future__ import annotations

import torch
from torch import Tensor

from .backends import BACKENDS
from .branches import AIFBranches
from .checks import FUSE_MODES, check_inputs, check_one_of
from .functional import fused_aif
from .reference import aif_terms


class FusedAIF(AIFBranches):
    """Attention information fusion of an encoder's last layer with a lower one; see `aif_reference` for the equations.

    The parameters have the shapes of torch's own layers: `local_squeeze` and `local_expand` of Conv1d, `global_squeeze`
    and `global_expand` of Linear. Plain PyTorch can therefore read a checkpoint. These layers only hold parameters and
    are never called, so their forward hooks do not run. Methods that use hooks or replace layers (pruning, offloading,
    LoRA, quantization) must be applied to the whole module, not to these layers. torch.nn.utils.parametrize works.

    Args:
        embed_dim: E, the number of channels of the hidden states.
        reduction: sets the squeeze width H to max(16, E // reduction), rounded up to a multiple of 16.
        squeeze_dim: H itself, instead of `reduction`.
        kernel_size: k, the width of the local squeeze convolution in tokens; odd.
        fuse: "gate" (z = m w) or "select" (z = m x + (1 - m) y, needs `lower`).
        activation: "relu", "gelu" (erf) or "silu".
        gate_bias: initial value of the global expand bias; the initial gate is roughly sigmoid(gate_bias).
        backend: "auto", "triton" or "eager". "auto" is Triton on an AMD GPU or an NVIDIA one of compute capability 8.0
            or more, and eager elsewhere and for float64; DLFA_BACKEND overrides it.
        device: device of the parameters.
        dtype: dtype of the parameters; float32 parameters also work with bfloat16 and float16 states.

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
        fuse: str = "gate",
        activation: str = "relu",
        gate_bias: float = 0.0,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_one_of("fuse", fuse, FUSE_MODES)
        check_one_of("backend", backend, BACKENDS)
        super().__init__(
            embed_dim, reduction=reduction, squeeze_dim=squeeze_dim, kernel_size=kernel_size, activation=activation,
            gate_bias=gate_bias, device=device, dtype=dtype,
        )  # fmt: skip
        self.fuse = fuse
        self.backend = backend

    @property
    def gate_bias(self) -> float:
        """The initial value of the global expand bias."""
        return self.global_expand.gate_bias

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
            lower: y, same shape and dtype as `last`; or None.
            mask: (B, T), bool or integer 0/1, true at real tokens.
            cu_seqlens: (B+1,) int32, the sequence starts of packed input; the first is 0, the last N. Values are
                checked on the CPU, and on a GPU only under DLFA_VALIDATE=1. See `fused_aif` for input that ends before
                N and for compiled calls.
            token: return only the fused state of this token of each sequence.

        Returns:
            z in the shape and dtype of `last`, or (B, E) with `token`.

        Raises:
            ValueError, TypeError, RuntimeError: see `fused_aif`.
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
        """Return the gate m in (0, 1), zero at padding. For analysis; always computed by the eager path.

        Args:
            last, lower, mask, cu_seqlens, token: see `forward`.

        Returns:
            m in the shape and dtype of `last`, or (B, E) with `token`.

        Raises:
            ValueError, TypeError: see `forward`.
        """
        weights = self.weights
        check_inputs(last, lower, weights, mask, cu_seqlens, token, self.fuse, self.activation)
        terms = aif_terms(last, lower, weights, mask, cu_seqlens, token, self.fuse, self.activation)
        return terms.shaped(torch.sigmoid(terms.logits))

    def extra_repr(self) -> str:
        """Return the settings, for printing."""
        return f"{super().extra_repr()}, fuse={self.fuse!r}, backend={self.backend!r}"
