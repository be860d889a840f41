"""Runs of a plan on a small random encoder: made, kept, gone on with, recorded as failed, repeated, collected."""

import contextlib
import dataclasses
import json
import random
import signal
import subprocess
import sys
import time

import pytest
import typer
from typer.testing import CliRunner

import dlfa.training.recorded_runs
from benchmarks.evidence import branches, runner, shared_inputs
from benchmarks.evidence import command as evidence_command
from benchmarks.evidence.directories import claim, read_record, state_of
from benchmarks.evidence.groups import Ensemble, Group, Places, planned_runs, variant
from benchmarks.evidence.machine import hardware
from benchmarks.evidence.rows import collect, config_of, merged, read_rows, row_of, write_rows
from benchmarks.evidence.runner import make_ensembles, make_runs
from benchmarks.hardware import source_commit
from benchmarks.workbench import TAGS, make_encoder
from dlfa.training.train import train

OPTIONS = {
    "learning_rate": 1e-2, "epochs": 1, "batch_size": 8, "gradient_accumulation": 1, "max_length": 32,
    "max_train_examples": 16, "squeeze_dim": 16,
}  # fmt: skip


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """An encoder of 2 layers, and udpos data in en, de and fr."""
    folder = tmp_path_factory.mktemp("sources")
    make_encoder(folder / "encoder", 2, 32)
    draw = random.Random(0)
    (folder / "data" / "udpos").mkdir(parents=True)
    for name, count in (("train-en", 24), ("dev-en", 6), ("test-en", 6), ("test-de", 6), ("test-fr", 6)):
        words = [[draw.randrange(50) for _ in range(draw.randint(3, 6))] for _ in range(count)]
        text = "\n".join("".join(f"w{word}\t{TAGS[word % 4]}\n" for word in sentence) for sentence in words)
        (folder / "data" / "udpos" / f"{name}.tsv").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def places(sources, tmp_path):
    return Places(str(sources / "encoder"), sources / "data", tmp_path / "runs", sources / "cache")


def group(*variants, **changes):
    values = {"name": "tiny", "question": "?", "task": "udpos", "regime": "frozen", "options": OPTIONS}
    return Group(variants=variants, **{**values, **changes})


SMALL = group(variant("last"), variant("aif select", 1, (1, 0)))


def states(plan, places):
    return {run.name.partition("/")[2]: state_of(run, places.output_dir) for run in planned_runs(plan)[0]}


class CountedBranches(branches.OverTheLowerLayer):
    calls = 0

    def forward(self, *args, **options):
        CountedBranches.calls += 1
        return super().forward(*args, **options)


def test_altered_branches_are_run_once(places, monkeypatch):
    both = dataclasses.replace(branches.ALTERED["both"], layers=1)
    monkeypatch.setattr(branches, "ALTERED", {"both": both, "alone": branches.Altered("", CountedBranches, 1)})
    monkeypatch.setattr(branches, "_GROUPS", {"POS": group(variant("last"), metric="accuracy")})
    rows = branches.make_rows(places)
    assert [(row["altered"], row["seed"], row["metric"]) for row in rows] == [
        ("both", "1", "accuracy"), ("alone", "1", "accuracy"), ("both", "2", "accuracy"), ("alone", "2", "accuracy"),
    ]  # fmt: skip
    calls = CountedBranches.calls
    assert calls > 0
    assert branches.make_rows(places) == rows
    assert CountedBranches.calls == calls
    made = json.loads((places.output_dir / "tiny/both/seed2/results.json").read_text())
    assert float(rows[2]["average_zero_shot"]) == made["averages"]["accuracy"]["zero_shot"]


def test_runs_are_what_train_makes_and_are_made_once(places, tmp_path):
    lines = []
    runs = planned_runs((SMALL,))[0]
    assert make_runs(runs, places, lines.append) == {"done": 3}
    assert [line.partition(":")[0] for line in lines] == [
        "[1/3] tiny/last/seed1", "[2/3] tiny/aif-select-1/seed1", "[3/3] tiny/aif-select-1-0/seed1",
    ]  # fmt: skip
    path = places.output_dir / "tiny/aif-select-1/seed1"
    alone = train(runs[1].config(Places(places.model, places.data, tmp_path / "alone", places.states_cache)))
    results = json.loads((path / "results.json").read_text())
    assert results["languages"] == alone["languages"]
    assert not (path / "model.safetensors").exists()
    before = (path / "results.json").stat().st_mtime_ns
    assert make_runs(runs, places, lines.append) == {"done": 3}
    assert len(lines) == 3
    assert (path / "results.json").stat().st_mtime_ns == before
    attempt = read_record(path)["attempts"][0]
    assert attempt["train_examples"] == 16
    assert attempt["seconds"] > 0
    assert attempt["commit"] == source_commit()
    changed = (group(*SMALL.variants, options={**OPTIONS, "epochs": 2}),)
    assert set(states(changed, places).values()) == {"other protocol"}
    make_runs(planned_runs(changed, ["*/last/*"])[0], places, lines.append)
    assert "epochs 1 instead of 2" in lines[-1]
    assert (path / "results.json").stat().st_mtime_ns == before


def test_failed_run_is_recorded_and_tried_again(places):
    plan = (group(variant("last"), variant("lower", 9, 1)),)
    lines = []
    assert make_runs(planned_runs(plan)[0], places, lines.append) == {"done": 2, "failed": 1}
    assert "failed: ValueError: fusion_layer must be in 0..1" in lines[1]
    assert states(plan, places) == {"last/seed1": "done", "lower-9/seed1": "failed", "lower-1/seed1": "done"}
    assert "Traceback" in (places.output_dir / "tiny/lower-9/seed1/error.txt").read_text()
    assert make_runs(planned_runs(plan)[0], places, lines.append)["failed"] == 1
    assert len(lines) == 4
    assert len(collect(places.output_dir)) == 2


def test_interrupted_run_goes_on(places, monkeypatch):
    plan, original = (group(variant("last")),), dlfa.training.recorded_runs.fit

    def stop(prepared, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr(dlfa.training.recorded_runs, "fit", stop)
    with pytest.raises(KeyboardInterrupt):
        make_runs(planned_runs(plan)[0], places, print)
    assert states(plan, places) == {"last/seed1": "interrupted"}
    assert collect(places.output_dir) == []
    monkeypatch.setattr(dlfa.training.recorded_runs, "fit", original)
    assert make_runs(planned_runs(plan)[0], places, print) == {"done": 1}
    attempts = read_record(places.output_dir / "tiny/last/seed1")["attempts"]
    assert [attempt["seconds"] is None for attempt in attempts] == [True, False]
    assert collect(places.output_dir)[0]["total_seconds"] == ""


def test_claim_of_a_living_process_holds_and_that_of_a_dead_one_does_not(places):
    plan = (group(variant("last")),)
    path = places.output_dir / "tiny/last/seed1"
    code = (
        "import sys, time; from pathlib import Path; from benchmarks.evidence.directories import claim\n"
        "with claim(Path(sys.argv[1])) as mine: print(mine, flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, cwd=evidence_command.ROOT)
    try:
        assert other.stdout.readline() == b"True\n"
        assert states(plan, places) == {"last/seed1": "running"}
        lines = []
        make_runs(planned_runs(plan)[0], places, lines.append)
        assert lines == ["[1/1] tiny/last/seed1: another process is making it"]
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert states(plan, places) == {"last/seed1": "to do"}
    with claim(path) as mine:
        assert mine


def test_rows_tell_everything_and_make_the_run_again(places, tmp_path):
    plan = (group(variant("aif select", (1, 0), head_learning_rate=2e-2), variant("last")),)
    run = planned_runs(plan)[0][0]
    make_runs([run], places, print)
    rows = collect(places.output_dir)
    write_rows(tmp_path / "runs.csv", rows)
    row = read_rows(tmp_path / "runs.csv")[0]
    assert row == rows[0]
    results = json.loads((places.output_dir / run.name / "results.json").read_text())
    assert float(row["accuracy:de"]) == pytest.approx(results["languages"]["de"]["accuracy"], abs=1e-5)
    assert float(row["average_zero_shot"]) == pytest.approx(results["average_zero_shot"], abs=1e-5)
    assert float(row["dev"]) == pytest.approx(results["train"]["best_dev"], abs=1e-5)
    steps, seconds = (results["train"][name] for name in ("steps", "seconds"))
    assert (row["steps"], float(row["train_seconds"])) == (str(steps), seconds)
    assert float(row["seconds_per_step"]) == pytest.approx(seconds / steps, abs=1e-4)
    assert (row["group"], row["regime"], row["seed"], row["layers"]) == ("tiny", "frozen", "1", "1+0")
    assert (row["train_examples"], row["eval_examples"], row["backend"]) == ("16", "18", "eager")
    assert row["hardware"] == hardware()
    assert str(places.output_dir) not in str(row)
    assert str(places.data) not in str(row)
    planned = run.config(places).with_presets().to_json()
    assert {**config_of(row, places).to_json(), "languages": None} == planned
    newer = {**row, "dev": "0.5"}
    assert merged(rows, [newer, {**row, "name": "a"}]) == [{**row, "name": "a"}, newer]


def test_ensembles_wait_for_their_runs(places):
    plan = (
        group(
            variant("last"), seeds=(1, 2), keep_models=True,
            ensembles=(Ensemble("seeds", ("last/seed1", "last/seed2")),),
        ),
    )  # fmt: skip
    runs, ensembles = planned_runs(plan)
    lines = []
    make_runs(runs[:1], places, lines.append)
    assert make_ensembles(ensembles, places, lines.append) == {"to do": 1}
    assert lines[-1] == "tiny/ensemble-seeds waits for the models of tiny/last/seed2"
    make_runs(runs, places, lines.append)
    assert make_ensembles(ensembles, places, lines.append) == {"done": 1}
    row = row_of(places.output_dir / "tiny/ensemble-seeds")
    assert json.loads(row["changed"])["members"] == ["tiny/last/seed1", "tiny/last/seed2"]
    assert float(row["accuracy:fr"]) > 0
    assert len(collect(places.output_dir)) == 3


@pytest.fixture
def command(monkeypatch):
    app = typer.Typer()
    app.command()(evidence_command.main)
    monkeypatch.setattr(evidence_command, "PLAN", (SMALL,))
    return lambda *arguments: CliRunner().invoke(app, list(map(str, arguments)))


def test_commands_make_list_collect_write_and_repeat(places, command, tmp_path, monkeypatch):
    where = ("--output-dir", places.output_dir, "--root", tmp_path)
    sources = ("--model", places.model, "--data", places.data, "--states-cache", places.states_cache)
    done = command("--run", "tiny/last/*", "--run", "*select-1/*", *where, *sources)
    assert done.exit_code == 0, done.output
    assert "2 done" in done.stdout
    listed = command("--list", *where)
    assert "done            tiny/last/seed1" in listed.stdout
    assert "to do           tiny/aif-select-1-0/seed1" in listed.stdout
    assert "tiny: 2 done, 1 to do" in listed.stdout
    written = command("--collect", "--write", *where)
    assert written.exit_code == 0, written.output
    assert "| 2/3 |" in (tmp_path / "RESULTS.md").read_text()
    assert "2 of 3 runs" in (tmp_path / "docs/evidence/tiny.md").read_text()
    again = command("--rerun", "tiny/aif-select-1/seed1", *where, *sources)
    assert again.exit_code == 0, again.output
    scores = [line for line in again.stdout.splitlines() if line.lstrip().startswith(("dev", "average", "accuracy:"))]
    assert len(scores) == 6
    assert all(line.rstrip().endswith("+0.000") for line in scores)
    monkeypatch.setattr(runner, "claim", lambda _: contextlib.nullcontext(False))
    refused = command("--rerun", "tiny/aif-select-1/seed1", *where, *sources)
    assert refused.exit_code == 1
    assert "another process is repeating tiny/aif-select-1/seed1" in refused.stderr
    assert command("--collect", *where).stdout.rstrip().endswith(f"2 runs, 2 of them from {places.output_dir}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to do: give --list"),
        (("--run", "tiny/*"), "--model and --data must be given"),
        (("--run", "tiny/*", "--model", "m", "--data", "nowhere"), "nowhere is no directory"),
        (("--run", "other/*", "--model", "m", "--data", "."), "no run's name matches 'other/*'; groups are tiny"),
        (("--rerun", "tiny/none", "--model", "m", "--data", "."), "no finished run is named 'tiny/none'"),
        (("--list", "--threads", "0"), "--threads must be at least 1, got 0"),
        (("--write",), "there are no runs to write about"),
    ],
)
def test_bad_input_is_one_line(arguments, message, command, tmp_path):
    result = command(*arguments, "--root", tmp_path, "--output-dir", tmp_path / "runs")
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_runs_that_share_data_and_encoder_read_them_once(places, monkeypatch):
    loads, load = [], shared_inputs.load_shared_inputs

    def counted(*arguments):
        loads.append(time.monotonic())
        return load(*arguments)

    monkeypatch.setattr(shared_inputs, "load_shared_inputs", counted)
    plan = (group(variant("last"), variant("lower", 0, 1), variant("last", label_subword="last")),)
    assert make_runs(planned_runs(plan)[0], places, print) == {"done": 4}
    assert len(loads) == 2
