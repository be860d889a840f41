"""`dlfa report` as a user meets it."""

import csv
import json
import struct

import pytest
from made_results import corrupted, make_run
from typer.testing import CliRunner

from dlfa.cli import app
from dlfa.data.examples import LabelledText, TaggedSentence
from dlfa.report.comparison import compare
from dlfa.report.document import report_files
from dlfa.report.runs import load_runs
from dlfa.tasks import TASKS

TAGS = ("NOUN", "VERB", "DET", "PUNCT")


def invoke(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep over layers and seeds on udpos, with gold labels, and two runs of sick without any."""
    root = tmp_path_factory.mktemp("sweep")
    sentence = TaggedSentence(("the", "dog", "barks", "."), ("DET", "NOUN", "VERB", "PUNCT"))
    data = {language: [sentence] * 12 for language in ("en", "de", "fr", "zh", "alphabet")}
    (root / "gold").mkdir()
    lines = "".join(f"{word}\t{tag}\n" for word, tag in zip(sentence.words, sentence.tags, strict=True)) + "\n"
    for language in data:
        (root / "gold" / f"test-{language}.tsv").write_text(lines * 12)
    runs, task = root / "runs", TASKS["udpos"]
    for seed in (1, 2):
        make_run(runs / f"last-{seed}", data, corrupted(task, 0.3), seed=seed, data_dir=root / "gold")
        for layer in (0, 1, 2, 3):
            for fuse in ("gate", "select"):
                make_run(
                    runs / f"{fuse}-{layer}-{seed}", data, corrupted(task, 0.3 - 0.05 * layer), seed=seed, fusion="aif",
                    fusion_layer=layer, fuse=fuse, data_dir=root / "gold", train={"best_dev": 0.5 + layer / 10},
                )  # fmt: skip
    pairs = {language: [LabelledText(("a", "b"), "neutral")] * 5 for language in ("en", "nl")}
    make_run(root / "sick" / "last", pairs, corrupted(TASKS["sick"], 0.4), task="sick")
    make_run(root / "sick" / "sum", pairs, corrupted(TASKS["sick"], 0.1), task="sick", fusion="sum", fusion_layer=3)
    unfinished = runs / "gate-4-1"
    unfinished.mkdir()
    (unfinished / "run.json").write_text("{}")
    return root


@pytest.fixture(scope="module")
def written(sweep):
    result = invoke(sweep / "runs", sweep / "sick", "--output", sweep / "report", "--resamples", 100)
    assert result.exit_code == 0, result.output
    return sweep / "report", result.stdout


def png_size(path):
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


def test_the_terminal_shows_scores_gains_and_what_is_left_out(written, sweep):
    _, output = written
    assert "udpos, tiny, seeds 1, 2" in output
    assert "aif select 3" in output
    assert "choice of layer" in output
    assert f"{sweep / 'runs' / 'gate-4-1'}: the run is not complete" in output.replace("\n", "")
    assert all(len(line) <= 120 for line in output.splitlines() if "│" in line or "─" in line)


def test_the_report_holds_every_part(written):
    folder, _ = written
    text = (folder / "report.md").read_text()
    for heading in (
        "## udpos, tiny, seeds 1, 2", "## sick, tiny, seed 1", "### Scores", "### Differences", "### Choice of layer",
        "### By language family", "### By script", "### By language", "### Training cost",
    ):  # fmt: skip
        assert f"\n{heading}\n" in text
    scores = json.loads((folder.parent / "sick" / "sum" / "results.json").read_text())
    assert f"| sum 3 | 90.0 | {100 * scores['languages']['en']['accuracy']:.1f} |" in text
    assert "| alphabet | alphabet | unknown | unknown | 12 |" in text
    assert "| code | language | family | script | examples | last |" in text
    assert "| --- | --- | --- | --- | ---: | ---: |" in text
    assert "paired bootstrap, 100 resamples" in text
    assert "run is not complete" in text


def test_every_picture_is_there_and_linked(written):
    folder, _ = written
    text = (folder / "report.md").read_text()
    pictures = sorted(folder.glob("*.png"))
    assert [path.name for path in pictures] == [
        "sick-tiny-differences.png", "sick-tiny-families.png", "sick-tiny-languages.png",  # one layer is no curve
        "udpos-tiny-differences.png", "udpos-tiny-families.png", "udpos-tiny-languages.png", "udpos-tiny-layers.png",
    ]  # fmt: skip
    for path in pictures:
        assert f"]({path.name})" in text
        width, height = png_size(path)
        assert width > 600
        assert height > 250


@pytest.mark.parametrize("name", ["report.md", "runs.csv", "sick-tiny-families.png"])
def test_files_of_others_are_replaced_only_when_asked(sweep, tmp_path, monkeypatch, name):
    (tmp_path / name).write_text("mine")
    with monkeypatch.context() as patch:
        patch.setattr("dlfa.report.findings.find", lambda *_, **__: pytest.fail("the bootstrap had begun"))
        result = invoke(sweep / "sick", "--output", tmp_path)
    assert result.exit_code == 2, result.output
    needs = f"--output {tmp_path} holds {name} already; give --overwrite to replace it, or another folder"
    assert result.stderr == f"dlfa: error: {needs}\n"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}
    for option in (["--overwrite"], []):  # then they are the report's own
        assert invoke(sweep / "sick", "--output", tmp_path, "--resamples", 0, *option).exit_code == 0
    assert (tmp_path / "report.md").read_text().startswith("# Results")


def test_the_files_of_a_report_are_known_before(written, sweep):
    folder, _ = written
    runs, *_ = load_runs([sweep / "runs", sweep / "sick"])
    assert {path.name for path in folder.iterdir()} <= set(report_files(compare(runs)))


def test_all_runs_are_in_the_csv(written):
    folder, _ = written
    rows = list(csv.DictReader((folder / "runs.csv").open()))
    assert len(rows) == 20
    row = next(row for row in rows if row["variant"] == "aif select 3" and row["seed"] == "2")
    scores = json.loads((folder.parent / "runs" / "select-3-2" / "results.json").read_text())
    assert float(row["average_zero_shot"]) == pytest.approx(scores["average_zero_shot"], abs=1e-6)
    assert float(row["zh"]) == pytest.approx(scores["languages"]["zh"]["f1"], abs=1e-6)
    assert row["nl"] == ""
    assert json.loads(row["protocol"]) == {"epochs": 1, "learning_rate": 2e-5, "processes": 1}


def test_without_gold_labels_the_rest_is_there(sweep):
    result = invoke(sweep / "sick", "--metric", "f1")
    assert result.exit_code == 0, result.output
    assert "no bootstrap over sentences" in result.stdout
    assert "sum 3" in result.stdout
    quiet = invoke(sweep / "sick", "--resamples", 0)
    assert "bootstrap" not in quiet.stdout


def test_a_bar_is_shown_on_a_terminal_alone_and_not_with_quiet(sweep):
    arguments = ["report", str(sweep / "runs"), "--resamples", "20"]
    piped = CliRunner().invoke(app, arguments)
    shown, quiet = (
        CliRunner(env={"FORCE_COLOR": "1", "TERM": "xterm"}).invoke(app, [*arguments, *more])
        for more in ([], ["--quiet"])
    )
    assert (piped.exit_code, shown.exit_code, quiet.exit_code) == (0, 0, 0)
    assert "bootstrap" in shown.stderr
    assert "100%" in shown.stderr
    assert shown.stdout == quiet.stdout
    assert (piped.stderr, quiet.stderr) == ("", "")


def test_ensembles_have_a_table(sweep, tmp_path):
    values = json.loads((sweep / "runs" / "gate-3-1" / "results.json").read_text())
    members = [{"run": name, "average_zero_shot": average} for name, average in (("gate-3-1", 0.5), ("gate-3-2", 0.6))]
    content = {**values, "seed": None, "average_zero_shot": 0.625, "ensemble": {"by": "vote", "runs": members}}
    (tmp_path / "pair").mkdir()
    (tmp_path / "pair" / "results.json").write_text(json.dumps(content))
    result = invoke(tmp_path / "pair", sweep / "runs", "--resamples", 0, "--output", tmp_path / "report")
    assert result.exit_code == 0, result.output
    row = "| gate-3-1, gate-3-2 | vote | 62.5 | 55.0 ± 7.1 | 60.0 | +7.5 | +2.5 |"
    assert row in (tmp_path / "report" / "report.md").read_text()
    assert "ensembles" in result.stdout
    assert len(list(csv.DictReader((tmp_path / "report" / "runs.csv").open()))) == 18


def test_runs_without_a_step_have_no_pace(tmp_path):
    pairs = {language: [LabelledText(("a", "b"), "neutral")] * 5 for language in ("en", "nl")}
    for name, fusion in (("last", {}), ("sum", {"fusion": "sum", "fusion_layer": 3})):
        make_run(
            tmp_path / name, pairs, corrupted(TASKS["sick"], 0.1), task="sick", train={"steps": 0, "seconds": 0.0},
            **fusion,
        )  # fmt: skip
    result = invoke(tmp_path, "--output", tmp_path / "report", "--resamples", 0)
    assert result.exit_code == 0, result.output
    (row,) = (line for line in result.stdout.splitlines() if line.split()[:1] == ["sum"])
    assert row.split()[-1] == "-"


@pytest.mark.parametrize("broken", ["summary_table", "choice_table", "ensemble_table"])
def test_what_goes_wrong_in_printing_is_one_line(sweep, monkeypatch, broken):
    def refuse(*_):
        raise ValueError("no such table")

    monkeypatch.setattr(f"dlfa.report.tables.{broken}", refuse)
    result = invoke(sweep / "runs", "--resamples", 0)
    assert (result.exit_code, result.stderr) == (2, "dlfa: error: no such table\n")


def test_another_baseline_and_other_languages(sweep):
    result = invoke(
        sweep / "runs", "--baseline", "aif gate 1", "--languages", "en,de", "--data-dir", sweep / "gold",
        "--resamples", 50,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    row = next(line for line in result.stdout.splitlines() if line.strip().startswith("aif gate 1 "))
    assert row.split()[-6:-1] == ["-"] * 5  # gain, both intervals, both p
    assert not any("bootstrap" in line for line in result.stdout.splitlines())


def test_it_is_said_why_there_is_nothing_to_compare(sweep):
    for runs, reason in (
        (["last-1"], "there are runs of last alone"),
        (["gate-1-1"], "there are runs of aif gate 1 alone"),
        (["gate-1-1", "gate-2-1"], "there is no run of the baseline"),
    ):
        result = invoke(*(sweep / "runs" / run for run in runs))
        assert result.exit_code == 0, result.output
        assert f"- no differences: {reason} with this protocol and these seeds" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "absent: no such file or directory"),
        (["{}", "--baseline", "lower 9"], "no run is 'lower 9'; there are last, aif gate 0"),
        (["{}", "--languages", "xx"], "no run was evaluated on 'xx'"),
        (["{}", "--languages", ","], "--languages must name at least one language"),
        (["{}", "--metric", "bleu"], "no results hold 'bleu'"),
        (["{}", "--compare", "colour"], "no run has a field 'colour'"),
        (["{}", "--data-dir", "sick=."], "there are no runs of task 'sick', but of udpos"),
        (["{}", "--data-dir", "nowhere"], "nowhere is no directory"),
    ],
)
def test_bad_input_is_one_line(sweep, arguments, message):
    result = invoke(*(argument.replace("{}", str(sweep / "runs")) for argument in arguments))
    assert result.exit_code == 2
    assert result.stderr.startswith("dlfa: error: ")
    assert len(result.stderr.splitlines()) == 1
    assert message in result.stderr


def test_a_malformed_file_is_one_line(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"task": "udpos", "metric": "f1", "languages": {"en": {"f1": "high"}}}')
    result = invoke(path)
    assert result.exit_code == 2
    assert f"{path}: field languages.en.f1 must be a fraction in 0..1, got 'high'" in result.stderr


def test_data_dir_needs_a_task_where_there_are_several(sweep):
    result = invoke(sweep / "runs", sweep / "sick", "--data-dir", sweep / "gold")
    assert result.exit_code == 2
    assert "--data-dir must be TASK=DIR where there are several tasks (sick, udpos)" in result.stderr


def test_an_output_that_cannot_be_written_is_told_before_the_work(sweep, tmp_path, monkeypatch):
    def bootstrap(*_, **__):
        raise AssertionError("the bootstrap began")

    monkeypatch.setattr("dlfa.report.findings.find", bootstrap)
    (tmp_path / "file").touch()
    for output, why in (
        (tmp_path / "file", "--output must be a directory, got a file: "),
        (tmp_path / "file" / "report", f"--output {tmp_path / 'file' / 'report'} cannot be written: Not a directory"),
    ):
        result = invoke(sweep / "runs", "--output", output)
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith(f"dlfa: error: {why}")
        assert result.stderr.count("\n") == 1
