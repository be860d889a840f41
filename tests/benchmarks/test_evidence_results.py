"""RESULTS.md and its pages from rows with known scores: figures, what is left out and why, pictures, and prose."""

import json
import random
import shutil

import pytest
from evidence_rows_made import made_row
from markdown_links import broken_links
from PIL import Image

from benchmarks.evidence.document import FOLDER, write_document
from benchmarks.evidence.group_evidence import gather
from benchmarks.evidence.groups import Ensemble, Group, planned_runs, variant
from benchmarks.evidence.overview import headline_table, layer_table, overview_table
from benchmarks.evidence.pictures import MOST_BYTES, shrink
from benchmarks.evidence.plan import PLAN
from benchmarks.evidence.rows import read_rows
from benchmarks.evidence.tables import choice_table, mode_table, variant_table
from benchmarks.hardware import ROOT
from benchmarks.readme_sections import EVIDENCE, replace_section
from dlfa.report.crossed_interval import crossed_interval
from dlfa.report.significance import t_interval
from dlfa.report.variants import Variant

LANGUAGES = ("en", "de", "es", "fi", "hi", "ru", "zh")
# Zero-shot scores by variant; development data would choose layer 1 in each mode, test data layer 2.
SCORES = {
    "last": 0.60, "lower-1": 0.63, "lower-2": 0.66, "scalar_mix": 0.64, "aif-select-1": 0.65, "aif-select-2": 0.68,
}  # fmt: skip
COLUMNS = ("single layer", "scalar mix", "sum", "residual", "AIF gate", "AIF select")
DEV = {"lower-1": 0.95, "aif-select-1": 0.96}
GROUP = Group(
    "pos", "Does it help?", "udpos", "frozen",
    (variant("last"), variant("lower", 1, 2), variant("scalar_mix"), variant("aif select", 1, 2)),
    (1, 2, 3), {"label_subword": "last", "squeeze_dim": 96, "learning_rate": 1e-3}, metric="accuracy",
)  # fmt: skip


def scores_of(run, languages=LANGUAGES):
    name = run.name.split("/")[1]
    draw = random.Random(run.name)
    base = SCORES.get(name, 0.62)
    spread = {code: 0.05 * number for number, code in enumerate(LANGUAGES[1:], -3)}
    spread["zh"] -= sum(spread.values())
    return {code: 0.93 if code == "en" else base + spread[code] + draw.uniform(-1e-3, 1e-3) for code in languages}


def rows_of(*groups):
    runs = planned_runs(groups)[0]
    return {
        run.name: made_row(
            run, scores_of(run), dev=DEV.get(run.name.split("/")[1], 0.9),
            seconds=20.0 if run.variant.mode.startswith("aif") else 10.0,
        )
        for run in runs
    }  # fmt: skip


def cells(table, first):
    return dict(zip(table.columns, next(row for row in table.rows if row[0] == first), strict=True))


def test_gains_over_last_and_best_single_layer():
    (table,) = gather(GROUP, (GROUP,), rows_of(GROUP)).comparables
    shown = variant_table(table)
    assert shown.columns[:5] == ("variant", "dev en, f1", "en", "zero-shot, accuracy", "zero-shot, f1")
    row = next(row for row in shown.rows if row[0] == "aif select 2")
    over_last, over_single = shown.columns.index("over last"), shown.columns.index("over lower 2")
    assert float(row[over_last]) == pytest.approx(8.0, abs=0.15)
    assert row[over_last + 3] == "< 0.001"
    assert row[over_last + 4] == "6/6"
    assert float(row[over_single]) == pytest.approx(2.0, abs=0.15)
    low, high = map(float, row[over_single + 1].strip("[]").split(","))
    assert 1.8 < low < 2.0 < high < 2.2
    assert row[over_single + 2] == "< 0.001"
    gain = table.gain(Variant("last"), Variant("lower", (1,)))
    assert (gain.up, gain.of) == (0, 6)
    assert [item.label for item in table.best(table.comparison.runs, 2)] == ["lower 2", "aif select 2"]


def test_the_last_layer_is_one_reference_though_it_is_the_best_single_one(monkeypatch):
    monkeypatch.setitem(SCORES, "last", 0.7)
    (table,) = gather(GROUP, (GROUP,), rows_of(GROUP)).comparables
    assert [column for column in variant_table(table).columns if column.startswith("over ")] == ["over last"]


def test_the_layer_is_chosen_on_development_data_beside_the_oracle():
    (table,) = gather(GROUP, (GROUP,), rows_of(GROUP)).comparables
    single, fused = (cells(choice_table(table), name) for name in ("single layer", "aif select"))
    assert (single["layer chosen on dev"], single["oracle: best by test average"]) == ("1", "2")
    assert (fused["layer chosen on dev"], fused["oracle: best by test average"]) == ("1", "2")
    assert float(fused["over the single layer chosen on dev"].split()[0]) == pytest.approx(2.0, abs=0.15)
    assert float(fused["over the best single layer"].split()[0]) == pytest.approx(2.0, abs=0.15)
    against = cells(mode_table(table), "aif select 1")
    assert float(against["over scalar_mix"].split()[0]) == pytest.approx(1.0, abs=0.15)
    assert float(against["over lower 1"].split()[0]) == pytest.approx(2.0, abs=0.15)


def test_without_a_development_score_of_every_layer_none_is_chosen():
    rows = {name: row | ({"dev": ""} if row["variant"] == "lower 2" else {}) for name, row in rows_of(GROUP).items()}
    (table,) = gather(GROUP, (GROUP,), rows).comparables
    single = cells(choice_table(table), "single layer")
    assert (single["layer chosen on dev"], single["oracle: best by test average"]) == ("no dev scores", "2")
    rows = {name: row | ({"dev": ""} if row["fusion"] == "scalar_mix" else {}) for name, row in rows_of(GROUP).items()}
    (row,) = overview_table([gather(GROUP, (GROUP,), rows)]).rows
    assert row[-3:] == ("-", "-", "-")


def test_which_layer_wins_by_development_data_and_by_test_data():
    table = layer_table([gather(GROUP, (GROUP,), rows_of(GROUP))])
    assert table.columns == ("group", "seeds", *COLUMNS)
    row = ("[pos](docs/evidence/pos.md)", "3", "1 (63.0) → 2 (66.0)", "-", "-", "-", "-", "1 (65.0) → 2 (68.0)")
    assert table.rows == (row,)


def test_few_languages_leave_the_seeds():
    few = ("en", "de", "zh")
    rows = {run.name: made_row(run, scores_of(run, few)) for run in planned_runs((GROUP,))[0]}
    (table,) = gather(GROUP, (GROUP,), rows).comparables
    gain = table.gain(Variant("scalar_mix"), Variant("last"))
    differences = []
    for seed in (1, 2, 3):
        mix, last = (json.loads(json.dumps(rows[f"pos/{name}/seed{seed}"])) for name in ("scalar_mix", "last"))
        differences.append(sum(float(mix[f"accuracy:{c}"]) - float(last[f"accuracy:{c}"]) for c in ("de", "zh")) / 2)
    mean = sum(differences) / 3
    deviation = (sum((value - mean) ** 2 for value in differences) / 2) ** 0.5
    assert gain.interval.high - gain.mean == pytest.approx(4.302653 * deviation / 3**0.5, rel=1e-4)


@pytest.mark.parametrize("count", [4, 5])
def test_from_five_languages_on_an_interval_is_over_them_too(count):
    few = LANGUAGES[: 1 + count]
    rows = {run.name: made_row(run, scores_of(run, few)) for run in planned_runs((GROUP,))[0]}
    (table,) = gather(GROUP, (GROUP,), rows).comparables
    differences = [
        [float(rows[f"pos/aif-select-1/seed{seed}"][f"accuracy:{code}"])
         - float(rows[f"pos/last/seed{seed}"][f"accuracy:{code}"]) for code in few[1:]]
        for seed in (1, 2, 3)
    ]  # fmt: skip
    expected = t_interval([sum(row) / count for row in differences]) if count < 5 else crossed_interval(differences)
    interval = table.gain(Variant("aif", (1,), "select"), Variant("last")).interval
    assert (interval.low, interval.high, interval.p) == pytest.approx((expected.low, expected.high, expected.p))


def test_a_language_without_a_difference_is_not_up():
    gains = {"en": 0.0, "de": 0.0, "es": 0.02, "fi": -0.01, "hi": 0.01, "ru": 0.0, "zh": 0.03}
    rows = {
        run.name: made_row(run, {code: 0.5 + gain * (run.variant.mode != "last") for code, gain in gains.items()})
        for run in planned_runs((GROUP,))[0]
    }
    (table,) = gather(GROUP, (GROUP,), rows).comparables
    gain = table.gain(Variant("scalar_mix"), Variant("last"))
    assert (gain.up, gain.of) == (3, 6)
    assert gain.mean == pytest.approx(0.05 / 6)


def test_what_does_not_belong_is_left_out_and_named():
    rows = rows_of(GROUP)
    del rows["pos/scalar_mix/seed2"]
    old = rows["pos/lower-1/seed1"]
    rows["pos/lower-1/seed1"] = {**old, "config": json.dumps({**json.loads(old["config"]), "learning_rate": 1e-2})}
    run = next(run for run in planned_runs((GROUP,))[0] if run.name == "pos/aif-select-1/seed3")
    rows[run.name] = made_row(run, scores_of(run, LANGUAGES[:-1]))
    evidence = gather(GROUP, (GROUP,), rows)
    notes = "\n".join(evidence.notes)
    assert "1 of 18 planned runs are not there: pos/scalar_mix (seed 2)" in notes
    assert "pos/lower-1/seed1 is left out: another protocol (learning_rate 0.01 instead of 0.001)" in notes
    assert "pos/aif-select-1/seed3 (aif select 1, seed 3): not evaluated on zh" in notes
    assert "a mean over unequal sets of languages is refused" in notes
    first = evidence.comparables[0]
    assert first.comparison.seeds == (1, 2, 3)
    assert {item.label for item in first.comparison.runs} == {"last", "lower 2", "aif select 2"}
    assert "scalar_mix is left out: seeds 1, 3, this comparison needs 1, 2, 3" in notes
    assert any("scalar_mix" in {item.label for item in table.comparison.runs} for table in evidence.comparables[1:])


@pytest.mark.parametrize("there", ["en,de", "en,de,zh"])
def test_other_languages_than_planned_are_another_protocol(there):
    group = Group(
        "few", "Does it help?", "udpos", "frozen", (variant("last"), variant("lower", 1)), (1,),
        {"languages": "en,de" if there == "en,de,zh" else "en,de,zh"}, metric="accuracy",
    )  # fmt: skip
    rows = {run.name: made_row(run, scores_of(run, there.split(","))) for run in planned_runs((group,))[0]}
    evidence = gather(group, (group,), rows)
    assert evidence.rows == ()
    told = f"languages {there} instead of {group.options['languages']}"
    assert [note for note in evidence.notes if told in note and "another protocol" in note] == list(evidence.notes)
    assert len(evidence.notes) == 2


def test_options_of_the_run_tell_variants_apart_and_other_groups_can_be_included():
    more = Group(
        "rates", "Which rate?", "udpos", "frozen",
        (variant("aif select", 2, head_learning_rate=1e-2), variant("last", intermediate=("sick",))),
        (1, 2, 3), GROUP.options, include=("pos/last/*", "pos/aif-select-2/*"), metric="accuracy",
    )  # fmt: skip
    (table,) = gather(more, (GROUP, more), rows_of(GROUP, more)).comparables
    labels = {item.label for item in table.comparison.runs}
    assert labels == {"last", "last, intermediate sick", "aif select 2", "aif select 2, head_learning_rate 0.01"}
    assert "over last" in variant_table(table).columns
    with pytest.raises(ValueError, match="no run of another group matches 'neg"):
        gather(Group(**{**more.__dict__, "include": ("neg/*",)}), (GROUP, more), rows_of(more))


HEADLINE = Group(
    "short", "Which mode?", "udpos", "frozen",
    (
        variant("last"), variant("lower", 1, 2), variant("sum", 1), variant("scalar_mix"),
        variant("residual", 1), variant("aif gate", 1, (2, 1)), variant("aif select", 1, 2),
    ),
    (1, 2), metric="accuracy", headline="Tags",
)  # fmt: skip


def test_headlines_stand_in_the_readme(tmp_path):
    rows = rows_of(HEADLINE, GROUP)
    table = headline_table([gather(group, (HEADLINE, GROUP), rows) for group in (HEADLINE, GROUP)])
    assert table.columns == ("", "last layer", *COLUMNS)
    row = ("60.0", "63.0 (1, of 3)", "64.0 (all)", "62.0 (1)", "62.0 (1)", "62.0 (2 tied, of 2)", "65.0 (1, of 2)")
    assert table.rows == (("Tags, accuracy, 2 seeds", *row),)
    assert headline_table([gather(GROUP, (GROUP,), rows)]) is None
    (tmp_path / "README.md").write_text("# A\n<!-- evidence:begin -->\nold\n<!-- evidence:end -->\nb\n")
    write_document(tmp_path, (HEADLINE,), [row for name, row in rows.items() if name.startswith("short/")])
    text = (tmp_path / "README.md").read_text()
    assert text == f"# A\n<!-- evidence:begin -->\n{table.markdown().strip()}\n<!-- evidence:end -->\nb\n"
    (tmp_path / "README.md").write_text("# A\n")
    with pytest.raises(ValueError, match="must have the line <!-- evidence:begin --> once"):
        write_document(tmp_path, (HEADLINE,), list(rows.values()))


def test_a_mode_that_was_not_run_has_no_cell_in_the_headlines():
    rows = {name: row for name, row in rows_of(HEADLINE).items() if row["fusion"] != "residual"}
    (row,) = headline_table([gather(HEADLINE, (HEADLINE,), rows)]).rows
    assert row[-3:] == ("-", "62.0 (2 tied, of 2)", "65.0 (1, of 2)")


def test_headlines_are_chosen_among_all_layers_that_were_run():
    """Not among those with all seeds alone, which may be there as they are known to do well."""
    members = (
        variant("last"), variant("lower", 2), variant("sum", 1), variant("scalar_mix"), variant("residual", 1),
        variant("aif gate", 1),
    )  # fmt: skip
    for seeds, shown in (((1, 2), "- (1, of 3)"), ((1, 2, 3), "63.0 (1, of 3)")):
        few = variant("lower", 1, seeds=seeds)  # what development data choose
        group = Group(
            "short", "Which mode?", "udpos", "frozen", (*members, variant("aif select", 1, 2), few), (1, 2, 3),
            metric="accuracy", headline="Tags",
        )  # fmt: skip
        (row,) = headline_table([gather(group, (group,), rows_of(group))]).rows
        assert row[:3] == ("Tags, accuracy, 3 seeds", "60.0", shown)


def test_layers_tied_by_development_data_are_told_as_a_range():
    rows = rows_of(HEADLINE)
    for name, row in rows.items():
        if row["fusion"] == "lower":
            rows[name] = row | {"dev": "0.99000"}
    (row,) = headline_table([gather(HEADLINE, (HEADLINE,), rows)]).rows
    assert row[2] == "63.0 to 66.0 (2 tied, of 3)"


def test_the_readmes_headlines_are_those_of_the_committed_runs():
    rows = {row["name"]: row for row in read_rows(ROOT / FOLDER / "runs.csv")}
    table = headline_table([gather(group, PLAN, rows) for group in PLAN if group.headline])
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert replace_section(text, EVIDENCE, table.markdown().strip() + "\n") == text


def test_the_committed_pages_are_those_of_the_plan():
    assert {path.stem for path in (ROOT / "docs/evidence").iterdir()} == {group.name for group in PLAN}


@pytest.mark.slow
def test_the_committed_documents_are_those_of_the_committed_runs(tmp_path):
    (tmp_path / FOLDER).mkdir(parents=True)
    for name in ("README.md", FOLDER / "findings.md", FOLDER / "branches.csv"):
        shutil.copy(ROOT / name, tmp_path / name)
    write_document(tmp_path, PLAN, read_rows(ROOT / FOLDER / "runs.csv"))
    pages = [path.relative_to(tmp_path) for path in (tmp_path / "docs/evidence").iterdir()]
    for name in ("README.md", "RESULTS.md", *pages):
        assert (tmp_path / name).read_text(encoding="utf-8") == (ROOT / name).read_text(encoding="utf-8")


def test_document_holds_tables_pictures_and_prose(tmp_path):
    ensemble = Group(
        "together", "Do several help?", "udpos", "full", (variant("last"), variant("aif gate", 1)), (1, 2),
        keep_models=True, ensembles=(Ensemble("seeds", ("last/seed1", "last/seed2")),),
    )  # fmt: skip
    plan = (GROUP, ensemble)
    rows = rows_of(*plan)
    member = rows["together/last/seed1"]
    changed = json.dumps({"members": ["together/last/seed1", "together/last/seed2"], "by": "vote"})
    rows["together/ensemble-seeds"] = {
        **member, "name": "together/ensemble-seeds", "fusion": "ensemble", "changed": changed,
        "steps": "", "config": "",
    }  # fmt: skip
    rows["gone/last/seed1"] = {**member, "name": "gone/last/seed1", "group": "gone"}
    folder = tmp_path / "benchmarks/results/evidence"
    folder.mkdir(parents=True)
    (folder / "findings.md").write_text(
        "For writers.\n\n## summary\n\nIt helps: {{score pos: lower 2}}.\n\n## pos\nLayer 2 | wins.\n"
    )
    text = write_document(tmp_path, plan, list(rows.values())).read_text()
    assert "It helps: 66.0." in text
    assert "For writers" not in text
    assert "| [pos](docs/evidence/pos.md) | Does it help? | 50 | 70 | 18/18 | 0.07 |" in text
    assert "| [pos](docs/evidence/pos.md) | udpos | frozen | 6 | 3 |" in text
    assert "1 runs of gone in runs.csv are not in the plan" in text
    assert "0 of 22 runs were made from files that differed" in text
    assert "Which layer wins" in text
    page, other = ((tmp_path / "docs/evidence" / name).read_text() for name in ("pos.md", "together.md"))
    assert "Layer 2 | wins." in page
    assert "- 18 of 18 runs, 0.07 hours: `python -m benchmarks.evidence --run 'pos/*'`" in page
    assert "squeeze_dim 96, learning_rate 0.001" in page
    for part in ("### Gains over last", "### Gains over lower 2", "| family |", "| script |", "| zh | Chinese |"):
        assert part in page
    assert "_Nothing has been written here yet (findings.md, `## together`)._" in other
    assert "| together/ensemble-seeds | udpos, f1 | last/seed1, last/seed2 | vote |" in other
    pictures = {path.name for path in (tmp_path / "docs/images/evidence").glob("*.png")}
    assert pictures == {"pos-layers.png", "pos-languages.png", "pos-languages-single.png", "together-languages.png"}
    for name in pictures:
        assert f"](../images/evidence/{name})" in (page if name.startswith("pos") else other)
        assert (tmp_path / "docs/images/evidence" / name).stat().st_size < MOST_BYTES
    (tmp_path / "docs/evidence/of-an-earlier-plan.md").write_text("")
    again = write_document(tmp_path, plan, list(rows.values())).read_text()
    assert again == text
    assert (tmp_path / "docs/evidence/pos.md").read_text() == page
    assert {path.name for path in (tmp_path / "docs/evidence").iterdir()} == {"pos.md", "together.md"}
    for path in (tmp_path / "RESULTS.md", *(tmp_path / "docs/evidence").glob("*.md")):
        assert [target for target in broken_links(path) if "results/evidence/runs.csv" not in target] == []


def test_prose_without_a_place_or_figure_is_refused(tmp_path):
    folder = tmp_path / "benchmarks/results/evidence"
    folder.mkdir(parents=True)
    rows = list(rows_of(GROUP).values())
    (folder / "findings.md").write_text("## poss\nWritten.\n")
    with pytest.raises(ValueError, match="no place for a section 'poss'; there are summary, "):
        write_document(tmp_path, (GROUP,), rows)
    (folder / "findings.md").write_text("## pos\na\n## pos\nb\n")
    with pytest.raises(ValueError, match="two sections 'pos'"):
        write_document(tmp_path, (GROUP,), rows)
    (folder / "findings.md").write_text("## pos\n{{score lower 9}}\n")
    with pytest.raises(ValueError, match="no variant 'lower 9' was run"):
        write_document(tmp_path, (GROUP,), rows)
    assert not (tmp_path / "RESULTS.md").exists()


def test_large_pictures_shrink(tmp_path):
    draw = random.Random(0)
    image = Image.new("RGB", (400, 300))
    image.putdata([(draw.randrange(256), draw.randrange(256), 0) for _ in range(400 * 300)])
    image.save(tmp_path / "noise.png")
    assert (tmp_path / "noise.png").stat().st_size > MOST_BYTES
    shrink(tmp_path / "noise.png")
    assert (tmp_path / "noise.png").stat().st_size < MOST_BYTES
    with Image.open(tmp_path / "noise.png") as small:
        assert small.size == (400, 300)
