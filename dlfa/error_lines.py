"""Errors of libraries, cut to the line that tells a user something."""

from __future__ import annotations


def first_line(error: Exception) -> str:
    """The first line of an error's message; "" of one without a message."""
    return str(error).strip().split("\n")[0]
