"""The control for AIF's gate: the same branches and parameters, but added instead of multiplied."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlfa_kernels.branches import AIFBranches
from dlfa_kernels.checks import check_inputs
from dlfa_kernels.reference import aif_terms


class ResidualBranches(AIFBranches):
    """z_bt = w_bt + g_b + l_bt at real tokens, 0 at padding, with w = x + y and AIF's branches g and l.

    The names, shapes and number of the parameters are those of `FusedAIF`. Unlike a gate, an added output is unbounded,
    so both expand layers are initialised to zero; only they get gradients in the first step.

    Args:
        embed_dim: E, the number of channels of the hidden states.
        reduction, squeeze_dim, kernel_size, activation, device, dtype: see `FusedAIF`.

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
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            embed_dim, reduction=reduction, squeeze_dim=squeeze_dim, kernel_size=kernel_size, activation=activation,
            device=device, dtype=dtype,
        )  # fmt: skip
        self._start_at_the_sum()

    def reset_parameters(self) -> None:
        """Initialise the squeeze layers as in AIF and the expand layers with zeros."""
        super().reset_parameters()
        self._start_at_the_sum()

    def _start_at_the_sum(self) -> None:
        for expand in (self.local_expand, self.global_expand):
            nn.init.zeros_(expand.weight)
            nn.init.zeros_(expand.bias)  # type: ignore[arg-type]

    def forward(
        self, last: Tensor, lower: Tensor | None = None, mask: Tensor | None = None, *, token: int | None = None
    ) -> Tensor:
        """Add `lower` and the two branches to `last`, in plain torch.

        Args:
            last: x, (B, T, E); float32, bfloat16, float16 or float64. Accumulation is in float64 for float64 states,
                else in float32, under autocast too.
            lower: y, same shape and dtype as `last`; or None.
            mask: (B, T), bool or integer 0/1, true at real tokens.
            token: return only this token of each sequence.

        Returns:
            z in the shape and dtype of `last`, or (B, E) with `token`; zeros for a sequence without a real token.

        Raises:
            ValueError, TypeError: see `FusedAIF.forward`.
        """
        weights = self.weights
        check_inputs(last, lower, weights, mask, None, token, "gate", self.activation)
        # "gate": of the terms only w and the logits are used, which are alike in both modes
        terms = aif_terms(last, lower, weights, mask, None, token, "gate", self.activation)
        return terms.shaped(terms.w + terms.logits)
