"""Checked access to the fields of JSON files."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Fields:
    """Fields of a JSON object in a file; an invalid field raises ValueError with file and field.

    Attributes:
        path: path of the file.
        values: the object.
        prefix: prefix of its fields' names if it is nested in the file, such as "config.".
    """

    path: Path
    values: Mapping[str, Any]
    prefix: str = ""

    def error(self, name: str, needed: str, got: object) -> ValueError:
        """Return the error for a field that holds `got` instead of what is needed."""
        return ValueError(f"{self.path}: field {self.prefix}{name} must be {needed}, got {got!r}")

    def missing(self, name: str) -> ValueError:
        """Return the error for a missing field."""
        return ValueError(f"{self.path}: field {self.prefix}{name} is missing")

    def text(self, name: str, default: Any = dataclasses.MISSING) -> Any:
        """Return a non-empty string; `default`, if given, replaces a missing or null field.

        Raises:
            ValueError: a value of another type, or a missing field without a default.
        """
        value = self.values.get(name)
        if value is None and default is not dataclasses.MISSING:
            return default
        if name not in self.values:
            raise self.missing(name)
        if not isinstance(value, str) or not value:
            raise self.error(name, "a text", value)
        return value

    def mapping(self, name: str, default: Any = dataclasses.MISSING) -> dict[str, Any]:
        """Return an object; `default`, if given, replaces a missing field.

        Raises:
            ValueError: a value of another type, or a missing field without a default.
        """
        value = self.values.get(name, default)
        if value is dataclasses.MISSING:
            raise self.missing(name)
        if not isinstance(value, dict):
            raise self.error(name, "an object", value)
        return value

    def number(self, name: str, value: object) -> float:
        """Return `value` as a finite non-negative number.

        Raises:
            ValueError: it is not one.
        """
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise self.error(name, "a number that is not negative", value)
        return float(value)

    def fraction(self, name: str, value: object) -> float:
        """Return `value` as a number in 0..1.

        Raises:
            ValueError: it is not one.
        """
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise self.error(name, "a fraction in 0..1", value)
        return float(value)

    def count(self, name: str, value: object) -> int | None:
        """Return `value`, which must be a non-negative integer or None.

        Raises:
            ValueError: it is neither.
        """
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise self.error(name, "a whole number that is not negative", value)
        return value
