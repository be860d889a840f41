"""Layers for Hugging Face's `kernels`, whose `kernelize` replaces a module's forward by theirs.

It takes only `forward` and binds it to the original module, so a layer has no state, no constructor and no other
members than the two flags.
"""

from __future__ import annotations

from torch import Tensor, nn

from .branches import weights_of
from .functional import fused_aif


class FusedAIF(nn.Module):
    """The forward of `dlfa_kernels.FusedAIF` for any module with the same layers and settings.

    The module must have `local_squeeze` and `local_expand` (Conv1d), `global_squeeze` and `global_expand` (Linear), all
    with bias, and the strings `fuse` and `activation`. The backend is "auto".
    """

    has_backward = True
    can_torch_compile = True

    local_squeeze: nn.Conv1d
    local_expand: nn.Conv1d
    global_squeeze: nn.Linear
    global_expand: nn.Linear
    fuse: str
    activation: str

    def forward(
        self,
        last: Tensor,
        lower: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        cu_seqlens: Tensor | None = None,
        token: int | None = None,
    ) -> Tensor:
        """Fuse `last` (B, T, E) with `lower`; see `dlfa_kernels.FusedAIF.forward` for arguments, result and errors."""
        return fused_aif(
            last, lower, *weights_of(self), mask,
            cu_seqlens=cu_seqlens, token=token, fuse=self.fuse, activation=self.activation,
        )  # fmt: skip
