"""Loading and checking the tokenizer of an encoder."""

from __future__ import annotations

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..error_lines import first_line, why_not_found
from .config_files import MISFITS, check_no_file, load_config


def load_tokenizer(name: str, max_length: int) -> PreTrainedTokenizerBase:
    """Load the tokenizer of `name`, a Hub id or directory.

    Raises:
        ValueError: there is no tokenizer, it is not a fast one, or it does not allow `max_length` tokens.
    """
    try:
        check_no_file(name)
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"no tokenizer can be loaded from {name!r}: {why_not_found(name, error)}") from error
    except (*MISFITS, TypeError) as error:
        load_config(name)  # a tokenizer is chosen by the configuration: raises where that is at fault
        raise ValueError(
            f"no tokenizer can be loaded from {name!r}: its files cannot be used: {first_line(error)}"
        ) from error
    if not tokenizer.is_fast:
        raise ValueError(f"the tokenizer of {name!r} is no fast one (tokenizers library), which words need")
    if max_length > tokenizer.model_max_length:
        raise ValueError(f"max_length must be at most {tokenizer.model_max_length} for {name!r}, got {max_length}")
    return tokenizer
