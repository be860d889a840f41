"""Each layer's contribution to a fusion's output, which is a sum of layers times coefficients.

AIF's control also adds its branches, which are treated as one more layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from dlfa_kernels import FusedAIF

from ..models.fusion import AIFSequence, Fusion, LastLayer, LayerSum, LowerLayer, ResidualSequence, ScalarMix

LAST = "last"
BRANCHES = "branches"


@dataclass(frozen=True)
class FusionParts:
    """A fusion's output as a sum of coefficients times states.

    Attributes:
        coefficients: by layer ("last", the lower layer's number, "branches"), broadcastable to (B, T, E): m, 1, ...
        states: by layer, (B, T, E); each is multiplied by its coefficient.
        gates: AIF's gates (B, T, E), one per lower input in the order of fusion.
    """

    coefficients: dict[str, Tensor]
    states: dict[str, Tensor]
    gates: tuple[Tensor, ...] = ()

    def parts(self) -> dict[str, Tensor]:
        """Return the products by layer, (B, T, E); they sum to the output at every real token."""
        return {name: (self.coefficients[name] * state.float()) for name, state in self.states.items()}


def fusion_parts(
    fusion: Fusion, last: Tensor, lowers: Sequence[Tensor], names: Sequence[str], mask: Tensor | None = None
) -> FusionParts:
    """Decompose a fusion's output.

    Args:
        fusion: the fusion of a model in evaluation mode.
        last: (B, T, E), the last layer.
        lowers: the lower inputs in the order of fusion, (B, T, E) each.
        names: names of the lower inputs.
        mask: (B, T), true at real tokens.

    Raises:
        TypeError: a fusion of which it is not known how it is a sum.
    """
    one = last.new_ones(1, dtype=last.dtype).float()
    states = {LAST: last, **dict(zip(names, lowers, strict=True))}
    if isinstance(fusion, AIFSequence):
        return _aif_parts(fusion, states, mask)
    if isinstance(fusion, ScalarMix):
        if fusion.layer_norm:
            states = {name: F.layer_norm(state.float(), state.shape[-1:]) for name, state in states.items()}
        shares = fusion.gamma.float() * fusion.weights()
        return FusionParts(dict(zip((*names, LAST), shares, strict=True)), states)
    if isinstance(fusion, LowerLayer):
        return FusionParts({names[0]: one}, {names[0]: lowers[0]})
    if isinstance(fusion, ResidualSequence):
        # The branches' sum over all steps is the output minus the layers.
        states[BRANCHES] = fusion(last, lowers, mask).float() - sum(state.float() for state in states.values())
    if isinstance(fusion, (LayerSum, ResidualSequence)):
        return FusionParts(dict.fromkeys(states, one), states)
    if isinstance(fusion, LastLayer):
        return FusionParts({LAST: one}, {LAST: last})
    raise TypeError(f"fusion must be of a known kind, got a {type(fusion).__name__}")


def _aif_parts(fusion: AIFSequence, states: dict[str, Tensor], mask: Tensor | None) -> FusionParts:
    """Decompose step by step: m multiplies everything fused before, and m or 1 - m the step's own lower input."""
    names = [name for name in states if name != LAST]
    gates = tuple(gate.float() for gate in fusion.gates(states[LAST], [states[name] for name in names], mask))
    coefficients: dict[str, Tensor] = {}
    for aif, gate, name in zip(fusion.aif, gates, names, strict=True):
        assert isinstance(aif, FusedAIF)
        coefficients = {earlier: value * gate for earlier, value in coefficients.items()} or {LAST: gate}
        coefficients[name] = gate if aif.fuse == "gate" else 1 - gate
    return FusionParts(coefficients, states, gates)
