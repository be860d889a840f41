"""AIF as a module that drops into any model."""

from __future__ import annotations

import torch
from torch import Tensor

from .backends import BACKENDS
from .branches import AIFBranches
from .checks import FUSE_MODES, check_inputs, check_one_of
from .functional import fused_aif
from .reference import aif_terms


class FusedAIF(AIFBranches):
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
            lower: y, of the shape and dtype of `last`; or None.
            mask: (B, T), bool or integer 0/1, true at real tokens.
            cu_seqlens: (B+1,) int32, sequence starts of the packed form, 0 first, N last. Checked on the CPU; on a GPU
                only under DLFA_VALIDATE=1. If it ends before N there, see `fused_aif`.
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
        weights = self.weights
        check_inputs(last, lower, weights, mask, cu_seqlens, token, self.fuse, self.activation)
        terms = aif_terms(last, lower, weights, mask, cu_seqlens, token, self.fuse, self.activation)
        return terms.shaped(torch.sigmoid(terms.logits))

    def extra_repr(self) -> str:
        """The settings, for printing."""
        return f"{super().extra_repr()}, fuse={self.fuse!r}, backend={self.backend!r}"
