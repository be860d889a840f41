"""The DLFA models: any transformers encoder, a fusion of its last layer with lower ones, a task head."""

from __future__ import annotations

import dataclasses
import inspect
import os
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils.generic import can_return_tuple

from dlfa_kernels import FusedAIF, environment

from .configuration import DLFAConfig
from .encoder_states import EncoderStates, keep_block_inputs, run_encoder
from .fusion import AIFSequence, ScalarMix, build_fusion
from .outputs import (
    DLFAModelOutput,
    DLFAQuestionAnsweringOutput,
    DLFASequenceClassifierOutput,
    DLFATokenClassifierOutput,
)
from .words import mean_of_subwords

Model = TypeVar("Model", bound="DLFAPreTrainedModel")


class DLFAPreTrainedModel(PreTrainedModel):
    """What all DLFA models share: `encoder`, `fusion`, and the way from tokens to fused states.

    A model works in two steps that can be called apart: `encoder_states` runs the encoder and returns the layers that
    the fusion needs; `head_from_states` runs fusion and head on such states, wherever they come from. A frozen encoder
    therefore has to run once only: keep its states, train on them, and save the model as any other.
    """

    config_class = DLFAConfig
    config: DLFAConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    # The encoder's own class decides again when it is built, and raises where it lacks an implementation.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: DLFAConfig, encoder: PreTrainedModel | None = None) -> None:
        """Build the model; `encoder`, where given, is used as it is, else one is made from `config.encoder_config`."""
        super().__init__(config)
        if encoder is None:
            encoder_config = config.get_text_config()
            encoder = AutoModel.from_config(encoder_config, **_without_pooler(_encoder_class(encoder_config)))
        self.encoder = encoder
        self.fusion = build_fusion(config)
        external = config.feature_dim is not None and config.feature_dim != config.hidden_size
        self.feature_projection = nn.Linear(config.feature_dim or 0, config.hidden_size) if external else None
        self._encoder_arguments = frozenset(inspect.signature(type(encoder).forward).parameters)
        self._hooked = keep_block_inputs(encoder, config.num_hidden_layers)

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        # A module of custom code without parameters of its own counts as loaded, and its initialisation is skipped.
        super()._initialize_weights(module, is_custom_code and not isinstance(module, FusedAIF))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (FusedAIF, ScalarMix)):
            module.reset_parameters()
        else:
            super()._init_weights(module)

    @classmethod
    def from_encoder(
        cls: type[Model],
        encoder: str | os.PathLike[str] | PreTrainedModel,
        fusion_layer: int | list[int] | None = 8,
        num_labels: int | None = None,
        *,
        dtype: torch.dtype | str = "float32",
        encoder_kwargs: dict[str, Any] | None = None,
        **config_kwargs: Any,
    ) -> Model:
        """A model over a pretrained encoder, with a new fusion and a new head.

        Args:
            encoder: a Hub id, a directory, or a loaded encoder, which is then used as it is, in its own dtype and on
                its own device, and loses its pooler. Of a model with a task head, such as BertForMaskedLM, the encoder
                alone is used.
            fusion_layer: see DLFAConfig; None is the plain last-layer baseline.
            num_labels: classes of the task head.
            dtype: of the loaded weights; float32 unless told otherwise, since they are to be trained.
            encoder_kwargs: for `AutoModel.from_pretrained`, such as `revision` or `local_files_only`.
            **config_kwargs: fields of DLFAConfig, `id2label`, `label2id`, `problem_type`, `attn_implementation`.

        Raises:
            ValueError: a layer out of range, an encoder that does not fit, labels that disagree.
            TypeError: an unknown keyword.
        """
        attn_implementation = config_kwargs.pop("attn_implementation", None)
        _known_fields(config_kwargs)
        if num_labels is not None:
            names = config_kwargs.get("id2label")
            if names is not None and len(names) != num_labels:
                raise ValueError(f"num_labels must be {len(names)}, the length of id2label, got {num_labels}")
            if names is None:
                config_kwargs["num_labels"] = num_labels
        options = dict(encoder_kwargs or {})
        if attn_implementation is not None:
            options["attn_implementation"] = attn_implementation
        if isinstance(encoder, PreTrainedModel):
            if options:
                raise ValueError(f"a loaded encoder takes no {', '.join(sorted(options))}; load it with them")
            loaded = _bare(encoder)
            # The configuration is checked before any work: this copy tells whether it fits.
            config = DLFAConfig(encoder_config=loaded.config, fusion_layer=fusion_layer, **config_kwargs)
        else:
            hub = {name: value for name, value in options.items() if name != "attn_implementation"}
            encoder_config = AutoConfig.from_pretrained(encoder, **hub)
            config = DLFAConfig(encoder_config=encoder_config, fusion_layer=fusion_layer, **config_kwargs)
            pooler = _without_pooler(_encoder_class(encoder_config))
            loaded = AutoModel.from_pretrained(encoder, config=encoder_config, dtype=dtype, **pooler, **options)
            config.encoder_config = loaded.config
        if attn_implementation is not None:
            config._attn_implementation = attn_implementation
        for module in loaded.modules():
            module._is_hf_initialized = True
        model = cls._from_config(config, encoder=loaded, dtype=loaded.dtype)
        return model.to(loaded.device)  # type: ignore[arg-type]

    def encoder_states(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        *,
        layers: tuple[int, ...] | list[int] | None = None,
        **kwargs: Any,
    ) -> EncoderStates:
        """Run the encoder and return its last layer and the lower layers; no other layer is kept.

        Args:
            input_ids: (B, T) int64.
            attention_mask: (B, T), bool or integer 0/1.
            token_type_ids: (B, T) int64; left out for an encoder that has no such argument.
            inputs_embeds: (B, T, E), in place of `input_ids`.
            layers: the lower layers wanted, 0..L-1; None takes `config.lower_layers`.
            **kwargs: further arguments of the encoder.

        Returns:
            EncoderStates: `last` (B, T, E), `lowers` (one (B, T, E) a layer), and the encoder's own `outputs`.

        Raises:
            ValueError: a layer outside 0..L-1.
        """
        depth = self.config.num_hidden_layers
        wanted = self.config.lower_layers if layers is None else tuple(layers)
        for layer in wanted:
            if not 0 <= layer < depth:
                raise ValueError(f"layers must be in 0..{depth - 1}, got {layer}")
        if token_type_ids is not None and "token_type_ids" in self._encoder_arguments:
            kwargs["token_type_ids"] = token_type_ids
        if kwargs.get("output_hidden_states") is None and self.config.output_hidden_states:
            kwargs["output_hidden_states"] = True
        return run_encoder(
            self.encoder,
            wanted,
            self._hooked,
            input_ids=input_ids,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )

    def _lower_inputs(self, states: EncoderStates, lower_states: Tensor | None) -> tuple[Tensor, ...]:
        """The second inputs of the fusion: layers of the encoder, or the external one in their place."""
        config = self.config
        if lower_states is None:
            if config.num_lower_inputs > len(states.lowers):
                raise ValueError("lower_states must be given: this model has no fusion_layer, only a feature_dim")
            return states.lowers
        if config.num_lower_inputs != 1:
            raise ValueError(
                f"lower_states can replace one lower layer; this model (fusion={config.fusion!r}) takes "
                f"{config.num_lower_inputs}"
            )
        width = config.feature_dim or config.hidden_size
        expected = (*states.last.shape[:2], width)
        if tuple(lower_states.shape) != expected:
            raise ValueError(
                f"lower_states must have shape (B, T, {'feature_dim' if config.feature_dim else 'E'}) = {expected}, "
                f"got {tuple(lower_states.shape)}"
            )
        if self.feature_projection is not None:
            lower_states = self.feature_projection(lower_states.to(self.feature_projection.weight.dtype))
        return (lower_states.to(states.last.dtype),)

    def _fuse(
        self, last: Tensor, lowers: tuple[Tensor, ...], mask: Tensor | None, token: int | None, output_gate: bool
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """The fused states and, where asked for, the gates."""
        if len(lowers) != self.config.num_lower_inputs:
            raise ValueError(f"lowers must hold {self.config.num_lower_inputs} layers, got {len(lowers)}")
        gates = None
        if output_gate:
            if not isinstance(self.fusion, AIFSequence):
                raise ValueError(f"output_gate needs fusion='aif', this model has fusion={self.config.fusion!r}")
            gates = self.fusion.gates(last, lowers, mask, token)
        return self.fusion(last, lowers, mask, token), gates

    def head_from_states(
        self,
        last: Tensor,
        lowers: tuple[Tensor, ...] = (),
        attention_mask: Tensor | None = None,
        *,
        output_gate: bool = False,
    ) -> Any:
        """Fusion and head on given states; the heads below add their labels. Overridden by every model."""
        raise NotImplementedError

    def _run(
        self,
        inputs: dict[str, Any],
        lower_states: Tensor | None,
        encoder_arguments: dict[str, Any],
        **head_arguments: Any,
    ) -> Any:
        """encoder_states, then head_from_states; what the encoder recorded joins the output."""
        states = self.encoder_states(**inputs, **encoder_arguments)
        lowers = self._lower_inputs(states, lower_states)
        output = self.head_from_states(states.last, lowers, inputs["attention_mask"], **head_arguments)
        for name in ("hidden_states", "attentions"):
            output[name] = getattr(states.outputs, name, None)
        return output


def _encoder_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class that AutoModel builds for `config`."""
    if type(config) not in MODEL_MAPPING:
        raise ValueError(f"the encoder must be one that AutoModel can build, got {config.model_type!r}")
    chosen: Any = MODEL_MAPPING[type(config)]
    return chosen[0] if isinstance(chosen, (list, tuple)) else chosen


def _without_pooler(encoder_class: type[PreTrainedModel]) -> dict[str, bool]:
    """The keyword that leaves an encoder's pooler out, for classes that have it."""
    return {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(encoder_class).parameters else {}


def _bare(model: PreTrainedModel) -> PreTrainedModel:
    """The encoder of `model`, without pooler, checked to be what a saved DLFA model will be rebuilt with."""
    encoder = model.base_model
    needed = _encoder_class(model.config)
    if type(encoder) is not needed:
        raise ValueError(f"encoder must be a {needed.__name__} or a model on top of one, got {type(model).__name__}")
    if _without_pooler(needed) and getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # type: ignore[assignment]
    return encoder


def _known_fields(config_kwargs: dict[str, Any]) -> None:
    own = {field.name for field in dataclasses.fields(DLFAConfig)} - {"encoder_config", "fusion_layer"}
    unknown = sorted(set(config_kwargs) - own)
    if unknown:
        raise TypeError(f"unknown keyword {', '.join(map(repr, unknown))}; DLFAConfig has {', '.join(sorted(own))}")


def _dropout(config: DLFAConfig) -> nn.Dropout:
    """Dropout before the head: the configuration's, else the encoder's own, else 0.1."""
    rate = config.classifier_dropout
    for name in ("classifier_dropout", "seq_classif_dropout", "hidden_dropout_prob", "dropout"):
        rate = getattr(config.encoder_config, name, None) if rate is None else rate
    return nn.Dropout(0.1 if rate is None else rate)


class DLFAModel(DLFAPreTrainedModel):
    """Encoder and fusion without a head: `last_hidden_state` is the fused one."""

    def __init__(self, config: DLFAConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config, encoder)
        self.post_init()

    def head_from_states(
        self,
        last: Tensor,
        lowers: tuple[Tensor, ...] = (),
        attention_mask: Tensor | None = None,
        *,
        output_gate: bool = False,
    ) -> DLFAModelOutput:
        """The fused states, from given ones; arguments as in `forward`, states as `encoder_states` returns them."""
        fused, gate = self._fuse(last, lowers, attention_mask, None, output_gate)
        return DLFAModelOutput(last_hidden_state=fused, gate=gate)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        lower_states: Tensor | None = None,
        output_gate: bool = False,
        **kwargs: Any,
    ) -> DLFAModelOutput:
        """Encode and fuse.

        Args:
            input_ids: (B, T) int64.
            attention_mask: (B, T), bool or integer 0/1, true at real tokens; None means all real.
            token_type_ids: (B, T) int64.
            inputs_embeds: (B, T, E), in place of `input_ids`.
            lower_states: (B, T, E or feature_dim), an external second input in place of the lower layer.
            output_gate: return AIF's gates too.
            **kwargs: `output_hidden_states`, `output_attentions`, `return_dict`, further arguments of the encoder.

        Returns:
            DLFAModelOutput: `last_hidden_state` (B, T, E), in AIF's case zero at padding.

        Raises:
            ValueError, TypeError: an argument that does not fit, as in `dlfa_kernels.FusedAIF`.
        """
        inputs = _inputs(input_ids, attention_mask, token_type_ids, inputs_embeds)
        return self._run(inputs, lower_states, kwargs, output_gate=output_gate)


class DLFAForTokenClassification(DLFAPreTrainedModel):
    """Token or word classification on the fused states: dropout and a linear layer."""

    def __init__(self, config: DLFAConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config, encoder)
        self.num_labels = len(config.id2label or ())
        self.dropout = _dropout(config)
        self.classifier = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()

    def head_from_states(
        self,
        last: Tensor,
        lowers: tuple[Tensor, ...] = (),
        attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        word_index: Tensor | None = None,
        output_gate: bool = False,
        **loss_kwargs: Any,
    ) -> DLFATokenClassifierOutput:
        """Fusion and head on given states; arguments as in `forward`, states as `encoder_states` returns them.

        `loss_kwargs` go to the loss, as the Trainer's `num_items_in_batch`.
        """
        if word_index is not None and self.config.label_subword != "mean":
            raise ValueError(f"word_index needs label_subword='mean', this model has {self.config.label_subword!r}")
        fused, gate = self._fuse(last, lowers, attention_mask, None, output_gate)
        if word_index is not None:
            fused = mean_of_subwords(fused, word_index, None if labels is None else labels.shape[1])
        logits = self.classifier(self.dropout(fused))
        loss = None
        if labels is not None:
            if labels.shape != logits.shape[:2]:
                raise ValueError(
                    f"labels must have shape {'(B, W)' if word_index is not None else '(B, T)'} = "
                    f"{tuple(logits.shape[:2])}, got {tuple(labels.shape)}"
                )
            loss = self.loss_function(logits, labels, self.config, **loss_kwargs)
        return DLFATokenClassifierOutput(loss=loss, logits=logits, gate=gate)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        word_index: Tensor | None = None,
        lower_states: Tensor | None = None,
        output_gate: bool = False,
        **kwargs: Any,
    ) -> DLFATokenClassifierOutput:
        """Classify every token, or with `word_index` every word.

        Where a word's label sits is `config.label_subword`. For "first" and "last", `labels` (B, T) hold it at that
        sub-word and -100 everywhere else. For "mean", `word_index` (B, T) int64 names the word of each token, numbered
        from 0 in each sequence and -1 where there is none; the mean of the fused states of a word's sub-words is
        classified, `logits` are (B, W, C) and `labels` (B, W), -100 past the last word of a shorter sequence. W is
        `labels.shape[1]`, without labels the highest index plus one, which on a GPU waits for the device. Without
        `word_index` such a model classifies every token too, as in a pipeline.

        Args:
            input_ids: (B, T) int64.
            attention_mask: (B, T), bool or integer 0/1, true at real tokens; None means all real.
            token_type_ids: (B, T) int64.
            inputs_embeds: (B, T, E), in place of `input_ids`.
            labels: (B, T) or (B, W) int64, -100 where nothing is to be learnt.
            word_index: (B, T) int64, only for `label_subword="mean"`.
            lower_states: (B, T, E or feature_dim), an external second input in place of the lower layer.
            output_gate: return AIF's gates too.
            **kwargs: `output_hidden_states`, `output_attentions`, `return_dict`, `num_items_in_batch`, further
                arguments of the encoder.

        Raises:
            ValueError, TypeError: an argument that does not fit.
        """
        return self._run(
            _inputs(input_ids, attention_mask, token_type_ids, inputs_embeds),
            lower_states,
            labels=labels,
            word_index=word_index,
            output_gate=output_gate,
            **_loss_arguments(kwargs),
            encoder_arguments=kwargs,
        )


class DLFAForSequenceClassification(DLFAPreTrainedModel):
    """Classification or regression of a sentence or pair from its fused first token: dropout and a linear layer.

    Only the first token is fused (`token=0` of FusedAIF), so it must be a real one: tokenizers that pad on the left are
    not supported. That is checked where it costs no host sync: on the CPU, or on a GPU under DLFA_VALIDATE=1.
    """

    def __init__(self, config: DLFAConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config, encoder)
        self.num_labels = len(config.id2label or ())
        self.dropout = _dropout(config)
        self.classifier = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()

    def head_from_states(
        self,
        last: Tensor,
        lowers: tuple[Tensor, ...] = (),
        attention_mask: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        output_gate: bool = False,
        **loss_kwargs: Any,
    ) -> DLFASequenceClassifierOutput:
        """Fusion and head on given states; arguments as in `forward`, states as `encoder_states` returns them.

        `loss_kwargs` go to the loss, as the Trainer's `num_items_in_batch`.
        """
        _first_token_is_real(attention_mask)
        fused, gate = self._fuse(last, lowers, attention_mask, 0, output_gate)
        logits = self.classifier(self.dropout(fused))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels, logits, self.config, **loss_kwargs)
        return DLFASequenceClassifierOutput(loss=loss, logits=logits, gate=gate)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        lower_states: Tensor | None = None,
        output_gate: bool = False,
        **kwargs: Any,
    ) -> DLFASequenceClassifierOutput:
        """Classify every sequence.

        Args:
            input_ids: (B, T) int64.
            attention_mask: (B, T), bool or integer 0/1, true at real tokens and at the first token of every sequence.
            token_type_ids: (B, T) int64.
            inputs_embeds: (B, T, E), in place of `input_ids`.
            labels: (B,) int64 classes, or float values for regression, or (B, C) float for several labels; as
                `config.problem_type`, which is told from the labels where it is None.
            lower_states: (B, T, E or feature_dim), an external second input in place of the lower layer.
            output_gate: return AIF's gates too.
            **kwargs: `output_hidden_states`, `output_attentions`, `return_dict`, `num_items_in_batch`, further
                arguments of the encoder.

        Raises:
            ValueError, TypeError: an argument that does not fit.
        """
        return self._run(
            _inputs(input_ids, attention_mask, token_type_ids, inputs_embeds),
            lower_states,
            labels=labels,
            output_gate=output_gate,
            **_loss_arguments(kwargs),
            encoder_arguments=kwargs,
        )


class DLFAForQuestionAnswering(DLFAPreTrainedModel):
    """Extractive question answering on the fused states: a linear layer to the logits of an answer's start and end."""

    def __init__(self, config: DLFAConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config, encoder)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    def head_from_states(
        self,
        last: Tensor,
        lowers: tuple[Tensor, ...] = (),
        attention_mask: Tensor | None = None,
        *,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_gate: bool = False,
        **loss_kwargs: Any,
    ) -> DLFAQuestionAnsweringOutput:
        """Fusion and head on given states; arguments as in `forward`, states as `encoder_states` returns them."""
        fused, gate = self._fuse(last, lowers, attention_mask, None, output_gate)
        start_logits, end_logits = (logits.contiguous() for logits in self.qa_outputs(fused).unbind(-1))
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = self.loss_function(start_logits, end_logits, start_positions, end_positions, **loss_kwargs)
        return DLFAQuestionAnsweringOutput(loss=loss, start_logits=start_logits, end_logits=end_logits, gate=gate)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        lower_states: Tensor | None = None,
        output_gate: bool = False,
        **kwargs: Any,
    ) -> DLFAQuestionAnsweringOutput:
        """Score every token as the start and as the end of the answer.

        Args:
            input_ids: (B, T) int64.
            attention_mask: (B, T), bool or integer 0/1, true at real tokens; None means all real.
            token_type_ids: (B, T) int64.
            inputs_embeds: (B, T, E), in place of `input_ids`.
            start_positions: (B,) int64, the answer's first token; one outside 0..T-1 is not learnt.
            end_positions: (B,) int64, the answer's last token.
            lower_states: (B, T, E or feature_dim), an external second input in place of the lower layer.
            output_gate: return AIF's gates too.
            **kwargs: `output_hidden_states`, `output_attentions`, `return_dict`, further arguments of the encoder.

        Raises:
            ValueError, TypeError: an argument that does not fit.
        """
        return self._run(
            _inputs(input_ids, attention_mask, token_type_ids, inputs_embeds),
            lower_states,
            start_positions=start_positions,
            end_positions=end_positions,
            output_gate=output_gate,
            **_loss_arguments(kwargs),
            encoder_arguments=kwargs,
        )


def _inputs(
    input_ids: Tensor | None, attention_mask: Tensor | None, token_type_ids: Tensor | None, inputs_embeds: Tensor | None
) -> dict[str, Tensor | None]:
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "token_type_ids": token_type_ids,
        "inputs_embeds": inputs_embeds,
    }


def _loss_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take the Trainer's argument for the loss out of `kwargs`, which then are the encoder's."""
    return {name: kwargs.pop(name) for name in ("num_items_in_batch",) if name in kwargs}


def _first_token_is_real(mask: Tensor | None) -> None:
    if mask is None or mask.dim() != 2 or torch.compiler.is_compiling() or mask.numel() == 0:
        return
    if mask.device.type != "cpu" and (mask.device.type == "meta" or not environment.validate()):
        return
    padded = (mask[:, 0] == 0) & (mask != 0).any(dim=1)
    if bool(padded.any()):
        row = int(padded.nonzero()[0])
        raise ValueError(
            "attention_mask must be true at the first token of every sequence, which is what gets classified; sequence "
            f"{row} starts with padding (use a tokenizer with padding_side='right')"
        )


AutoModel.register(DLFAConfig, DLFAModel, exist_ok=True)
AutoModelForTokenClassification.register(DLFAConfig, DLFAForTokenClassification, exist_ok=True)
AutoModelForSequenceClassification.register(DLFAConfig, DLFAForSequenceClassification, exist_ok=True)
AutoModelForQuestionAnswering.register(DLFAConfig, DLFAForQuestionAnswering, exist_ok=True)
