"""Fingerprints of everything that determines hidden states: the encoder, the libraries and the token ids.

Data, tokenizer and maximum length affect hidden states only through the token ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from ..tasks import Feature

# Fields of a configuration that do not affect the hidden states.
_INCIDENTAL = ("_name_or_path", "transformers_version", "dtype", "id2label", "label2id", "architectures")


def weights_fingerprint(encoder: nn.Module) -> str:
    """Return the hexadecimal SHA-256 of the encoder's weights; it distinguishes encoders with the same name."""
    state = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def encoder_fingerprint(encoder: PreTrainedModel, weights: str, autocast: torch.dtype | None) -> str:
    """Return the hexadecimal SHA-256 of an encoder's configuration, its `weights_fingerprint` and its precision.

    It includes the versions of torch and transformers, because other versions may give other states.
    """
    values = {name: value for name, value in encoder.config.to_dict().items() if name not in _INCIDENTAL}
    libraries = [torch.__version__, transformers.__version__]
    about = [values, weights, encoder.config._attn_implementation, str(autocast), libraries]
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()


def sequences_fingerprint(features: Sequence[Feature]) -> str:
    """Return the hexadecimal SHA-256 of the token ids (and token types) of `features` in their order."""
    state = hashlib.sha256()
    for feature in features:
        for name in ("input_ids", "token_type_ids"):
            ids = np.asarray(feature.inputs.get(name, ()), dtype="<i8")
            state.update(len(ids).to_bytes(8, "little"))
            state.update(ids.data)
    return state.hexdigest()
