"""The base class of all DLFA models: the encoder, the fusion, and the path from tokens to the head."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    MODEL_MAPPING,
    AutoModel,
    AutoModelForTextEncoding,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import ModelOutput
from transformers.utils.generic import TransformersKwargs

from dlfa_kernels.autocast import autocast_dtype
from dlfa_kernels.branches import AIFBranches
from dlfa_kernels.checks import STATE_DTYPES, check_lower, check_mask, check_tensor

from ..error_lines import why_not_found
from .config_files import load_config
from .configuration import DLFAConfig, check_family, has_decoder
from .encoder_states import EncoderStates, keep_block_inputs, run_encoder
from .fusion import ScalarMix, build_fusion
from .input_checks import (
    check_embeds,
    check_keywords,
    check_one_sequence_a_row,
    check_positions,
    check_token_types,
    check_tokens,
    check_vocabulary,
)
from .positions import longest_sequence
from .whole_weights import load_whole

Model = TypeVar("Model", bound="DLFAPreTrainedModel")

# Keywords of AutoModel.from_pretrained that from_encoder gives itself, and what to do instead.
_OWN_KEYWORDS = {
    "add_pooling_layer": "the pooler is always left out",
    "config": "give the fields that are to be changed",
    "dtype": "give from_encoder's own dtype",
    "output_loading_info": "a weight that is missing is an error",
    "torch_dtype": "give from_encoder's own dtype",
}


class DLFAPreTrainedModel(PreTrainedModel):
    """An encoder and the fusion of its layers; base class of all DLFA models.

    A model works in two steps that can be called separately. `encoder_states` runs the encoder and returns the layers
    that the fusion needs. `head_from_states` runs fusion and head on such states, whatever their source. A frozen
    encoder therefore has to run only once: keep its states, train on them, and save the model as usual.

    Fusion and head treat a token as real if its `attention_mask` is not 0. The encoder may give values other than 0 and
    1 a meaning of its own (for Longformer, 2 is global attention).

    Subclasses define `_check_arguments` and `_head`, which handle their labels.
    """

    config_class: type[DLFAConfig] = DLFAConfig
    config: DLFAConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"
    # The encoder's own class decides again when it is built, and raises where it lacks an implementation.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _no_split_modules = {"FusedAIF", "ResidualBranches"}  # noqa: RUF012

    def __init__(self, config: DLFAConfig, encoder: PreTrainedModel | None = None) -> None:
        """Build the model with the given `encoder`, or with a new one from `config.encoder_config`."""
        config.check()  # fields may have been assigned since it was made
        super().__init__(config)
        if encoder is None:
            encoder_config = config.get_text_config()
            auto, pooler = _auto_class(encoder_config), _without_pooler(_encoder_class(encoder_config))
            encoder = auto.from_config(encoder_config, **pooler)
        self.encoder = encoder
        self.fusion = build_fusion(config)
        self._built = (config.fusion, config.num_lower_inputs)
        projected = config.feature_dim is not None and config.feature_dim != config.hidden_size
        self.feature_projection = nn.Linear(config.feature_dim or 0, config.hidden_size) if projected else None
        self._encoder_arguments = frozenset(inspect.signature(type(encoder).forward).parameters)
        own = inspect.signature(type(self).forward).parameters
        self._keywords = self._encoder_arguments | frozenset(own) | frozenset(TransformersKwargs.__annotations__)
        self._longest = longest_sequence(encoder)
        self._hooked = keep_block_inputs(encoder, config.num_hidden_layers)
        self.supports_gradient_checkpointing = encoder.supports_gradient_checkpointing

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        # A module of custom code without parameters of its own counts as loaded, and its initialisation is skipped.
        super()._initialize_weights(module, is_custom_code and not isinstance(module, AIFBranches))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (AIFBranches, ScalarMix)):
            module.reset_parameters()
        else:
            super()._init_weights(module)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "") -> None:
        """Do nothing: a saved model refers to this package in its `auto_map` and contains no copy of the code."""

    @classmethod
    def from_encoder(
        cls: type[Model],
        encoder: str | os.PathLike[str] | PreTrainedModel,
        fusion_layer: int | list[int] | tuple[int, ...] | None = None,
        num_labels: int | None = None,
        *,
        dtype: torch.dtype | str = "float32",
        encoder_kwargs: dict[str, Any] | None = None,
        **config_kwargs: Any,
    ) -> Model:
        """Build a model on a pretrained encoder, with a new fusion and a new head.

        Args:
            encoder: a Hub id, a directory, or a loaded encoder. A loaded encoder becomes part of the new model, with
                its own dtype and device, but without its pooler. From a model with a task head, such as
                BertForMaskedLM, only the encoder is used.
            fusion_layer: see DLFAConfig; the default None is the last-layer baseline.
            num_labels: number of classes of the task head, at least 1; None uses the number of entries of `id2label` or
                `label2id`, else two.
            dtype: dtype of the loaded weights; float32 by default, since they are to be trained.
            encoder_kwargs: options of `AutoModel.from_pretrained`, such as `revision` or `local_files_only`, or fields
                of the encoder's configuration, such as `hidden_dropout_prob`.
            **config_kwargs: fields of DLFAConfig, `id2label`, `label2id`, `problem_type`, and `attn_implementation`.

        Raises:
            ValueError: a layer is out of range, the encoder is unsuitable or lacks weights, or labels are missing or
                inconsistent.
            OSError: there is no such encoder, its weights are damaged, or a package that it needs is not installed.
            TypeError: an unknown keyword, or an argument of an invalid type.
        """
        if not isinstance(encoder, (str, os.PathLike, PreTrainedModel)):
            raise TypeError(f"encoder must be a Hub id, a directory or a loaded encoder, got {type(encoder).__name__}")
        options = dict(encoder_kwargs or {})
        for name, instead in _OWN_KEYWORDS.items():
            if name in options:
                raise ValueError(f"encoder_kwargs must not hold {name!r}: {instead}")
        if "attn_implementation" in config_kwargs:
            options["attn_implementation"] = config_kwargs.pop("attn_implementation")
        _check_fields(cls.config_class, config_kwargs)
        id2label, label2id = (config_kwargs.pop(name, None) for name in ("id2label", "label2id"))
        config_kwargs |= _label_fields(id2label, label2id, num_labels)
        if isinstance(encoder, PreTrainedModel):
            if options:
                raise ValueError(f"a loaded encoder takes no {', '.join(sorted(options))}; load it with them")
            loaded = _bare(encoder)
            config = cls.config_class(encoder_config=loaded.config, fusion_layer=fusion_layer, **config_kwargs)
        else:
            of_config = {name: value for name, value in options.items() if name != "attn_implementation"}
            encoder_config = load_config(encoder, **of_config)
            # Where it is given a configuration, AutoModel takes fields of it for arguments of the model's class.
            options = {name: value for name, value in options.items() if not hasattr(encoder_config, name)}
            config = cls.config_class(encoder_config=encoder_config, fusion_layer=fusion_layer, **config_kwargs)
            pooler = _without_pooler(_encoder_class(encoder_config))
            auto = _auto_class(encoder_config)
            loaded = load_whole(
                auto, encoder, unused=("pooler",), config=encoder_config, dtype=dtype, **pooler, **options
            )
            config.encoder_config = loaded.config
            config._attn_implementation = loaded.config._attn_implementation
        for module in loaded.modules():
            module.__dict__["_is_hf_initialized"] = True  # the encoder's weights are not to be drawn anew
        model = cls._from_config(config, encoder=loaded, dtype=loaded.dtype)
        return model.to(loaded.device).eval()  # as from_pretrained

    def encoder_states(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        *,
        layers: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> EncoderStates:
        """Run the encoder and return its last layer and the lower layers; no other layers are kept.

        Args:
            input_ids: (B, T) int64.
            attention_mask: (B, T), bool or integer 0/1.
            token_type_ids: (B, T) int64; ignored if the encoder has no such argument.
            inputs_embeds: (B, T, E), instead of `input_ids`.
            layers: the requested lower layers, 0..L-1; None uses those of this model's fusion, `config.lower_layers`.
            **kwargs: further arguments of the encoder.

        Returns:
            EncoderStates: `last` (B, T, E), `lowers` (one (B, T, E) per layer, in that order), and the encoder's own
            `outputs`.

        Raises:
            ValueError, TypeError: a layer outside 0..L-1, or an invalid argument.
        """
        check_keywords(kwargs, self._keywords)
        shape = check_tokens(input_ids, inputs_embeds, attention_mask)
        return self._states(shape, input_ids, attention_mask, token_type_ids, inputs_embeds, layers, kwargs)

    def _states(
        self,
        shape: torch.Size,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        layers: Sequence[int] | None,
        kwargs: dict[str, Any],
    ) -> EncoderStates:
        """`encoder_states` of sequences whose `shape` (B, T), and names of arguments, are checked."""
        if input_ids is not None:
            check_vocabulary(input_ids, self.encoder)
        if inputs_embeds is not None:
            check_embeds(inputs_embeds, self.encoder)
        check_one_sequence_a_row(kwargs, attention_mask)
        # torch.compile and torch.export would take the limit that is compared with for one on their own shapes.
        counted = kwargs.get("position_ids") is None and not torch.compiler.is_compiling()
        if counted and self._longest is not None and shape[1] > self._longest:
            check_positions(input_ids, shape, self.encoder)  # asks the encoder anew, whose table may have grown
        depth = self.config.num_hidden_layers
        wanted = self.config.lower_layers if layers is None else tuple(layers)
        for layer in wanted:
            if isinstance(layer, bool) or not isinstance(layer, int):
                raise TypeError(f"layers must be of int, got {layer!r}")
            if not 0 <= layer < depth:
                raise ValueError(f"layers must be in 0..{depth - 1}, got {layer}")
        if token_type_ids is not None:
            check_token_types(token_type_ids, shape, self.encoder)
        if token_type_ids is not None and "token_type_ids" in self._encoder_arguments:
            kwargs["token_type_ids"] = token_type_ids
        for name in ("output_hidden_states", "output_attentions"):
            if kwargs.get(name) is None and getattr(self.config, name):
                kwargs[name] = True
        if attention_mask is not None and attention_mask.dtype == torch.bool:
            attention_mask = attention_mask.long()  # some encoders compute with it
        if inputs_embeds is not None:  # else left out, as some encoders do not know it
            kwargs["inputs_embeds"] = inputs_embeds
        return run_encoder(
            self.encoder, wanted, self._hooked, input_ids=input_ids, attention_mask=attention_mask, **kwargs
        )

    def head_from_states(
        self,
        last: Tensor,
        lowers: Sequence[Tensor] = (),
        attention_mask: Tensor | None = None,
        *,
        external_features: Tensor | None = None,
        **arguments: Any,
    ) -> Any:
        """Run fusion and head on given states, as `encoder_states` returns them.

        Args:
            last: (B, T, E), the last layer. States may have a lower precision than the parameters.
            lowers: the lower layers, (B, T, E) each, in the order of `config.lower_layers`.
            attention_mask: (B, T), bool or integer 0/1, true at real tokens; None means that all tokens are real.
            external_features: (B, T, E or feature_dim), an external second input that replaces the lower layer.
            **arguments: the head's own arguments of `forward`: labels, `word_index`, `output_gate`, and the Trainer's
                `num_items_in_batch`.

        Returns:
            The output of `forward`, without the encoder's recorded states and attentions.

        Raises:
            ValueError, TypeError: an argument is invalid or unknown to the head.
        """
        check_tensor("last", last)
        if last.dim() != 3 or last.shape[-1] != self.config.hidden_size:
            raise ValueError(
                f"last must have shape (B, T, E) with E = {self.config.hidden_size}, got {tuple(last.shape)}"
            )
        for number, lower in enumerate(lowers):
            check_lower(f"lowers[{number}]", lower, last)
        if attention_mask is not None:
            check_mask("attention_mask", attention_mask, last.shape[:2], last.device)
        self._check_arguments(last.shape[:2], attention_mask, **arguments)
        self._check_external_features(last.shape[:2], external_features)
        lowers = self._second_inputs(last, lowers, external_features)
        return self._head(last, lowers, attention_mask, **arguments)

    def _forward(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        inputs_embeds: Tensor | None,
        external_features: Tensor | None,
        encoder_arguments: dict[str, Any],
        **arguments: Any,
    ) -> Any:
        """Checks, encoder, fusion, head; what the encoder recorded joins the output."""
        check_keywords(encoder_arguments, self._keywords)
        shape = check_tokens(input_ids, inputs_embeds, attention_mask)
        # What the Trainer adds for the loss is none of the encoder's arguments.
        if "num_items_in_batch" in encoder_arguments:
            arguments["num_items_in_batch"] = encoder_arguments.pop("num_items_in_batch")
        self._check_arguments(shape, attention_mask, **arguments)
        self._check_external_features(shape, external_features)
        states = self._states(shape, input_ids, attention_mask, token_type_ids, inputs_embeds, None, encoder_arguments)
        lowers = self._second_inputs(states.last, states.lowers, external_features)
        output = self._head(states.last, lowers, attention_mask, **arguments)
        names = ("hidden_states", "attentions")
        recorded = {name: value for name in names if (value := getattr(states.outputs, name, None)) is not None}
        # made anew, as what is added to an output stands behind the gate in its tuple
        return type(output)(**output, **recorded) if recorded else output

    def _check_arguments(
        self,
        shape: torch.Size,
        mask: Tensor | None,
        *,
        output_gate: bool = False,
        num_items_in_batch: Tensor | int | None = None,
        **unknown: Any,
    ) -> None:
        """Check the head's arguments for sequences of `shape` (B, T) before any work.

        A subclass takes those that it knows, and hands the others on.
        """
        if unknown:
            parameters = inspect.signature(self._head).parameters.values()
            own = ", ".join(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)
            raise TypeError(f"unknown keyword {', '.join(map(repr, unknown))}; {type(self).__name__} takes {own}")
        if output_gate and self.config.fusion != "aif":
            raise ValueError(f"output_gate needs fusion='aif', this model has fusion={self.config.fusion!r}")

    def _head(self, last: Tensor, lowers: tuple[Tensor, ...], mask: Tensor | None, **arguments: Any) -> ModelOutput:
        """Fusion and head on checked arguments."""
        raise NotImplementedError

    def _check_external_features(self, shape: torch.Size, external_features: Tensor | None) -> None:
        config = self.config
        if external_features is None:
            if config.num_lower_inputs > len(config.lower_layers):
                raise ValueError("external_features must be given: this model has a feature_dim and no fusion_layer")
            return
        if config.num_lower_inputs != 1:
            raise ValueError(
                f"external_features stands for one lower layer; this model (fusion={config.fusion!r}) takes "
                f"{config.num_lower_inputs}"
            )
        check_tensor("external_features", external_features)
        expected = (*shape, config.feature_dim or config.hidden_size)
        if tuple(external_features.shape) != expected:
            raise ValueError(
                f"external_features must have shape (B, T, {'feature_dim' if config.feature_dim else 'E'}) = "
                f"{expected}, got {tuple(external_features.shape)}"
            )
        if not external_features.is_floating_point():
            raise TypeError(f"external_features must be floating point, got {external_features.dtype}")

    def _second_inputs(
        self, last: Tensor, lowers: Sequence[Tensor], external_features: Tensor | None
    ) -> tuple[Tensor, ...]:
        """The fusion's second inputs: the encoder's layers, or the external one in their place."""
        built, now = self._built, (self.config.fusion, self.config.num_lower_inputs)
        if now != built:
            raise ValueError(
                f"config must keep the fusion and the number of lower inputs that the model was built with, "
                f"{built[0]!r} and {built[1]}, got {now[0]!r} and {now[1]}"
            )
        if external_features is None:
            if len(lowers) != self.config.num_lower_inputs:
                raise ValueError(f"lowers must hold {self.config.num_lower_inputs} layers, got {len(lowers)}")
            return tuple(lowers)
        if self.feature_projection is not None:
            external_features = project(self.feature_projection, external_features)
        return (external_features.to(last.dtype),)

    def _gates(
        self, last: Tensor, lowers: Sequence[Tensor], mask: Tensor | None, token: int | None = None
    ) -> tuple[Tensor, ...]:
        fusion: Any = self.fusion  # an AIFSequence, or what an adapter has put around it
        return fusion.gates(last, lowers, mask, token)


def no_encoder(name: str, error: Exception) -> ValueError:
    """Return the error to raise after transformers failed with `error` to load the encoder `name`."""
    return ValueError(f"no encoder can be loaded from {name!r}: {why_not_found(name, error)}")


def project(layer: nn.Linear, states: Tensor) -> Tensor:
    """Apply `layer` to states (..., E) whose dtype may differ, such as states stored in half precision."""
    # Quantized layers, whose weights are integers or none at all, take states as they are.
    dtype = getattr(layer.weight, "dtype", None)
    if dtype in STATE_DTYPES and autocast_dtype(states.device.type) is None:
        states = states.to(dtype)
    return layer(states)


def _auto_class(config: PreTrainedConfig) -> type[AutoModel | AutoModelForTextEncoding]:
    """The Auto class that builds the encoder of `config`, without a decoder."""
    return AutoModelForTextEncoding if has_decoder(config) else AutoModel


def _encoder_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class that `_auto_class` builds for `config`."""
    mapping = MODEL_FOR_TEXT_ENCODING_MAPPING if has_decoder(config) else MODEL_MAPPING
    # A saved model has the name of the encoder's type alone, by which transformers finds no code from the Hub.
    named = config.model_type in CONFIG_MAPPING and CONFIG_MAPPING[config.model_type] is type(config)
    if not named or type(config) not in mapping:
        raise ValueError(
            f"the encoder must be one that AutoModel can build without remote code, got {config.model_type!r}; its "
            "classes can be registered with AutoConfig and AutoModel"
        )
    chosen: Any = mapping[type(config)]
    encoder_class: type[PreTrainedModel] = chosen[0] if isinstance(chosen, (list, tuple)) else chosen
    if encoder_class.main_input_name != "input_ids":
        raise ValueError(
            f"the encoder must read input_ids, a {encoder_class.__name__} reads {encoder_class.main_input_name}"
        )
    return encoder_class


def _without_pooler(encoder_class: type[PreTrainedModel]) -> dict[str, bool]:
    """The keyword that leaves an encoder's pooler out, for classes that have it."""
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(encoder_class).parameters else {}


def _bare(model: PreTrainedModel) -> PreTrainedModel:
    """The encoder of `model`, without pooler, checked to be what a saved DLFA model will be rebuilt with."""
    if isinstance(model, DLFAPreTrainedModel):
        raise ValueError(f"encoder must be a plain encoder, got a {type(model).__name__}; use its `encoder`")
    check_family(model.config)
    encoder = model.base_model
    needed = _encoder_class(model.config)
    if not isinstance(encoder, needed):
        got = type(model).__name__ if encoder is model else f"{type(model).__name__} on top of {type(encoder).__name__}"
        raise ValueError(f"encoder must be a {needed.__name__} or a model on top of one, got {got}")
    if _without_pooler(needed) and getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # type: ignore[assignment]
    return encoder


def _check_fields(config_class: type[DLFAConfig], config_kwargs: dict[str, Any]) -> None:
    """Raise TypeError unless every keyword is a field of `config_class`."""
    own = {field.name for field in dataclasses.fields(config_class)} - {"encoder_config", "fusion_layer"}
    unknown = sorted(set(config_kwargs) - own)
    if unknown:
        raise TypeError(
            f"unknown keyword {', '.join(map(repr, unknown))}; {config_class.__name__} has {', '.join(sorted(own))}; "
            "what AutoModel.from_pretrained takes goes into encoder_kwargs"
        )


def _label_fields(id2label: Any, label2id: Any, num_labels: int | None) -> dict[str, Any]:
    """The configuration's fields for a head's classes, which are named in either direction, counted, or both.

    Raises:
        TypeError, ValueError: names of another type, that leave a class out or contradict each other or the count.
    """
    for name, given in (("id2label", id2label), ("label2id", label2id)):
        if given is not None and not isinstance(given, dict):
            raise TypeError(f"{name} must be a dict, got {given!r}")
    if num_labels is not None and (isinstance(num_labels, bool) or not isinstance(num_labels, int)):
        raise TypeError(f"num_labels must be an int or None, got {num_labels!r}")
    if num_labels is not None and num_labels < 1:
        raise ValueError(f"num_labels must be at least 1, got {num_labels}")
    # A configuration that was read from JSON has its classes as strings.
    of_ids = None if label2id is None else {str(index): label for label, index in label2id.items()}
    names = of_ids if id2label is None else {str(index): label for index, label in id2label.items()}
    if names is None:
        return {} if num_labels is None else {"num_labels": num_labels}
    if of_ids is not None and len(of_ids) != len(label2id):
        raise ValueError(f"label2id must give each label a class of its own, got {label2id!r}")
    if names.keys() != set(map(str, range(len(names)))):
        raise ValueError(f"id2label must name the classes 0..{len(names) - 1}, got {', '.join(sorted(names))}")
    if of_ids is not None and of_ids != names:
        raise ValueError(f"label2id must say the same as id2label, {id2label!r}, got {label2id!r}")
    if num_labels is not None and len(names) != num_labels:
        raise ValueError(f"num_labels must be {len(names)}, the length of id2label, got {num_labels}")
    by_class = {index: names[str(index)] for index in range(len(names))}
    return {"id2label": by_class, "label2id": {label: index for index, label in by_class.items()}}
