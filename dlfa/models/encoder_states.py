"""Extraction of only those hidden states that a fusion needs, from any transformers encoder.

hidden_states[i] is the input of block i for every i in 0..L-1, so a forward pre-hook on each block reads exactly the
requested layers. A block's input also works under gradient checkpointing: it lies outside the checkpointed region,
whereas an output read inside has no gradient in the reentrant form. (transformers' own `output_hidden_states` also
takes a list of layers, but its releases interpret the list differently, and some encoders ignore it.) An encoder may
still keep other layers until it returns, as DeBERTa keeps all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

# Encoders whose states come through (T, B, E), which the shape does not tell where B is T.
_TOKENS_FIRST = {"xlnet"}
# An attribute of encoders whose layers the hooks cannot read: those that call their blocks' `forward` themselves, as
# SqueezeBERT does, which no hook sees; that run a block twice, as some of ALBERT's do; whose blocks were exchanged
# after they got their hooks; or whose blocks see states in another form than the encoder returns.
_PAST_HOOKS = "_dlfa_past_hooks"
_running = threading.local()  # one run a thread: nn.DataParallel's replicas share their hooks


class EncoderStates(NamedTuple):
    """The states that an encoder returns for a fusion, (B, T, E) each."""

    last: Tensor  # last_hidden_state
    lowers: tuple[Tensor, ...]  # the lower layers, in the order asked for
    outputs: BaseModelOutput  # everything that the encoder returned


class _Run(NamedTuple):
    """What the hooks note of a run: inputs of the blocks asked for, and the numbers of all blocks as they ran."""

    inputs: dict[int, Tensor | None]
    order: list[int]

    def in_order(self) -> bool:
        """Whether the blocks ran once each, in the order of their numbers, so that these are those of the layers."""
        return self.order == list(range(len(self.order)))


class _KeepInput:
    """Forward pre-hook of block `layer`: keeps the block's input where the present run asks for it."""

    def __init__(self, layer: int) -> None:
        self.layer = layer

    def __call__(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        run = getattr(_running, "run", None)
        if run is None:
            return
        run.order.append(self.layer)
        if self.layer in run.inputs:
            run.inputs[self.layer] = args[0] if args else kwargs["hidden_states"]


def encoder_blocks(encoder: nn.Module, num_layers: int) -> nn.ModuleList | None:
    """Return the encoder's list of blocks: the ModuleList of `num_layers` entries nearest to the root.

    Return None if there is none, or if there are several at one depth (blocks that are shared or split into parts). The
    states then come from `output_hidden_states`.
    """
    lists = [
        (name.count("."), module)
        for name, module in encoder.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == num_layers
    ]
    nearest = min((depth for depth, _ in lists), default=0)
    candidates = [module for depth, module in lists if depth == nearest]
    return candidates[0] if len(candidates) == 1 else None


def keep_block_inputs(encoder: nn.Module, num_layers: int) -> bool:
    """Hook the encoder's blocks for `run_encoder`; return False if they are not found or their inputs are no layers."""
    if getattr(getattr(encoder, "config", None), "model_type", None) in _TOKENS_FIRST:
        return False
    blocks = encoder_blocks(encoder, num_layers)
    if blocks is None:
        return False
    for layer, block in enumerate(blocks):
        hooks = [hook for hook in block._forward_pre_hooks.values() if isinstance(hook, _KeepInput)]
        if hooks:
            hooks[0].layer = layer  # blocks before it may have been removed since
        else:
            block.register_forward_pre_hook(_KeepInput(layer), with_kwargs=True)
    return True


def run_encoder(encoder: PreTrainedModel, layers: Sequence[int], hooked: bool, **inputs: Any) -> EncoderStates:
    """Run `encoder` and return its last layer and the lower `layers`.

    Args:
        encoder: any transformers encoder.
        layers: the requested lower layers, 0..L-1, numbered as in `hidden_states`.
        hooked: the result of `keep_block_inputs` for this encoder.
        **inputs: the encoder's arguments.

    Raises:
        ValueError: a layer does not have the shape of the last one, as in encoders that pool tokens.
    """
    if not hooked or getattr(encoder, _PAST_HOOKS, False):
        return _from_output_hidden_states(encoder, layers, inputs)
    run = _Run(dict.fromkeys(layers), [])
    outer, _running.run = getattr(_running, "run", None), run
    try:
        outputs = encoder(**inputs, return_dict=True)
    finally:
        _running.run = outer
    last = outputs.last_hidden_state
    if layers and not (run.in_order() and all(_fits(run.inputs[layer], last) for layer in layers)):
        setattr(encoder, _PAST_HOOKS, True)
        return _from_output_hidden_states(encoder, layers, inputs)
    return EncoderStates(last, tuple(_fitting(layer, run.inputs[layer], last) for layer in layers), outputs)


def _from_output_hidden_states(
    encoder: PreTrainedModel, layers: Sequence[int], inputs: dict[str, Any]
) -> EncoderStates:
    wanted = inputs.pop("output_hidden_states", None)
    # True and not the list of layers, which releases of transformers read in different ways.
    outputs = encoder(**inputs, output_hidden_states=True, return_dict=True)
    last, states = outputs.last_hidden_state, outputs.hidden_states
    lowers = tuple(_fitting(layer, states[layer], last) for layer in layers)
    if not wanted:  # the caller asked for no such output, so the other layers are let go
        outputs = BaseModelOutput(last_hidden_state=last, attentions=getattr(outputs, "attentions", None))
    return EncoderStates(last, lowers, outputs)


def _fits(state: Tensor | None, last: Tensor) -> bool:
    """Whether `state` can be cut to the shape of `last`."""
    if state is None or state.dim() != 3:
        return False
    # Encoders whose attention works in windows pad the sequence on the right inside.
    return state[:, : last.shape[1]].shape == last.shape


def _fitting(layer: int, state: Tensor | None, last: Tensor) -> Tensor:
    """`state` in the shape and dtype of `last`."""
    if state is None or not _fits(state, last):
        got = "nothing" if state is None else f"shape {tuple(state.shape)}"
        raise ValueError(
            f"fusion_layer {layer} must have the last layer's shape, {tuple(last.shape)}, the encoder gave {got}"
        )
    return state[:, : last.shape[1]].to(last.dtype)
