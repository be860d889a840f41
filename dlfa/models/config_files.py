"""Reading config.json; a damaged file raises an error like any other bad input."""

from __future__ import annotations

import os
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig

# What transformers runs into, beside its own errors, where a configuration's values are of other types than it expects.
MISFITS = (AttributeError, KeyError, StrictDataclassError)


def check_no_file(source: str | os.PathLike[str]) -> None:
    """Raise OSError if `source`, which should be a Hub id or a directory, is a file.

    transformers takes a file for one of those that it looks for in a directory.
    """
    if os.path.isfile(source):
        raise OSError("it is a file, not a directory")


def load_config(source: str | os.PathLike[str], **options: Any) -> PreTrainedConfig:
    """Load the configuration of the model `source`.

    Args:
        source: a Hub id or a directory.
        **options: options of `AutoConfig.from_pretrained`: those of the Hub, and fields that override the file's.

    Raises:
        ValueError: a field has an invalid type or form for the model's family, or the family is unknown.
        OSError: there is no such configuration, or `source` is a file.
    """
    check_no_file(source)
    try:
        return AutoConfig.from_pretrained(source, **options)
    except MISFITS as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"config.json of {source} cannot be used: {reason}") from error
