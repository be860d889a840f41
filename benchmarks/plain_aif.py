"""AIF in plain torch: the baseline, run eagerly and under torch.compile."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlfa_kernels import FusedAIF


class PlainAIF(nn.Module):
    """AIF of torch operations in the dtype of its input, with the parameters of a `FusedAIF` (shared, not copied).

    It rounds where bfloat16 code rounds. A convolution of width 1 is a matrix product, which is faster. Unlike
    `FusedAIF` it requires finite numbers at padding. Equations: `dlfa_kernels.aif_reference`.

    Args:
        aif: the module with the parameters and settings; relu only.

    Raises:
        ValueError: another activation.
    """

    def __init__(self, aif: FusedAIF) -> None:
        super().__init__()
        if aif.activation != "relu":
            raise ValueError(f"activation must be 'relu', got {aif.activation!r}")
        self.aif = aif

    def forward(self, last: Tensor, lower: Tensor, mask: Tensor, token: int | None = None) -> Tensor:
        """Return z (B, T, E), or (B, E) with `token`; the other rows are then pooled but not gated.

        Args:
            last: x, (B, T, E).
            lower: y, of the shape and dtype of `last`.
            mask: (B, T), bool or integer 0/1, true at real tokens.
            token: return only this token of each sequence.
        """
        aif = self.aif
        real = mask.unsqueeze(-1).to(last.dtype)
        x, y, w = last, lower, (last + lower) * real
        pooled = w.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        context = aif.global_expand(F.relu(aif.global_squeeze(pooled))).unsqueeze(1)
        if token is not None:
            w, x, y, real = (self._window(states, token) for states in (w, x, y, real))
        squeezed = F.relu(self._squeeze(w))
        local = F.linear(squeezed, aif.local_expand.weight[:, :, 0], aif.local_expand.bias)
        if token is not None:
            middle = slice(token - self._start(token), token - self._start(token) + 1)
            w, x, y, real, local = (states[:, middle] for states in (w, x, y, real, local))
        gate = torch.sigmoid(context + local)
        z = gate * w if aif.fuse == "gate" else (gate * x + (1 - gate) * y) * real
        return z if token is None else z[:, 0]

    def _squeeze(self, w: Tensor) -> Tensor:
        layer = self.aif.local_squeeze
        if self.aif.kernel_size == 1:
            return F.linear(w, layer.weight[:, :, 0], layer.bias)
        half = self.aif.kernel_size // 2
        return F.conv1d(w.transpose(1, 2), layer.weight, layer.bias, padding=half).transpose(1, 2)

    def _start(self, token: int) -> int:
        return max(0, token - self.aif.kernel_size // 2)

    def _window(self, states: Tensor, token: int) -> Tensor:
        """Return the tokens that the local branch reads around `token`."""
        return states[:, self._start(token) : token + self.aif.kernel_size // 2 + 1]
