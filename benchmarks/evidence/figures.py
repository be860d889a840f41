"""Figures in the hand-written text, computed from the runs, so that none can differ from the tables.

    {{gain GROUP: VARIANT; REFERENCE}}    +1.0 [+0.2, +1.8]: points, with the interval if there is one
    {{more GROUP: VARIANT; REFERENCE}}    +1.0: the same without the interval
    {{score GROUP: VARIANT}}              74.1: the zero-shot mean in percent
    {{dev GROUP: VARIANT}}                88.2: the score on English development data

Variants are written as in the tables ("aif gate 6+4", "lower 4", "last"). The seeds are the most that all of a figure's
variants share. In a group's own section `GROUP:` may be left out. All but `dev` take `; METRIC` at the end, where it is
another than the group's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from dlfa.report.findings import find
from dlfa.report.variants import Variant

from .comparisons import ComparableVariants
from .group_evidence import GroupEvidence

_FIGURE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_VARIANTS = {"gain": 2, "more": 2, "score": 1, "dev": 1}  # how many a figure names


def fill_figures(text: str, section: str, evidence: Mapping[str, GroupEvidence]) -> str:
    """Return `text` with each `{{...}}` replaced by its figure.

    Args:
        text: hand-written Markdown.
        section: its section, which may be a group's name.
        evidence: of every group, by name.

    Raises:
        ValueError: a figure of another form, of an unknown group, or of variants that no seeds have in common.
    """

    def figure(found: re.Match[str]) -> str:
        form = " ".join(found[1].split())
        try:
            return _figure(form, section, evidence)
        except ValueError as error:
            raise ValueError(f"findings.md, section {section!r}: {{{{{form}}}}}: {error}") from None

    return _FIGURE.sub(figure, text)


def _figure(form: str, section: str, evidence: Mapping[str, GroupEvidence]) -> str:
    kind, _, rest = form.partition(" ")
    if kind not in _VARIANTS:
        raise ValueError(f"needed one of {', '.join(_VARIANTS)}, got {kind!r}")
    before, colon, after = rest.partition(":")
    group, parts = (before, after) if colon else (section, rest)
    if group not in evidence:
        raise ValueError(f"needed a group and a colon before the variants, got {group!r} for the group")
    labels = [part.strip() for part in parts.split(";")]
    count = _VARIANTS[kind]
    metric = labels.pop() if len(labels) == count + 1 and kind != "dev" else None
    if len(labels) != count:
        raise ValueError(f"needed {count} of the variants, separated by ';', got {len(labels)}")
    comparable, variants = _with_variants(evidence[group], labels)
    if metric is not None:
        comparable = ComparableVariants(find(replace(comparable.comparison, metric=metric), resamples=0))
    if kind in ("gain", "more"):
        gain = comparable.gain(*variants)
        mean, interval = f"{round(100 * gain.mean, 1) + 0.0:+.1f}", gain.interval  # no "-0.0"
        if kind == "more" or interval is None:
            return mean
        return f"{mean} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
    score = comparable.score(*variants) if kind == "score" else comparable.dev(*variants)
    if score is None:
        raise ValueError("a run lacks its development score")
    return f"{100 * score:.1f}"


def _with_variants(evidence: GroupEvidence, labels: list[str]) -> tuple[ComparableVariants, list[Variant]]:
    """Return the comparison over the most seeds that has variants of all these labels, and the variants."""
    for comparable in evidence.comparables:
        by_label = {variant.label: variant for variant in comparable.comparison.runs}
        if set(labels) <= set(by_label):
            return comparable, [by_label[label] for label in labels]
    known = {variant.label for each in evidence.comparables for variant in each.comparison.runs}
    unknown = [label for label in labels if label not in known]
    told = f"no variant {unknown[0]!r} was run" if unknown else "no seeds were run with both"
    raise ValueError(f"{told}; there are {', '.join(sorted(known)) or 'none'}")
