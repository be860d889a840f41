"""Loading models with the check that no weight is missing.

transformers initialises missing weights at random and only warns; the commands switch such warnings off.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError

from ..error_lines import first_line


def load_whole(
    model_class: Any, source: str | os.PathLike[str], *, unused: tuple[str, ...] = (), **options: Any
) -> Any:
    """Call `model_class.from_pretrained(source, **options)` and require that `source` holds every parameter.

    Buffers may be missing, since an encoder computes its own.

    Args:
        model_class: a model class or an Auto class.
        source: a directory or a Hub id.
        unused: modules whose parameters may be missing too.
        **options: options of `from_pretrained`. With `ignore_mismatched_sizes=True`, parameters whose shape differs are
            initialised anew, as in transformers.

    Raises:
        ValueError: parameters are missing from the weights, or their shapes differ from config.json.
        OSError: there is no such model, its weights are damaged or may not be read, its configuration holds a name that
            transformers does not know, or a package that it needs is not installed.
    """
    ignored = options.pop("ignore_mismatched_sizes", False)
    for file in sorted(Path(source).glob("*.safetensors")):
        if not os.access(file, os.R_OK):  # safetensors would call it missing
            raise OSError(f"its weights cannot be read: no permission to read {file}")
    try:
        # Sizes are compared below: transformers' own error does not name the parameter.
        model, report = model_class.from_pretrained(
            source, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    except (SafetensorError, RuntimeError) as error:
        raise OSError(f"its weights cannot be read: {first_line(error)}") from error
    except (UnpicklingError, EOFError, IndexError) as error:  # whose messages are for programmers
        raise OSError("its weights cannot be read: the file is damaged, or holds more than tensors") from error
    except KeyError as error:  # such as an activation function
        raise OSError(f"{first_line(error)} is unknown to transformers, or missing in its files") from error
    except ImportError as error:  # such as that of a quantization
        raise OSError(first_line(error)) from error
    wrong = sorted(report["mismatched_keys"])
    if wrong and not ignored:
        name, found, needed = wrong[0]
        raise ValueError(
            f"the weights in {source} hold {name} in shape {tuple(found)}{_and_more(wrong)}, config.json asks for "
            f"{tuple(needed)}"
        )
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    absent = parameters & set(report["missing_keys"])
    missing = [name for name in sorted(absent) if name.split(".")[0] not in unused]
    if missing:
        strange = sorted(report["unexpected_keys"]) if absent == parameters else []  # none but those of other names
        instead = f"; they hold {strange[0]}{_and_more(strange)}" if strange else ""
        raise ValueError(
            f"the weights in {source} lack {missing[0]}{_and_more(missing)} of a {type(model).__name__}{instead}"
        )
    return model


def _and_more(names: Iterable[Any]) -> str:
    more = len(list(names)) - 1
    return f" and {more} more" if more else ""
