"""Reduce errors of libraries to the line that is useful to a user."""

from __future__ import annotations

import os

from huggingface_hub.utils import HFValidationError, validate_repo_id


def why_not_found(name: str, error: Exception) -> str:
    """Return a readable reason why transformers found nothing under `name`, a Hub id or directory, from its `error`.

    If `name` cannot be either, it is "no such directory" instead of the Hub client's message on the syntax of ids.
    """
    try:
        validate_repo_id(name)
    except HFValidationError:
        return first_line(error) if os.path.lexists(name) else "no such directory"
    return first_line(error)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message; "" without a message."""
    return str(error).strip().split("\n")[0]
