"""The configuration of a sweep, its cells, and the configuration of each cell's run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlfa_kernels.checks import FUSE_MODES

from ..models.config_files import load_config
from ..models.configuration import DLFAConfig
from ..models.fusion_names import FUSIONS, OF_ONE_LAYER, WITHOUT_LAYER
from ..models.pretrained import no_encoder
from ..runs.run_config import RunConfig

MODES = (*(fusion for fusion in FUSIONS if fusion != "aif"), *(f"aif:{fuse}" for fuse in FUSE_MODES))

Layers = int | tuple[int, ...]  # fused with the last layer: one lower layer, or several in turn


@dataclass(frozen=True)
class Cell:
    """One run of a sweep; `fusion_layer` is None for modes that use no lower layer, or all of them."""

    mode: str
    fusion_layer: Layers | None
    seed: int

    @property
    def name(self) -> str:
        """Return the name of the run's directory."""
        layer = "" if self.fusion_layer is None else f"-layer{'-'.join(map(str, _each(self.fusion_layer)))}"
        return f"{self.mode.replace(':', '-')}{layer}-seed{self.seed}"

    @property
    def model_options(self) -> dict[str, Any]:
        """Return the model options that differ between cells, as plain JSON values."""
        fusion, _, fuse = self.mode.partition(":")
        return {"fusion": fusion, "fusion_layer": _plain(self.fusion_layer)} | ({"fuse": fuse} if fuse else {})


def _plain(layers: Layers | None) -> int | list[int] | None:
    """Return the layers as a plain JSON value."""
    return list(layers) if isinstance(layers, tuple) else layers


def _each(layers: Layers) -> tuple[int, ...]:
    return layers if isinstance(layers, tuple) else (layers,)


@dataclass(frozen=True)
class SweepConfig:
    """The configuration of a sweep.

    Args:
        base: options of every run, except for the seed, output directory and fusion, which are replaced.
        output_dir: directory of the sweep.
        fusion_layers: lower layers, indexed like `hidden_states`; a tuple fuses several in one run. None uses each
            layer alone.
        seeds: seeds for each combination.
        modes: from `MODES`. "last" and "scalar_mix" (a mix of all layers) run once per seed; "lower" runs with single
            layers only.

    Raises:
        ValueError: an unknown mode, a duplicate, or nothing to run.
    """

    base: RunConfig
    output_dir: Path
    fusion_layers: tuple[Layers, ...] | None
    seeds: tuple[int, ...] = (1,)
    modes: tuple[str, ...] = ("last", "aif:gate")

    def __post_init__(self) -> None:
        for mode in self.modes:
            if mode not in MODES:
                raise ValueError(f"modes must be of {', '.join(MODES)}, got {mode!r}")
        for name in ("fusion_layers", "seeds", "modes"):
            values = getattr(self, name)
            if values is not None and (not values or len(set(values)) < len(values)):
                raise ValueError(f"{name} must name at least one, and none twice, got {','.join(map(str, values))}")

    def resolved(self) -> SweepConfig:
        """Return the same sweep with all layers as 0..L-1, after checking every run's options against the encoder.

        Raises:
            ValueError: the encoder does not exist or lacks a layer, a layer is repeated, a mode has none that it can
                take, or an option is out of range.
        """
        try:
            encoder = load_config(self.base.model)
        except (OSError, ValueError) as error:
            raise no_encoder(self.base.model, error) from error
        depth = DLFAConfig(encoder_config=encoder).num_hidden_layers

        def counted(layer: int) -> int:
            """Convert a negative index; layers that do not exist raise an error below."""
            return layer + depth + 1 if -depth - 1 <= layer < 0 else layer

        named: tuple[Layers, ...] = tuple(range(depth)) if self.fusion_layers is None else self.fusion_layers
        layers = tuple(tuple(map(counted, item)) if isinstance(item, tuple) else counted(item) for item in named)
        resolved = dataclasses.replace(self, fusion_layers=layers)
        for mode in self.modes:
            if not resolved._layers_of(mode):
                raise ValueError(f"fusion_layers must hold a single layer for mode {mode}, got only several at a time")
        for cell in resolved.cells():
            DLFAConfig(encoder_config=encoder, **self.run_config(cell).model_options)
        return resolved

    def cells(self) -> list[Cell]:
        """Return all runs, seed by seed, so that an interrupted sweep covers every combination early."""
        return [
            Cell(mode, layers, seed) for seed in self.seeds for mode in self.modes for layers in self._layers_of(mode)
        ]

    def _layers_of(self, mode: str) -> tuple[Layers | None, ...]:
        if mode in WITHOUT_LAYER:
            return (None,)
        layers = self.fusion_layers or ()
        return tuple(item for item in layers if mode not in OF_ONE_LAYER or isinstance(item, int))

    def run_config(self, cell: Cell) -> RunConfig:
        """Return the configuration of a cell's run."""
        return dataclasses.replace(
            self.base,
            output_dir=self.output_dir / "cells" / cell.name,
            seed=cell.seed,
            model_options={**self.base.model_options, **cell.model_options},
        )

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as plain JSON values, without the output directory."""
        shared = {name: value for name, value in self.base.with_presets().to_json().items() if name != "seed"}
        layers = None if self.fusion_layers is None else [_plain(item) for item in self.fusion_layers]
        return {**shared, "fusion_layers": layers, "seeds": list(self.seeds), "modes": list(self.modes)}
