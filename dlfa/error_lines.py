"""Errors of libraries, cut to the line that tells a user something."""

from __future__ import annotations


def first_line(error: Exception) -> str:
    """The first line of an error's message; "" of one without a message."""
    return str(error).strip().split("\n")[0]


def no_encoder(name: str, error: Exception) -> ValueError:
    """What to raise where transformers, by `error`, finds no encoder `name`, a Hub id or directory."""
    return ValueError(f"no encoder can be loaded from {name!r}: {first_line(error)}")
