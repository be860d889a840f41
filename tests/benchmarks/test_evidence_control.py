"""What the gate adds to its parameters: AIF against its control, layer by layer, from rows with known scores."""

import pytest
from evidence_rows_made import made_row

from benchmarks.evidence.control import control_overview, control_table
from benchmarks.evidence.group_evidence import gather
from benchmarks.evidence.groups import Group, variant

SCORES = {"sum": 0.60, "residual": 0.70, "aif gate": 0.68, "aif select": 0.73}
COLUMNS = ("layers", "sum", "residual", "over the sum", "AIF gate", "over residual", "AIF select", "over residual")


def comparables(*variants, **options):
    group = Group("pos", "Gate?", "udpos", "frozen", (variant("last"), *variants), (1, 2), options, metric="accuracy")
    rows = {}
    for run in group.runs():
        score = SCORES.get(run.variant.mode, 0.5) + 0.01 * run.seed * (run.variant.mode == "aif gate")
        languages = {"en": 0.9, "de": score - 0.01, "zh": score + 0.01}
        rows[run.name] = made_row(run, languages)
    return gather(group, (group,), rows).comparables


def test_gains_are_those_over_the_same_layers():
    (found,) = comparables(
        variant("sum", 1),
        variant("residual", 1, 2, (2, 1)),
        variant("aif gate", 1, 3),
        variant("aif select", 1, (2, 1)),
    )
    table = control_table(found)
    assert table.columns == COLUMNS
    one, both = table.rows
    assert (one[0], both[0]) == ("1", "2+1")  # layer 2 was fused by the control alone
    assert one[1:3] == ("60.0", "70.0")
    assert one[3].startswith("+10.00")
    assert one[4] == "69.5"
    assert float(one[5].split()[0]) == pytest.approx(-0.5)
    low, high = map(float, one[5].partition(" ")[2].strip("[]").split(","))
    assert low < -0.5 < high
    assert one[6] == "73.0"
    assert one[7].startswith("+3.00")
    assert both[1] == both[3] == both[4] == both[5] == "-"
    assert both[7].startswith("+3.00")


def test_options_and_what_is_compared_go_with_the_layers():
    (found,) = comparables(
        *(
            variant(mode, 1, **changes)
            for mode in ("residual", "aif gate")
            for changes in ({}, {"learning_rate": 1e-2}, {"kernel_size": 3})
        ),
        variant("sum", 1),
        squeeze_dim=96,
    )
    rows = {row[0]: row for row in control_table(found).rows}
    assert set(rows) == {"1", "1, learning_rate 0.01", "1, kernel_size 3"}
    assert rows["1, learning_rate 0.01"][1] == "-"
    assert rows["1"][1] == rows["1, kernel_size 3"][1] == "60.0"  # the sum has no kernel
    assert all(row[4] == "69.5" for row in rows.values())


def test_without_the_control_there_is_no_table():
    assert control_table(*comparables(variant("sum", 1), variant("aif gate", 1))) is None
    assert control_table(*comparables(variant("sum", 1), variant("residual", 1))) is None
    assert control_overview([("pos", *comparables(variant("aif gate", 1)))]) is None


def test_the_overview_names_the_groups():
    (found,) = comparables(variant("residual", 1, 2), variant("aif gate", 1, 2))
    table = control_overview([("a", found), ("b", found)])
    assert table.columns == ("group", "seeds", *COLUMNS)
    assert [row[:3] for row in table.rows] == [("a", "2", "1"), ("a", "2", "2"), ("b", "2", "1"), ("b", "2", "2")]
