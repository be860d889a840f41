"""Reading config.json, a damaged one being bad input as any other."""

from __future__ import annotations

import os
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig

# What transformers runs into, beside its own errors, where a configuration's values are of other types than it expects.
MISFITS = (AttributeError, KeyError, StrictDataclassError)


def load_config(source: str | os.PathLike[str], **options: Any) -> PreTrainedConfig:
    """The configuration of the model `source`, a Hub id or directory.

    Args:
        source: where it is.
        **options: of `AutoConfig.from_pretrained`: those of the Hub, and values of fields in place of the file's.

    Raises:
        ValueError: a field of another type or form than the model's family has, or an unknown family.
        OSError: there is no such configuration.
    """
    try:
        return AutoConfig.from_pretrained(source, **options)
    except MISFITS as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"config.json of {source} cannot be used: {reason}") from error
