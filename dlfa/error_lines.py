"""Errors of libraries, cut to the line that tells a user something."""

from __future__ import annotations

import os

from huggingface_hub.utils import HFValidationError, validate_repo_id


def why_not_found(name: str, error: Exception) -> str:
    """Why transformers, by `error`, finds nothing under `name`, a Hub id or directory, in words of the user's.

    The Hub's client tells of the syntax of its ids where a name that can be none names no directory either.
    """
    try:
        validate_repo_id(name)
    except HFValidationError:
        return first_line(error) if os.path.lexists(name) else "no such directory"
    return first_line(error)


def first_line(error: Exception) -> str:
    """The first line of an error's message; "" of one without a message."""
    return str(error).strip().split("\n")[0]
