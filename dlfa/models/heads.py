"""The task heads on the fused states: for tokens or words, sequences, and answer spans."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import can_return_tuple

from dlfa_kernels.checks import check_tensor, values_can_be_read

from .configuration import DLFAConfig
from .input_checks import check_classes, values_can_be_asserted
from .outputs import DLFAQuestionAnsweringOutput, DLFASequenceClassifierOutput, DLFATokenClassifierOutput
from .pretrained import DLFAPreTrainedModel, project
from .words import check_labelled_words, check_word_index, mean_of_subwords, mean_of_tokens

# What encoders call the dropout before their own heads over sequences alone.
_OF_SEQUENCES = ("cls_dropout", "seq_classif_dropout")


def _dropout(config: DLFAConfig, of_head: tuple[str, ...] = ()) -> nn.Dropout:
    """Dropout before the head: the configuration's, else the encoder's own, else 0.1.

    `of_head` are names that the encoder's configuration has for one kind of head.
    """
    rate = config.classifier_dropout
    for name in ("classifier_dropout", "classifier_dropout_prob", *of_head, "hidden_dropout_prob", "dropout"):
        rate = getattr(config.encoder_config, name, None) if rate is None else rate
    return nn.Dropout(0.1 if rate is None else rate)


class DLFAForTokenClassification(DLFAPreTrainedModel):
    """Token classification: dropout and a linear layer on the fused states of tokens or words."""

    def __init__(self, config: DLFAConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config, encoder)
        self.num_labels = len(config.id2label or ())
        self.dropout = _dropout(config)
        self.classifier = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        word_index: Tensor | None = None,
        external_features: Tensor | None = None,
        output_gate: bool = False,
        **kwargs: Any,
    ) -> DLFATokenClassifierOutput:
        """Classify every token, or with `word_index` every word.

        `config.label_subword` sets the position of a word's label. For "first" and "last", `labels` (B, T) hold the
        label at that sub-word and -100 everywhere else. For "mean", `word_index` (B, T) int64 holds the word of each
        token, numbered from 0 in each sequence, and -1 for tokens without a word. The model then classifies the mean of
        the fused states of a word's sub-words: `logits` are (B, W, C), and `labels` are (B, W), with -100 after the
        last word of a shorter sequence. W is `labels.shape[1]`, or without labels the highest index plus one, which on
        a GPU is a host sync. Without `word_index` such a model classifies every token, as in a pipeline.

        Args:
            input_ids: (B, T) int64.
            attention_mask: (B, T), bool or integer 0/1, true at real tokens; None means that all tokens are real.
            token_type_ids: (B, T) int64.
            inputs_embeds: (B, T, E), instead of `input_ids`.
            labels: (B, T) or (B, W) int64, -100 at ignored positions.
            word_index: (B, T) int64, only for `label_subword="mean"`.
            external_features: (B, T, E or feature_dim), an external second input that replaces the lower layer.
            output_gate: also return AIF's gates.
            **kwargs: `output_hidden_states`, `output_attentions`, `return_dict`, `num_items_in_batch`, further
                arguments of the encoder.

        Raises:
            ValueError, TypeError: an invalid argument.
        """
        return self._forward(
            input_ids, attention_mask, token_type_ids, inputs_embeds, external_features, kwargs,
            labels=labels, word_index=word_index, output_gate=output_gate,
        )  # fmt: skip

    def _check_arguments(
        self,
        shape: torch.Size,
        mask: Tensor | None,
        *,
        labels: Tensor | None = None,
        word_index: Tensor | None = None,
        **arguments: Any,
    ) -> None:
        super()._check_arguments(shape, mask, **arguments)
        if labels is not None:
            check_tensor("labels", labels)
        if word_index is None:
            if labels is not None and labels.shape != shape:
                raise ValueError(f"labels must have shape (B, T) = {tuple(shape)}, got {tuple(labels.shape)}")
        else:
            if self.config.label_subword != "mean":
                raise ValueError(f"word_index needs label_subword='mean', this model has {self.config.label_subword!r}")
            if labels is not None and (labels.dim() != 2 or labels.shape[0] != shape[0]):
                raise ValueError(f"labels must have shape (B, W) with B = {shape[0]}, got {tuple(labels.shape)}")
            check_word_index(word_index, shape, None if labels is None else labels.shape[1])
        if labels is not None:
            check_classes(labels, self.num_labels)
            if word_index is not None:
                check_labelled_words(labels, word_index)

    def _head(
        self,
        last: Tensor,
        lowers: tuple[Tensor, ...],
        mask: Tensor | None,
        *,
        labels: Tensor | None = None,
        word_index: Tensor | None = None,
        output_gate: bool = False,
        **loss_arguments: Any,
    ) -> DLFATokenClassifierOutput:
        fused = self.fusion(last, lowers, mask)
        if word_index is not None:
            fused = mean_of_subwords(fused, word_index, None if labels is None else labels.shape[1])
        logits = project(self.classifier, self.dropout(fused))
        loss = None if labels is None else self.loss_function(logits, labels, self.config, **loss_arguments)
        gate = self._gates(last, lowers, mask) if output_gate else None
        return DLFATokenClassifierOutput(loss=loss, logits=logits, gate=gate)


class DLFAForSequenceClassification(DLFAPreTrainedModel):
    """Classification or regression of a sentence or pair: dropout and a linear layer on the first token or the mean.

    With `config.classifier_pooling="first"` only the first token is fused (`token=0` of FusedAIF). It must be a real
    token, so tokenizers that pad on the left are not supported. Padding there is a ValueError on the CPU, and on a GPU
    under DLFA_VALIDATE=1, since reading the mask is a host sync there; else the GPU stops at it, with an assertion that
    names no argument. Compiled and exported models do not check it. With "mean" every token is fused; a sequence
    without a real token has mean 0.
    """

    def __init__(self, config: DLFAConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config, encoder)
        self.num_labels = len(config.id2label or ())
        self.dropout = _dropout(config, _OF_SEQUENCES)
        self.classifier = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        external_features: Tensor | None = None,
        output_gate: bool = False,
        **kwargs: Any,
    ) -> DLFASequenceClassifierOutput:
        """Classify every sequence.

        Args:
            input_ids: (B, T) int64.
            attention_mask: (B, T), bool or integer 0/1, true at real tokens; the first token of every sequence must be
                real unless `config.classifier_pooling` is "mean".
            token_type_ids: (B, T) int64.
            inputs_embeds: (B, T, E), instead of `input_ids`.
            labels: (B,) int64 classes; (B,) values for regression, (B, C) with several columns; or (B, C) float for
                multi-label classification. `config.problem_type` decides; if it is None, it is inferred from the
                labels. (B, 1) is accepted for (B,).
            external_features: (B, T, E or feature_dim), an external second input that replaces the lower layer.
            output_gate: also return AIF's gates.
            **kwargs: `output_hidden_states`, `output_attentions`, `return_dict`, `num_items_in_batch`, further
                arguments of the encoder.

        Raises:
            ValueError, TypeError: an invalid argument.
        """
        return self._forward(
            input_ids, attention_mask, token_type_ids, inputs_embeds, external_features, kwargs,
            labels=labels, output_gate=output_gate,
        )  # fmt: skip

    def _check_arguments(
        self, shape: torch.Size, mask: Tensor | None, *, labels: Tensor | None = None, **arguments: Any
    ) -> None:
        super()._check_arguments(shape, mask, **arguments)
        if labels is not None:
            check_tensor("labels", labels)
            if labels.shape[:1] != shape[:1]:
                raise ValueError(f"labels must have B = {shape[0]} rows, got {tuple(labels.shape)}")
            self._check_problem(labels, shape[0])
        if self.config.classifier_pooling == "first":
            _first_token_is_real(mask)

    def _check_problem(self, labels: Tensor, rows: int) -> None:
        """Raise TypeError or ValueError unless `labels` of `rows` sequences fit the kind of problem."""
        kind = self.config.problem_type
        if kind is None and self.num_labels > 1 and not labels.is_floating_point():
            kind = "single_label_classification"
        classes, several = kind == "single_label_classification", kind == "multi_label_classification"
        fitting: tuple[tuple[int, ...], ...]
        if classes or (self.num_labels == 1 and not several):
            form, fitting = f"(B,) = {(rows,)}", ((rows,), (rows, 1))
        else:  # as the logits are: their losses would broadcast other shapes, or refuse them in words of their own
            form, fitting = f"(B, C) = {(rows, self.num_labels)}", ((rows, self.num_labels),)
        if tuple(labels.shape) not in fitting:
            raise ValueError(f"labels must have shape {form}, got {tuple(labels.shape)}")
        if classes:
            check_classes(labels, self.num_labels)
        elif several and not labels.is_floating_point():
            raise TypeError(f"labels must be floating point for problem_type {kind!r}, got {labels.dtype}")

    def _head(
        self,
        last: Tensor,
        lowers: tuple[Tensor, ...],
        mask: Tensor | None,
        *,
        labels: Tensor | None = None,
        output_gate: bool = False,
        **loss_arguments: Any,
    ) -> DLFASequenceClassifierOutput:
        token = 0 if self.config.classifier_pooling == "first" else None
        fused = self.fusion(last, lowers, mask, token)
        pooled = fused if token is not None else mean_of_tokens(fused, mask)
        logits = project(self.classifier, self.dropout(pooled))
        loss = None if labels is None else self._loss(logits, labels, **loss_arguments)
        gate = self._gates(last, lowers, mask, token) if output_gate else None
        return DLFASequenceClassifierOutput(loss=loss, logits=logits, gate=gate)

    def _loss(
        self, logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None = None, **kwargs: Any
    ) -> Tensor:
        """The loss of `labels`: their mean, or their part in a mean of `num_items_in_batch` over several batches."""
        arguments = {"num_items_in_batch": num_items_in_batch, **kwargs}
        loss: Tensor = self.loss_function(labels, logits, self.config, **arguments)
        if num_items_in_batch is None or self.config.problem_type == "single_label_classification":
            return loss
        return loss * labels.numel() / num_items_in_batch  # transformers' losses of the other problems overlook it


class DLFAForQuestionAnswering(DLFAPreTrainedModel):
    """Extractive question answering: a linear layer maps the fused states to logits of the answer's start and end."""

    def __init__(self, config: DLFAConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config, encoder)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        external_features: Tensor | None = None,
        output_gate: bool = False,
        **kwargs: Any,
    ) -> DLFAQuestionAnsweringOutput:
        """Score every token as the start and as the end of the answer.

        Args:
            input_ids: (B, T) int64.
            attention_mask: (B, T), bool or integer 0/1, true at real tokens; None means that all tokens are real.
            token_type_ids: (B, T) int64.
            inputs_embeds: (B, T, E), instead of `input_ids`.
            start_positions: (B,) int64, the answer's first token, not negative; positions of T or more are ignored by
                the loss. Must be given together with `end_positions`.
            end_positions: (B,) int64, the answer's last token, likewise.
            external_features: (B, T, E or feature_dim), an external second input that replaces the lower layer.
            output_gate: also return AIF's gates.
            **kwargs: `output_hidden_states`, `output_attentions`, `return_dict`, further arguments of the encoder.

        Raises:
            ValueError, TypeError: an invalid argument.
        """
        return self._forward(
            input_ids, attention_mask, token_type_ids, inputs_embeds, external_features, kwargs,
            start_positions=start_positions, end_positions=end_positions, output_gate=output_gate,
        )  # fmt: skip

    def _check_arguments(
        self,
        shape: torch.Size,
        mask: Tensor | None,
        *,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **arguments: Any,
    ) -> None:
        super()._check_arguments(shape, mask, **arguments)
        if (start_positions is None) != (end_positions is None):
            missing = "start_positions" if start_positions is None else "end_positions"
            raise ValueError(f"start_positions and end_positions must be given together, got no {missing}")
        for name, positions in (("start_positions", start_positions), ("end_positions", end_positions)):
            if positions is None:
                continue
            check_tensor(name, positions)
            if positions.dtype != torch.int64:
                raise TypeError(f"{name} must be int64, got {positions.dtype}")
            if positions.shape[:1] != shape[:1] or positions.numel() != shape[0]:
                raise ValueError(f"{name} must have shape (B,) = ({shape[0]},), got {tuple(positions.shape)}")
            if values_can_be_read(positions) and bool((positions < 0).any()):
                raise ValueError(f"{name} must not be negative, got {int(positions[positions < 0][0])}")

    def _head(
        self,
        last: Tensor,
        lowers: tuple[Tensor, ...],
        mask: Tensor | None,
        *,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_gate: bool = False,
        **loss_arguments: Any,
    ) -> DLFAQuestionAnsweringOutput:
        start, end = (
            logits.contiguous() for logits in project(self.qa_outputs, self.fusion(last, lowers, mask)).unbind(-1)
        )
        loss = None
        if start_positions is not None:
            loss = self.loss_function(start, end, start_positions, end_positions, **loss_arguments)
        gate = self._gates(last, lowers, mask) if output_gate else None
        return DLFAQuestionAnsweringOutput(loss=loss, start_logits=start, end_logits=end, gate=gate)


def _first_token_is_real(mask: Tensor | None) -> None:
    """Raise ValueError for a sequence that starts with padding, where the mask's values are free to read.

    Elsewhere a GPU stops at it, by an assertion.
    """
    if mask is None or not (values_can_be_read(mask) or values_can_be_asserted(mask)):
        return
    padded = mask[:, :1].any(dim=1) != mask.any(dim=1)
    rule = "attention_mask must be true at the first token of every sequence, the one that is classified"
    if not values_can_be_read(mask):
        torch._assert_async(~padded.any(), rule)
    elif bool(padded.any()):
        raise ValueError(
            f"{rule}; sequence {int(padded.nonzero()[0])} starts with padding (use a tokenizer with "
            "padding_side='right')"
        )
