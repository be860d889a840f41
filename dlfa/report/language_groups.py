"""The sets of languages that scores are averaged over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..tasks.language_families import by_family, language
from .comparison import Comparison

AVERAGE, LANGUAGE, FAMILY, SCRIPT = "average", "language", "family", "script"


@dataclass(frozen=True)
class LanguageGroup:
    """A group of languages; `kind` is one of the four constants above."""

    kind: str
    name: str
    languages: tuple[str, ...]

    @property
    def label(self) -> str:
        """Return the name, with the number of languages for families and scripts."""
        return f"{self.name} ({len(self.languages)})" if self.kind in (FAMILY, SCRIPT) else self.name


def zero_shot_group(comparison: Comparison) -> LanguageGroup:
    """Return all languages except the training language, or all if it is the only one."""
    if not comparison.zero_shot:
        return all_group(comparison)
    return LanguageGroup(AVERAGE, "zero-shot", comparison.zero_shot)


def all_group(comparison: Comparison) -> LanguageGroup:
    """Return all languages."""
    return LanguageGroup(AVERAGE, "all", comparison.languages)


def average_groups(comparison: Comparison) -> list[LanguageGroup]:
    """Return the zero-shot average, and the average over all languages if it differs."""
    main, every = zero_shot_group(comparison), all_group(comparison)
    return [main] if main.languages == every.languages else [main, every]


def language_group(code: str) -> LanguageGroup:
    """Return the group of one language."""
    return LanguageGroup(LANGUAGE, code, (code,))


def family_groups(comparison: Comparison) -> list[LanguageGroup]:
    """Return the families of the zero-shot languages, the largest first."""
    return _grouped(FAMILY, ((language(code).family, code) for code in comparison.zero_shot))


def script_groups(comparison: Comparison) -> list[LanguageGroup]:
    """Return the scripts of the zero-shot languages, the largest first."""
    return _grouped(SCRIPT, ((language(code).script, code) for code in comparison.zero_shot))


def groups_of(comparison: Comparison) -> list[LanguageGroup]:
    """Return all groups: averages, languages sorted by family, families, scripts."""
    singles = [language_group(code) for code in sorted(comparison.languages, key=by_family)]
    return [*average_groups(comparison), *singles, *family_groups(comparison), *script_groups(comparison)]


def _grouped(kind: str, named: Iterable[tuple[str, str]]) -> list[LanguageGroup]:
    members: dict[str, list[str]] = {}
    for name, code in sorted(named):
        members.setdefault(name, []).append(code)
    order = sorted(members, key=lambda name: (-len(members[name]), name))
    return [LanguageGroup(kind, name, tuple(members[name])) for name in order]
