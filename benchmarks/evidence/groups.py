"""The elements of a plan: groups, one a question, their variants, and the names of runs.

A run's name is GROUP/VARIANT/seedN, such as pos-frozen/aif-select-6-4-h16/seed1: VARIANT is the mode, the lower layers
and each option that differs from the group's.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlfa.commands.options import split_list
from dlfa.models.configuration import DLFAConfig
from dlfa.models.fusion_names import FUSIONS, WITHOUT_LAYER
from dlfa.runs.run_config import RunConfig
from dlfa.tasks import get_task
from dlfa_kernels.checks import FUSE_MODES

Layers = int | tuple[int, ...] | None

REGIMES: dict[str, dict[str, Any]] = {
    "full": {},
    "frozen": {"freeze_encoder": True},
    "few-shot 100": {"max_train_examples": 100},
    "few-shot 500": {"max_train_examples": 500},
}
MODES = (*(fusion for fusion in FUSIONS if fusion != "aif"), *(f"aif {fuse}" for fuse in FUSE_MODES))
# Short names of options in the names of runs; other options keep their own.
_SHORT = {
    "squeeze_dim": "h", "reduction": "r", "kernel_size": "k", "gate_bias": "bias", "learning_rate": "lr",
    "head_learning_rate": "headlr", "weight_decay": "wd", "max_train_examples": "train",
    "classifier_pooling": "pool",
}  # fmt: skip
_RUN_FIELDS = {item.name for item in dataclasses.fields(RunConfig)}
# Model options that belong to the protocol, not to the fusion.
PROTOCOL_OPTIONS = ("label_subword", "classifier_pooling")
_GIVEN_ELSEWHERE = {"task", "model", "output_dir", "data_dir", "model_options", "seed", "states_cache"}
_OPTIONS = {
    *(_RUN_FIELDS - _GIVEN_ELSEWHERE),
    *({item.name for item in dataclasses.fields(DLFAConfig)} - {"fusion", "fusion_layer", "fuse", "encoder_config"}),
}
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*")


@dataclass(frozen=True)
class Variant:
    """Ways to fuse that differ only in their lower layers; see `variant`."""

    mode: str
    layers: tuple[Layers, ...]
    seeds: tuple[int, ...] | None
    options: Mapping[str, Any]


def variant(mode: str, *layers: Layers, seeds: Iterable[int] | None = None, **options: Any) -> Variant:
    """Return the runs of one mode, for each of `layers` and each seed.

    Args:
        mode: one of `MODES`.
        layers: each a lower layer, or a tuple of those that are fused together; none for "last", and for a scalar mix
            of all layers.
        seeds: None means the group's.
        options: options of the model and of RunConfig, instead of the group's.

    Raises:
        ValueError: an unknown mode or option, or layers that are missing or not allowed.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if mode == "last" and layers:
        raise ValueError(f"mode 'last' takes no layers, got {layers}")
    if not layers and mode not in WITHOUT_LAYER:
        raise ValueError(f"mode {mode!r} needs at least one layer")
    _check_options(f"variant {mode}", options)
    return Variant(mode, layers or (None,), None if seeds is None else tuple(seeds), options)


@dataclass(frozen=True)
class Ensemble:
    """Several runs of a group that predict together.

    Args:
        name: NAME in the ensemble's full name, GROUP/ensemble-NAME.
        members: names of runs without their group, such as "last/seed1"; at least two.
    """

    name: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class Group:
    """Runs that answer one question together.

    Args:
        name: first part of the runs' names.
        question: one line.
        task: a task of `dlfa.tasks`; its data are in the folder of that name.
        regime: one of `REGIMES`.
        variants: results of `variant`.
        seeds: the seeds of each variant without its own.
        options: options of the model and of RunConfig for all runs; `languages` may be "de,zh"; `intermediate` names
            tasks.
        headline: the group's name in README's table; None excludes it there.
        include: patterns of names of other groups' runs that are also in this group's tables.
        metric: the metric of comparisons; None means the task's metric of record.
        keep_models: write the trained models, which ensembles and analyses need.
        ensembles: ensembles of this group's runs, whose models it must keep.

    Raises:
        ValueError: an unknown task, regime or option, a duplicate name or one that no folder can have, or an ensemble
            of runs that do not exist or keep no models.
    """

    name: str
    question: str
    task: str
    regime: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...] = (1,)
    options: Mapping[str, Any] = field(default_factory=dict)
    headline: str | None = None
    include: tuple[str, ...] = ()
    metric: str | None = None
    keep_models: bool = False
    ensembles: tuple[Ensemble, ...] = ()

    def __post_init__(self) -> None:
        if not _SAFE.fullmatch(self.name):
            raise ValueError(f"a group's name must be letters, digits and + . _ -, got {self.name!r}")
        get_task(self.task)
        if self.regime not in REGIMES:
            raise ValueError(f"group {self.name}: regime must be one of {', '.join(REGIMES)}, got {self.regime!r}")
        _check_options(f"group {self.name}", self.options)
        names = [run.name for run in self.runs()]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"group {self.name} has runs of one name: {', '.join(twice)}")
        for ensemble in self.planned_ensembles():
            unknown = [name for name in ensemble.members if name not in names]
            if unknown or len(ensemble.members) < 2 or not _SAFE.fullmatch(ensemble.ensemble.name):
                raise ValueError(
                    f"{ensemble.name} must have a name of letters and digits and at least two runs of its group as "
                    f"members, got {', '.join(unknown or ensemble.members) or 'none'}"
                )
            if not self.keep_models:
                raise ValueError(f"{ensemble.name} needs keep_models in its group")

    @property
    def all_options(self) -> dict[str, Any]:
        """The options of the regime and the group."""
        return {**REGIMES[self.regime], **self.options}

    @property
    def varied(self) -> set[str]:
        """The fields of RunConfig and the options of the head's input in which variants differ from the group."""
        names = {name for run in self.runs() for name in run.changed}
        return {name for name in names if name in _RUN_FIELDS or name in PROTOCOL_OPTIONS}

    def runs(self) -> list[PlannedRun]:
        """All runs, seed by seed, so that an unfinished group has some runs of every variant."""
        seeds = dict.fromkeys(seed for each in self.variants for seed in each.seeds or self.seeds)
        return [
            PlannedRun(self, each, layers, seed)
            for seed in seeds
            for each in self.variants
            if seed in (each.seeds or self.seeds)
            for layers in each.layers
        ]

    def planned_ensembles(self) -> list[PlannedEnsemble]:
        """All ensembles."""
        return [PlannedEnsemble(self, each) for each in self.ensembles]


@dataclass(frozen=True)
class Places:
    """Locations on this machine: encoder, data (a folder a task), runs, and cached hidden states."""

    model: str
    data: Path
    output_dir: Path
    states_cache: Path | None = None


NOWHERE = Places("unset", Path("unset"), Path("unset"))  # for uses that do not depend on places


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan."""

    group: Group
    variant: Variant
    layers: Layers
    seed: int

    @property
    def changed(self) -> dict[str, Any]:
        """The options that differ from the group's."""
        common = self.group.all_options
        return {
            name: value
            for name, value in self.variant.options.items()
            if name not in common or common[name] != value
        }  # fmt: skip

    @property
    def name(self) -> str:
        """GROUP/VARIANT/seedN.

        Raises:
            ValueError: an option's value cannot be part of a folder's name.
        """
        parts = [self.variant.mode.replace(" ", "-")]
        if self.layers is not None:
            parts += map(str, self.layers if isinstance(self.layers, tuple) else (self.layers,))
        parts += [_slug(name, value) for name, value in self.changed.items()]
        label = "-".join(parts)
        if not _SAFE.fullmatch(label):
            raise ValueError(f"no folder can be named {label!r} for a variant of group {self.group.name}")
        return f"{self.group.name}/{label}/seed{self.seed}"

    @property
    def identity(self) -> dict[str, Any]:
        """The run's identity in its record."""
        return {"name": self.name, "group": self.group.name, "regime": self.group.regime, "changed": self.changed}

    def config(self, places: Places) -> RunConfig:
        """Return the configuration of the run.

        Raises:
            ValueError: an option out of its range.
        """
        options = {**self.group.all_options, **self.variant.options}
        fields = {name: value for name, value in options.items() if name in _RUN_FIELDS}
        if isinstance(fields.get("languages"), str):
            fields["languages"] = split_list("languages", fields["languages"])
        fields["intermediate"] = tuple(f"{task}:{places.data / task}" for task in fields.get("intermediate", ()))
        fusion, _, fuse = self.variant.mode.partition(" ")
        model_options = {name: value for name, value in options.items() if name not in _RUN_FIELDS}
        model_options["fusion"] = fusion
        model_options["fusion_layer"] = list(self.layers) if isinstance(self.layers, tuple) else self.layers
        if fuse:
            model_options["fuse"] = fuse
        return RunConfig(
            task=self.group.task,
            model=places.model,
            output_dir=places.output_dir / self.name,
            data_dir=places.data / self.group.task,
            states_cache=places.states_cache,
            model_options=model_options,
            seed=self.seed,
            **fields,
        )


@dataclass(frozen=True)
class PlannedEnsemble:
    """One ensemble of a plan."""

    group: Group
    ensemble: Ensemble

    @property
    def name(self) -> str:
        """GROUP/ensemble-NAME."""
        return f"{self.group.name}/ensemble-{self.ensemble.name}"

    @property
    def members(self) -> tuple[str, ...]:
        """The runs' names."""
        return tuple(f"{self.group.name}/{member}" for member in self.ensemble.members)

    @property
    def identity(self) -> dict[str, Any]:
        """The ensemble's identity in its record."""
        changed = {"members": list(self.members)}
        return {"name": self.name, "group": self.group.name, "regime": self.group.regime, "changed": changed}


def planned_runs(
    plan: Sequence[Group], patterns: Sequence[str] = ("*",)
) -> tuple[list[PlannedRun], list[PlannedEnsemble]]:
    """Return the runs and ensembles whose names match any of the patterns, in the order of the plan.

    Raises:
        ValueError: two groups with one name, or a pattern that no run matches.
    """
    names = [group.name for group in plan]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"the plan has two groups of one name: {', '.join(twice)}")
    runs = [run for group in plan for run in group.runs()]
    ensembles = [ensemble for group in plan for ensemble in group.planned_ensembles()]
    every = {run.name for run in runs} | {ensemble.name for ensemble in ensembles}
    wanted: set[str] = set()
    for pattern in patterns:
        found = set(fnmatch.filter(every, pattern))
        if not found:
            raise ValueError(f"no run's name matches {pattern!r}; groups are {', '.join(names)}")
        wanted |= found
    return [each for each in runs if each.name in wanted], [each for each in ensembles if each.name in wanted]


def _check_options(what: str, options: Mapping[str, Any]) -> None:
    if unknown := sorted(set(options) - _OPTIONS):
        raise ValueError(f"{what}: unknown option {', '.join(unknown)}; valid are {', '.join(sorted(_OPTIONS))}")


def _slug(name: str, value: Any) -> str:
    """Return an option as a part of a name."""
    short = _SHORT.get(name, name)
    if isinstance(value, bool):
        return short if value else f"no-{short}"
    if isinstance(value, int | float):
        return f"{short}{value:g}"
    if isinstance(value, str):
        return f"{short}-{value.replace(',', '+')}"
    if isinstance(value, Sequence):
        return f"{short}-{'+'.join(map(str, value)) or 'none'}"
    return f"{short}-{'none' if value is None else value}"
