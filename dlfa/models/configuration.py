"""The configuration of a DLFA model: the encoder, the fused layers, the kind of fusion, and the labels."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

from dlfa_kernels.backends import BACKENDS
from dlfa_kernels.checks import (
    ACTIVATIONS,
    FUSE_MODES,
    check_finite,
    check_kernel_size,
    check_one_of,
    check_positive_int,
)

from ..files import atomic
from .fusion_names import FUSIONS, OF_ONE_LAYER, WITHOUT_LAYER

LABEL_SUBWORDS = ("first", "last", "mean")
CLASSIFIER_POOLINGS = ("first", "mean")
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")

_LOADER = "modeling_dlfa"
AUTO_CLASSES = {  # of transformers, by class of this package
    "DLFAConfig": "AutoConfig",
    "DLFAModel": "AutoModel",
    "DLFAForQuestionAnswering": "AutoModelForQuestionAnswering",
    "DLFAForSequenceClassification": "AutoModelForSequenceClassification",
    "DLFAForTokenClassification": "AutoModelForTokenClassification",
}
_LOADER_CODE = f"""# The code of this model is the package dlfa. After `import dlfa`, this file is not needed.
import dlfa

{"".join(f"{name} = dlfa.{name}{chr(10)}" for name in sorted(AUTO_CLASSES))}"""


@strict
class DLFAConfig(PreTrainedConfig):
    """Configuration of a DLFA model: an encoder, a fusion of its last layer with lower ones, and a task head.

    Layers are numbered as in transformers' `hidden_states`: 0 is the embeddings, i the output of block i. The last
    layer L is `last_hidden_state` (after the encoder's final norm, if any). It is always an input of the fusion, so a
    fusion layer is one of 0..L-1. Negative indices count from the end of `hidden_states`, which has L+1 entries: -2 is
    L-1, -(L+1) is 0, and -1 is the last layer, which is not allowed. They are stored as 0..L-1.

    Args:
        encoder_config: the encoder's configuration, or its dictionary; BERT's by default.
        fusion_layer: the lower layer or layers, an int or a list (or tuple) of int; None for the last layer alone, or
            with `fusion="scalar_mix"` for all layers.
        fusion: "last" (the baseline; `fusion_layer` is ignored and stored as None), "lower" (the lower layer alone),
            "sum" (last + lower layers), "scalar_mix" (gamma times the softmax-weighted sum of the last and the lower
            layers), "residual" (the sum plus AIF's two branches, without a gate: as many parameters as AIF), "aif"
            (attention information fusion). "aif" and "residual" fuse several lower layers in sequence, each with its
            own module. None means "aif" if there is a second input, else "last".
        fuse: AIF only: "gate" (z = m (x + y)) or "select" (z = m x + (1 - m) y).
        reduction: sets AIF's squeeze width to max(16, E // reduction), rounded up to a multiple of 16.
        squeeze_dim: AIF's squeeze width itself, instead of `reduction`.
        kernel_size: width of AIF's local branch in tokens; odd.
        activation: AIF's activation, "relu", "gelu" or "silu".
        gate_bias: AIF only: initial bias of the gate before the sigmoid.
        aif_backend: "auto", "triton" or "eager".
        layer_dropout: scalar mix only: the probability that a layer is left out of the mix during training.
        scalar_mix_layer_norm: scalar mix only: normalise every layer to mean 0 and variance 1 per token before mixing.
        feature_dim: E', the number of channels of an external second input (`external_features` of the models), which
            replaces the lower layer. It is projected to the encoder's width if the two differ. The external input is
            optional if a `fusion_layer` is given, else required.
        label_subword: token classification only: the sub-word that carries a word's label, "first" or "last", or
            "mean" to classify the mean of the word's sub-words. Stored here so that a saved model contains it.
        classifier_pooling: sequence classification only: classify the fused "first" token, or the "mean" of the fused
            states of the real tokens, for encoders that were trained this way and for decoders, whose first token sees
            no other.
        classifier_dropout: dropout before the task head; None uses the encoder's own.
        **kwargs: fields of PreTrainedConfig: `num_labels`, `id2label`, `label2id`, `problem_type`, ...

    Raises:
        ValueError: a value outside its set or range; the message names both.
        TypeError: an argument of an invalid type.
    """

    model_type = "dlfa"
    sub_configs = {"encoder_config": AutoConfig}  # noqa: RUF012 (a class attribute that transformers defines so)

    encoder_config: dict | PreTrainedConfig | None = None
    fusion_layer: int | list[int] | tuple[int, ...] | None = None
    fusion: str | None = None
    fuse: str = "gate"
    reduction: int = 4
    squeeze_dim: int | None = None
    kernel_size: int = 1
    activation: str = "relu"
    gate_bias: float | int = 0.0
    aif_backend: str = "auto"
    layer_dropout: float | int = 0.0
    scalar_mix_layer_norm: bool = False
    feature_dim: int | None = None
    label_subword: str = "first"
    classifier_pooling: str = "first"
    classifier_dropout: float | int | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        # `strict` sees to the base class's fields. Of these it would raise an error that is no ValueError or TypeError.
        if name in _FIELD_CHECKS:
            _FIELD_CHECKS[name](value)
        super().__setattr__(name, value)

    def __post_init__(self, **kwargs: Any) -> None:
        self.encoder_config = _as_config(self.encoder_config)
        self.check()
        # The setter in the base class writes its value, None included, into the encoder's configuration too.
        kwargs.setdefault("attn_implementation", self.encoder_config._attn_implementation)
        super().__post_init__(**kwargs)
        if not self.num_labels:
            raise ValueError(f"num_labels must be positive, got {self.num_labels}")
        if self.problem_type is not None:
            check_one_of("problem_type", self.problem_type, PROBLEM_TYPES)
        # Whoever holds a DLFAConfig may ask an Auto class for its model: the models register themselves on import.
        importlib.import_module("dlfa.models.modeling")

    def check(self) -> None:
        """Check the fields against each other and normalise `fusion` and `fusion_layer`.

        Runs when the configuration is made, and again when a model is built from it, since fields may have changed.

        Raises:
            ValueError: inconsistent fields, or a layer that the encoder does not have.
        """
        second_input = self.fusion_layer is not None or self.feature_dim is not None
        if self.fusion is None:
            self.fusion = "aif" if second_input else "last"
        if not second_input and self.fusion not in WITHOUT_LAYER:
            raise ValueError(
                f"fusion_layer must be given for fusion={self.fusion!r} (0..{self.num_hidden_layers - 1}, or a "
                "feature_dim for an external second input), got None; the plain last layer is fusion='last'"
            )
        if isinstance(self.fusion_layer, list | tuple):
            if not self.fusion_layer:
                raise ValueError(f"fusion_layer must name at least one layer, got {self.fusion_layer}")
            layers = [self._normalised(layer) for layer in self.fusion_layer]
            if len(set(layers)) < len(layers):
                raise ValueError(f"fusion_layer must not name a layer twice, got {self.fusion_layer}")
            self.fusion_layer = layers[0] if len(layers) == 1 else layers
        elif self.fusion_layer is not None:
            self.fusion_layer = self._normalised(self.fusion_layer)
        if self.fusion == "last":
            self.fusion_layer = None
            if self.feature_dim is not None:
                raise ValueError(
                    f"feature_dim must be None for fusion='last', which takes no second input, got {self.feature_dim}"
                )
        if self.fusion in OF_ONE_LAYER and isinstance(self.fusion_layer, list):
            raise ValueError(f"fusion_layer must be one layer for fusion={self.fusion!r}, got {self.fusion_layer}")
        if self.feature_dim is not None and isinstance(self.fusion_layer, list):
            raise ValueError(
                f"fusion_layer must be one layer or None where feature_dim is given, got {self.fusion_layer}"
            )

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> None:
        """Save as transformers does, and add a small loader file for users who do not import `dlfa` first.

        `auto_map` in `config.json` names that file, so `AutoModel*.from_pretrained(..., trust_remote_code=True)` finds
        the models if this package is installed, and names the missing package if it is not.
        """
        self.auto_map = {auto: f"{_LOADER}.{own}" for own, auto in AUTO_CLASSES.items()}
        atomic.write_text(Path(save_directory) / f"{_LOADER}.py", _LOADER_CODE)
        super().save_pretrained(os.fspath(save_directory), push_to_hub=push_to_hub, **kwargs)

    def _get_files_timestamps(self, working_dir: str | os.PathLike[str]) -> dict[str, float]:
        # transformers uploads what is newer than these, and takes them when the loader has just been written.
        stamps: dict[str, float] = super()._get_files_timestamps(working_dir)
        stamps.pop(f"{_LOADER}.py", None)
        return stamps

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Build the configuration from a dictionary, as in transformers.

        Raises:
            ValueError: the configuration is not of a DLFA model.
        """
        model_type = config_dict.get("model_type", cls.model_type)
        if model_type != cls.model_type:
            raise ValueError(
                f"a DLFA model's configuration has model_type {cls.model_type!r}, got {model_type!r}; "
                "from_encoder(ENCODER, fusion_layer=...) makes a DLFA model of a plain encoder"
            )
        return super().from_dict(config_dict, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoConfig") -> None:
        """Do nothing: a saved model refers to this package in its `auto_map` and contains no copy of the code."""

    def _normalised(self, layer: int) -> int:
        depth = self.num_hidden_layers
        index = layer + depth + 1 if layer < 0 else layer
        if not 0 <= index < depth:
            what = ", which is the last layer itself" if index == depth else ""
            raise ValueError(
                f"fusion_layer must be in 0..{depth - 1} (or -{depth + 1}..-2) for an encoder of {depth} layers, "
                f"got {layer}{what}"
            )
        return index

    @property
    def lower_layers(self) -> tuple[int, ...]:
        """The lower layers that the encoder must return, 0..L-1, in the order in which they are fused."""
        if self.fusion == "last":
            return ()
        if self.fusion_layer is None:
            return tuple(range(self.num_hidden_layers)) if self.feature_dim is None else ()
        return tuple(self.fusion_layer) if isinstance(self.fusion_layer, list | tuple) else (self.fusion_layer,)

    @property
    def num_lower_inputs(self) -> int:
        """The number of inputs that the fusion takes besides the last layer, including an external one."""
        return 0 if self.fusion == "last" else max(1, len(self.lower_layers))

    @property
    def hidden_size(self) -> int:
        """E, the number of channels of the encoder's hidden states."""
        return int(self.encoder_config.hidden_size)  # type: ignore[union-attr]

    @property
    def num_hidden_layers(self) -> int:
        """L, the number of the encoder's blocks."""
        return int(self.encoder_config.num_hidden_layers)  # type: ignore[union-attr]

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """Return the encoder's configuration, where transformers reads (and resizes) the vocabulary."""
        return self.encoder_config  # type: ignore[return-value]


def _as_config(encoder_config: dict | PreTrainedConfig | None) -> PreTrainedConfig:
    """The encoder's configuration as an object, checked for what DLFA needs of it."""
    if encoder_config is None:
        return AutoConfig.for_model("bert")
    if isinstance(encoder_config, dict):
        if "model_type" not in encoder_config:
            raise ValueError("encoder_config must name its model_type, got a dictionary without one")
        values = {name: value for name, value in encoder_config.items() if name != "model_type"}
        encoder_config = AutoConfig.for_model(encoder_config["model_type"], **values)
    if isinstance(encoder_config, DLFAConfig):
        raise ValueError(
            "encoder_config must be that of a plain encoder, got a DLFAConfig; use its encoder_config, or dlfa train "
            "--intermediate to train on one task after another"
        )
    check_family(encoder_config)
    for name in ("hidden_size", "num_hidden_layers"):
        if not isinstance(getattr(encoder_config, name, None), int):
            raise ValueError(f"encoder_config must have an integer {name}, {encoder_config.model_type!r} has none")
    return encoder_config


def has_decoder(encoder_config: PreTrainedConfig) -> bool:
    """Return whether the encoder's family also has decoders, in which case AutoModel would load a decoder too.

    The class of the configuration decides: the configuration of such an encoder itself says that it has no decoder.
    """
    return bool(encoder_config.is_encoder_decoder or getattr(type(encoder_config), "is_encoder_decoder", False))


def check_family(encoder_config: PreTrainedConfig) -> None:
    """Raise ValueError for a family with decoders, unless transformers can load its encoder alone, as for T5."""
    if not has_decoder(encoder_config):
        return
    # Here: transformers may be importing that module when this one is imported, to register its configuration.
    from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING

    if type(encoder_config) not in MODEL_FOR_TEXT_ENCODING_MAPPING:
        raise ValueError(
            f"encoder must be of a family without a decoder, or of T5's, got one of {encoder_config.model_type!r}"
        )


def _check_encoder_config(value: object) -> None:
    if value is not None and not isinstance(value, dict | PreTrainedConfig):
        raise TypeError(f"encoder_config must be a PreTrainedConfig or a dictionary, got {value!r}")


def _check_fusion_layer(value: object) -> None:
    for layer in value if isinstance(value, list | tuple) else () if value is None else (value,):
        if isinstance(layer, bool) or not isinstance(layer, int):
            raise TypeError(f"fusion_layer must be an int or a list of int, got {layer!r}")


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, got {value!r}")


def _check_probability(name: str, value: Any) -> None:
    check_finite(name, value)
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value}")


def _or_none(check: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda value: None if value is None else check(value)


def _one_of(name: str, valid: tuple[str, ...]) -> Callable[[Any], None]:
    return lambda value: check_one_of(name, value, valid)


# What each field is checked by, whenever it is assigned; each raises ValueError or TypeError.
_FIELD_CHECKS: Mapping[str, Callable[[Any], None]] = {
    "encoder_config": _check_encoder_config,
    "fusion_layer": _check_fusion_layer,
    "fusion": _or_none(_one_of("fusion", FUSIONS)),
    "fuse": _one_of("fuse", FUSE_MODES),
    "reduction": partial(check_positive_int, "reduction"),
    "squeeze_dim": _or_none(partial(check_positive_int, "squeeze_dim")),
    "kernel_size": check_kernel_size,
    "activation": _one_of("activation", ACTIVATIONS),
    "gate_bias": partial(check_finite, "gate_bias"),
    "aif_backend": _one_of("aif_backend", BACKENDS),
    "layer_dropout": partial(_check_probability, "layer_dropout"),
    "scalar_mix_layer_norm": partial(_check_flag, "scalar_mix_layer_norm"),
    "feature_dim": _or_none(partial(check_positive_int, "feature_dim")),
    "label_subword": _one_of("label_subword", LABEL_SUBWORDS),
    "classifier_pooling": _one_of("classifier_pooling", CLASSIFIER_POOLINGS),
    "classifier_dropout": _or_none(partial(_check_probability, "classifier_dropout")),
}


AutoConfig.register("dlfa", DLFAConfig, exist_ok=True)
