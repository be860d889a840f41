"""Inputs that runs of one process share, read once for all of them."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Mapping, Sequence
from typing import Any

from dlfa.models.configuration import DLFAConfig
from dlfa.runs.run_config import RunConfig
from dlfa.training.shared_inputs import SharedInputs, compute_states, load_data, load_shared_inputs

# The fields of a run's configuration that must be equal in runs with shared inputs (`dlfa.training.train.prepare`).
_SHARED = (
    "task", "model", "data_dir", "languages", "max_length", "max_train_examples", "max_eval_examples",
    "eval_batch_size", "bf16", "fp16", "freeze_encoder", "states_dtype", "states_cache",
)  # fmt: skip
_KEPT = 2  # the most sets of inputs kept; with a frozen encoder, a set holds that encoder


class SharedInputsCache:
    """Data, tokenizer and frozen encoder, read once for all runs that share them.

    Args:
        configs: all runs to make; a frozen encoder's states are computed in one pass for all of them.
    """

    def __init__(self, configs: Sequence[RunConfig]) -> None:
        self._options: dict[tuple[Any, ...], list[Any]] = {}
        for config in configs:
            self._options.setdefault(_key(config), []).append(config.model_options)
        self._loaded: dict[tuple[Any, ...], SharedInputs] = {}

    def of(self, config: RunConfig) -> SharedInputs:
        """Return the inputs that `config` shares with others.

        Raises:
            ValueError: data, tokenizer or encoder are invalid.
        """
        key = _key(config)
        if key not in self._loaded:
            while len(self._loaded) >= _KEPT:
                del self._loaded[next(iter(self._loaded))]
            gc.collect()
            resolved = config.with_presets()
            shared = load_shared_inputs(resolved, load_data(resolved))
            if shared.encoder is not None:
                compute_states(shared, _fitting(self._options[key], shared.encoder.config.encoder_config))
            self._loaded[key] = shared
        return self._loaded[key]


def _fitting(several: Sequence[Mapping[str, Any]], encoder_config: Any) -> list[Mapping[str, Any]]:
    """Return the model options that fit the frozen encoder; a run with others fails on its own."""
    fitting = []
    for options in several:
        with contextlib.suppress(ValueError, TypeError):
            DLFAConfig(encoder_config=encoder_config, **options)
            fitting.append(options)
    return fitting


def _key(config: RunConfig) -> tuple[Any, ...]:
    resolved = config.with_presets()
    label = config.model_options.get("label_subword", "first")
    return (label, *(getattr(resolved, name) for name in _SHARED))
