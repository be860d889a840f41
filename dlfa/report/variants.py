"""Variants that a report compares: a fusion, its layer or layers, and its options."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..models.fusion_names import FUSIONS, READERS

# Options that do not affect how a fusion works, or that a variant has as its own attributes.
_UNUSED = {"label_subword", "classifier_pooling", "classifier_dropout", "aif_backend", "fusion", "fusion_layer", "fuse"}


@dataclass(frozen=True)
class Variant:
    """A fusion and its settings.

    Attributes:
        fusion: "last", "lower", "sum", "scalar_mix", "residual" or "aif".
        layers: the lower layers, in order; empty for the last layer alone and for a scalar mix of all layers.
        fuse: AIF's "gate" or "select", else None.
        options: further options with non-default values, as JSON by name.
        compared: the configuration fields that runs are compared by, as JSON by name.
    """

    fusion: str
    layers: tuple[int, ...] = ()
    fuse: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    compared: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(
        cls,
        fusion: str,
        layers: Sequence[int] = (),
        fuse: str | None = None,
        options: Mapping[str, Any] | None = None,
        compared: Mapping[str, Any] | None = None,
    ) -> Variant:
        """Create a variant from a run's results; options at their default or unused by the fusion are dropped."""
        used = {name: value for name, value in (options or {}).items() if _has_option(fusion, name)}
        defaults = _defaults() if used else {}
        changed = {name: value for name, value in used.items() if name not in defaults or defaults[name] != value}
        return cls(
            fusion,
            () if fusion == "last" else tuple(layers),
            (fuse or "gate") if fusion == "aif" else None,
            _frozen(changed),
            _frozen(compared or {}),
        )

    @property
    def mode(self) -> str:
        """Return a description of everything except the layer."""
        name = f"{self.fusion} {self.fuse}" if self.fuse else self.fusion
        return ", ".join([name, *self._details()])

    @property
    def label(self) -> str:
        """Return a description such as "aif gate 6, kernel_size 3", distinct for distinct variants."""
        name = f"{self.fusion} {self.fuse}" if self.fuse else self.fusion
        if self.layers:
            name += " " + "+".join(map(str, self.layers))
        return ", ".join([name, *self._details()])

    @property
    def sort_key(self) -> tuple[Any, ...]:
        """Return a sorting key: baselines first, then by mode and layer."""
        known = FUSIONS.index(self.fusion) if self.fusion in FUSIONS else len(FUSIONS)
        return known, self.fuse or "", len(self.options), self.options, self.compared, self.layers

    def with_fusion_last(self) -> Variant:
        """Return the last-layer baseline with the same compared settings."""
        return Variant("last", compared=self.compared)

    def _details(self) -> list[str]:
        return [f"{name} {value.strip(chr(34))}" for name, value in (*self.options, *self.compared)]


def _has_option(fusion: str, name: str) -> bool:
    """Return whether a fusion uses a model's option."""
    return name not in _UNUSED and fusion in READERS.get(name, FUSIONS)


def _frozen(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((name, json.dumps(values[name], ensure_ascii=False)) for name in sorted(values))


@functools.cache
def _defaults() -> dict[str, Any]:
    """Return the default of every option of a model."""
    from ..models.configuration import DLFAConfig

    return {item.name: item.default for item in dataclasses.fields(DLFAConfig)}
