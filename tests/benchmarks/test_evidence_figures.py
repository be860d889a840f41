"""Figures in the hand-written text are computed from the runs."""

import pytest
from evidence_rows_made import made_row

from benchmarks.evidence.figures import fill_figures
from benchmarks.evidence.group_evidence import gather
from benchmarks.evidence.groups import Group, planned_runs, variant

# Zero-shot accuracy by variant and language.
SCORES = {"last": (0.50, 0.60), "lower-4": (0.60, 0.75), "aif-gate-4": (0.61, 0.80)}
PLAN = (
    Group("pos", "?", "udpos", "frozen", (variant("last"), variant("lower", 4)), (1, 2), metric="accuracy"),
    Group("few", "?", "udpos", "frozen", (variant("last"), variant("aif gate", 4)), (1,), metric="accuracy"),
)


@pytest.fixture(scope="module")
def evidence():
    rows = {}
    for run in planned_runs(PLAN)[0]:
        (de, zh), seed = SCORES[run.name.split("/")[1]], 0.001 * run.seed
        lower = "lower" in run.name
        rows[run.name] = made_row(run, {"en": 0.9, "de": de + seed * lower, "zh": zh + 3 * seed * lower}, dev=0.876)
    return {group.name: gather(group, PLAN, rows) for group in PLAN}


def test_each_kind_of_figure(evidence):
    # lower 4 over last: de 10.1 and 10.2, zh 15.3 and 15.6; their means by seed 12.7 and 12.9 with t(1) = 12.706
    text = "{{gain pos: lower 4; last}}; {{more pos: lower 4; last}}; {{score pos: last}} of {{dev pos: last}}"
    assert fill_figures(text, "summary", evidence) == "+12.8 [+11.5, +14.1]; +12.8; 55.0 of 87.6"


def test_a_groups_section_needs_no_group_and_lines_may_break(evidence):
    assert fill_figures("{{score\n  last}} | {{more aif gate\n4; last}}", "few", evidence) == "55.0 | +15.5"


def test_one_seed_of_two_languages_has_no_interval(evidence):
    assert fill_figures("{{gain aif gate 4; last}}", "few", evidence) == "+15.5"


def test_another_metric(evidence):
    assert (
        fill_figures("{{score last; f1}}, {{gain lower 4; last; f1}}", "pos", evidence) == "45.0, +12.8 [+11.5, +14.1]"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{mean pos: last}}", "needed one of gain, more, score, dev, got 'mean'"),
        ("{{score last}}", "needed a group and a colon before the variants, got 'summary'"),
        ("{{score poss: last}}", "got 'poss' for the group"),
        ("{{gain pos: last}}", "needed 2 of the variants, separated by ';', got 1"),
        ("{{dev pos: last; f1}}", "needed 1 of the variants, separated by ';', got 2"),
        ("{{score pos: lower 5}}", "no variant 'lower 5' was run; there are last, lower 4"),
        ("{{score pos: last; bleu}}", "bleu"),
    ],
)
def test_a_figure_that_the_runs_do_not_give_is_refused(evidence, text, message):
    with pytest.raises(ValueError, match="section 'summary'") as error:
        fill_figures(text, "summary", evidence)
    assert text in str(error.value)
    assert message in str(error.value)
