"""The definition of AIF (attention information fusion) in plain differentiable torch.

Every other implementation in this package is tested against `aif_reference`; README repeats its equations. AIF applies
SENet's squeeze and expand, with a global and a local branch as in MS-CAM (arXiv 2009.14082), to two layers of one
encoder (arXiv 2205.08497).

Padded, packed and `token=` input have one form here: rows of E channels. Each row belongs to a sequence and is real or
padding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .autocast import without_autocast
from .checks import check_inputs
from .parameters import AIFWeights

_BLOCK = 128  # packed rows that are added up one by one
_PHI: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}


class _PaddedRows:
    """The rows of padded states (B, T, E).

    Rounding errors grow with the number of values that are added up one by one: `sum`, also as the backward of
    `expand`, adds in pairs.
    """

    def __init__(self, last: Tensor) -> None:
        self.batch, self.length, _ = last.shape
        sequences = torch.arange(self.batch, device=last.device)
        self.start = sequences * self.length  # first row of each sequence, (B,)
        self.sequence = sequences.repeat_interleave(self.length)  # of each row, (rows,)

    def sum_by_sequence(self, values: Tensor) -> Tensor:
        """Map (rows, C) to (B, C)."""
        return values.reshape(self.batch, self.length, values.shape[1]).sum(1)

    def at_every_row(self, values: Tensor) -> Tensor:
        """Map (B, C) to (rows, C)."""
        return values[:, None].expand(-1, self.length, -1).reshape(self.batch * self.length, values.shape[1])


class _PackedRows:
    """The rows of packed states (N, E). They are added up in blocks first, for the reason given above."""

    def __init__(self, last: Tensor, cu_seqlens: Tensor) -> None:
        rows, device = last.shape[0], last.device
        position = torch.arange(rows, device=device)
        self.batch, self.start = cu_seqlens.shape[0] - 1, cu_seqlens[:-1].long()
        self.sequence = torch.searchsorted(cu_seqlens[1:].contiguous(), position, right=True)
        self.block = position // _BLOCK + self.sequence  # no block has rows of two sequences
        blocks = torch.zeros(rows // _BLOCK + self.batch, dtype=torch.long, device=device)
        self.block_sequence = blocks.scatter(0, self.block, self.sequence)

    def sum_by_sequence(self, values: Tensor) -> Tensor:
        """Map (rows, C) to (B, C)."""
        sums = values.new_zeros(self.block_sequence.shape[0], values.shape[1]).index_add(0, self.block, values)
        return values.new_zeros(self.batch, values.shape[1]).index_add(0, self.block_sequence, sums)

    def at_every_row(self, values: Tensor) -> Tensor:
        """Map (B, C) to (rows, C)."""
        return values.index_select(0, self.block_sequence).index_select(0, self.block)


class Terms(NamedTuple):
    """The tensors that z is computed from, at the requested rows: (rows, E) each, in the dtype of accumulation."""

    x: Tensor | None  # of "select" alone, as y
    y: Tensor | None
    w: Tensor
    logits: Tensor  # g + l
    wanted: Tensor  # (rows asked for,) bool; not where a row is padding or absent
    shape: torch.Size  # of z
    dtype: torch.dtype  # of z

    def shaped(self, values: Tensor) -> Tensor:
        """Return `values` (requested rows, E) in the shape and dtype of z, with 0 at rows that are not wanted."""
        # reshaped before and not after: FSDP2's hooks are lost on a view that is changed in place
        wanted = self.wanted.reshape(*self.shape[:-1], 1)
        return torch.where(wanted, values.reshape(self.shape), 0).to(self.dtype)


def aif_terms(
    last: Tensor,
    lower: Tensor | None,
    weights: AIFWeights,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    token: int | None,
    fuse: str,
    activation: str,
) -> Terms:
    """Compute AIF up to the gate; arguments as in `aif_reference`, already checked."""
    with without_autocast(last.device.type):
        dtype = torch.promote_types(last.dtype, torch.float32)
        device, embed_dim, phi = last.device, last.shape[-1], _PHI[activation]
        w_ls, b_ls, w_le, b_le, w_gs, b_gs, w_ge, b_ge = (weight.to(dtype) for weight in weights)

        rows = last.shape[0] if cu_seqlens is not None else last.shape[0] * last.shape[1]
        layout = _PaddedRows(last) if cu_seqlens is None else _PackedRows(last, cu_seqlens)
        position, sequence = torch.arange(rows, device=device), layout.sequence
        real = torch.ones(rows, dtype=torch.bool, device=device) if mask is None else mask.reshape(-1) != 0

        # w; padding may hold anything, NaN included, so it is replaced and never multiplied by zero
        def at_real(states: Tensor) -> Tensor:
            return torch.where(real[:, None], states, 0)

        x, y = last.to(dtype), None if lower is None else lower.to(dtype)
        if fuse == "select" and y is not None:
            x, y = at_real(x.reshape(rows, embed_dim)), at_real(y.reshape(rows, embed_dim))
            w = x + y
        else:
            # added before they take another shape, behind which dx and dy would share memory unnoticed by autograd
            w = at_real((x if y is None else x + y).reshape(rows, embed_dim))

        # p and g
        pooled = layout.sum_by_sequence(w) / layout.sum_by_sequence(real.to(dtype)[:, None]).clamp(min=1)
        g = F.linear(phi(F.linear(pooled, w_gs, b_gs)), w_ge, b_ge)

        # the rows asked for: all, or one a sequence
        chosen, owner, wanted, shape = position, sequence, real, last.shape
        if token is not None:
            owner = torch.arange(layout.batch, device=device)
            shape = torch.Size((layout.batch, embed_dim))
            # a row of no sequence stands for what is behind the last one: there may be no rows at all
            w, real, sequence = F.pad(w, (0, 0, 0, 1)), F.pad(real, (0, 1)), F.pad(sequence, (0, 1), value=-1)
            if fuse == "select" and y is not None:
                x, y = F.pad(x, (0, 0, 0, 1)), F.pad(y, (0, 0, 0, 1))
            chosen = (layout.start + token).clamp(max=rows)
            wanted = real[chosen] & (sequence[chosen] == owner)

        def take(values: Tensor, index: Tensor) -> Tensor:
            return values if index is position else values.index_select(0, index)

        # u and l; a tap outside the sequence sees zero
        half = (w_ls.shape[2] - 1) // 2
        if half == 0:
            squeezed = F.linear(take(w, chosen), w_ls[:, :, 0], b_ls)
        else:
            around, around_sequence = F.pad(w, (0, 0, half, half)), F.pad(sequence, (half, half), value=-1)
            squeezed = b_ls
            for tap in range(w_ls.shape[2]):
                if token is None:
                    seen, seen_sequence = around[tap : tap + rows], around_sequence[tap : tap + rows]
                else:
                    seen, seen_sequence = around.index_select(0, chosen + tap), around_sequence[chosen + tap]
                squeezed = squeezed + F.linear(torch.where((seen_sequence == owner)[:, None], seen, 0), w_ls[:, :, tap])
        local = F.linear(phi(squeezed), w_le[:, :, 0], b_le)
        if token is None:
            g = layout.at_every_row(g)

        return Terms(
            x=None if fuse == "gate" or y is None else take(x, chosen),
            y=None if fuse == "gate" or y is None else take(y, chosen),
            w=take(w, chosen),
            logits=g + local,
            wanted=wanted,
            shape=shape,
            dtype=last.dtype,
        )


def aif_output(
    last: Tensor,
    lower: Tensor | None,
    weights: AIFWeights,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    token: int | None,
    fuse: str,
    activation: str,
) -> Tensor:
    """Return z in the dtype of `last`: (B, T, E), packed (N, E), or (B, E) with `token`.

    Arguments as in `aif_reference`, already checked.
    """
    terms = aif_terms(last, lower, weights, mask, cu_seqlens, token, fuse, activation)
    x, y, w, m = terms.x, terms.y, terms.w, torch.sigmoid(terms.logits)
    return terms.shaped(m * w if x is None or y is None else m * x + (1 - m) * y)


def aif_reference(
    last: Tensor,
    lower: Tensor | None,
    local_squeeze_weight: Tensor,
    local_squeeze_bias: Tensor,
    local_expand_weight: Tensor,
    local_expand_bias: Tensor,
    global_squeeze_weight: Tensor,
    global_squeeze_bias: Tensor,
    global_expand_weight: Tensor,
    global_expand_bias: Tensor,
    mask: Tensor | None = None,
    *,
    cu_seqlens: Tensor | None = None,
    token: int | None = None,
    fuse: str = "gate",
    activation: str = "relu",
) -> Tensor:
    """Fuse two layers of an encoder: the definition of AIF in differentiable torch, on any device, in float64 too.

    Let w = x + y (w = x without y), V_b the real tokens of sequence b, and phi the activation:

        p_b  = mean of w_bt over t in V_b
        g_b  = W_ge phi(W_gs p_b + b_gs) + b_ge
        u_bt = phi(sum_j W_ls[:, :, j] w_b,t+j-(k-1)/2 + b_ls)      w is 0 at padding and outside the sequence
        l_bt = W_le u_bt + b_le
        m_bt = sigmoid(g_b + l_bt)
        z_bt = m_bt * w_bt                          fuse="gate"
        z_bt = m_bt * x_bt + (1 - m_bt) * y_bt      fuse="select"
        z_bt = 0 at padding; a sequence without a real token gives zeros

    Args:
        last: x, the last layer's states, (B, T, E), or (N, E) with `cu_seqlens`; float32, bfloat16, float16 or float64.
            Accumulation is in float64 for float64 states, else in float32.
        lower: y, a lower layer's states, same shape and dtype as `last`; or None.
        local_squeeze_weight: W_ls (H, E, k).
        local_squeeze_bias: b_ls (H,).
        local_expand_weight: W_le (E, H, 1).
        local_expand_bias: b_le (E,).
        global_squeeze_weight: W_gs (H, E).
        global_squeeze_bias: b_gs (H,).
        global_expand_weight: W_ge (E, H).
        global_expand_bias: b_ge (E,).
        mask: (B, T), bool or integer 0/1, true at real tokens; None means that all tokens are real.
        cu_seqlens: (B+1,) int32, the sequence starts of packed input; sequences may be empty.
        token: return only the fused state of this token of each sequence; zeros if it is padding or absent.
        fuse: "gate" or "select"; "select" needs `lower`.
        activation: "relu", "gelu" (erf) or "silu".

    Returns:
        z in the shape and dtype of `last`, or (B, E) with `token`.

    Raises:
        ValueError, TypeError: see `fused_aif`, which checks the same arguments.
    """
    weights = AIFWeights(
        local_squeeze_weight, local_squeeze_bias, local_expand_weight, local_expand_bias,
        global_squeeze_weight, global_squeeze_bias, global_expand_weight, global_expand_bias,
    )  # fmt: skip
    check_inputs(last, lower, weights, mask, cu_seqlens, token, fuse, activation)
    return aif_output(last, lower, weights, mask, cu_seqlens, token, fuse, activation)
