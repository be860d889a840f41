"""Ensembles: what several members decide, against counting by hand, and the command from end to end."""

import dataclasses
import gc
import json
import shutil
import weakref
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tiny_tasks import make_encoder
from typer.testing import CliRunner

from dlfa.cli import app
from dlfa.evaluation.ensemble import EnsembleConfig, run_ensemble, together
from dlfa.evaluation.saved_runs import load_run
from dlfa.runs.run_config import RunConfig
from dlfa.tasks import get_task
from dlfa.tasks.loading import read_split
from dlfa.tasks.question_answering import Span
from dlfa.training.train import train


@pytest.fixture(scope="module")
def runs(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    encoder = make_encoder(folder / "encoder")
    for seed in (1, 2, 3):
        config = RunConfig(
            task="udpos", model=str(encoder), output_dir=folder / f"run{seed}", data_dir=data_dir, seed=seed,
            model_options={"fusion_layer": 1}, learning_rate=1e-2, epochs=1, batch_size=4, gradient_accumulation=1,
            max_length=32, max_train_examples=24, freeze_encoder=True, states_cache=folder / "cache",
        )  # fmt: skip
        train(config)
    return [folder / f"run{seed}" for seed in (1, 2, 3)]


def log(values):
    return np.log(np.array(values, dtype=np.float32))


def test_mean_probability_and_votes_by_hand():
    # Two members lean to class 0, the third is sure of class 1.
    members = [[log([[0.55, 0.40, 0.05]])], [log([[0.60, 0.35, 0.05]])], [log([[0.05, 0.90, 0.05]])]]
    assert np.exp(together(members, vote=False)[0]) == pytest.approx(np.array([[0.4, 0.55, 0.05]]), rel=1e-5)
    assert together(members, vote=True)[0].argmax() == 0
    # A tie of votes goes to the higher mean probability.
    tie = [[log([0.6, 0.3, 0.1])], [log([0.05, 0.9, 0.05])]]
    assert together(tie, vote=True)[0] == pytest.approx(np.array([1 + 0.325 / 2, 1 + 0.6 / 2, 0.075 / 2]))


def test_answers_are_chosen_by_the_sum_of_their_shares():
    members = [
        [[Span(5.0, 0, 3), Span(4.9, 10, 12)]],
        [[Span(9.0, 20, 21), Span(8.9, 10, 12)]],
        [[]],
    ]
    best = together(members, vote=False)[0][0]
    assert (best.start, best.stop) == (10, 12)
    share = 1 / (1 + np.exp(0.1))
    assert best.score == pytest.approx(2 * share / 3, rel=1e-6)
    voted = together(members, vote=True)[0][0]
    assert voted.start in (0, 20)
    assert voted.score == pytest.approx(1 + (1 - share) / 3 / 2, rel=1e-6)


def test_votes_of_saved_runs_are_the_majority_of_their_predictions(runs, data_dir, tmp_path):
    results = run_ensemble(EnsembleConfig(tuple(runs), tmp_path / "out", data_dir, vote=True))
    members = [(run / "predictions" / "test-de.tsv").read_text().split("\n") for run in runs]
    decided = (tmp_path / "out" / "predictions" / "test-de.tsv").read_text().split("\n")
    gold = "\n\n".join("\n".join(e.tags) for e in read_split(get_task("udpos"), data_dir, "test", "de")).split("\n")
    right = clear = 0
    for tags, tag, true in zip(zip(*members, strict=True), decided, [*gold, "", ""], strict=True):
        top, count = Counter(tags).most_common(1)[0]
        if count > 1:
            clear += 1
            assert tag == top
        right += bool(tag) and tag == true
    assert clear > 20
    words = sum(bool(tag) for tag in decided)
    assert results["languages"]["de"]["accuracy"] == pytest.approx(right / words)
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == results
    assert results["ensemble"]["by"] == "vote"
    for member, run in zip(results["ensemble"]["runs"], runs, strict=True):
        assert member["average"] == json.loads((run / "results.json").read_text())["average"]
    assert (results["fusion_layer"], results["seed"], results["task"]) == (1, None, "udpos")


def test_the_precision_is_that_of_all_runs(runs, data_dir, tmp_path):
    members = []
    for run in runs[:2]:
        members.append(shutil.copytree(run, tmp_path / run.name))
        told = json.loads((run / "run.json").read_text())
        told["config"]["bf16"] = True
        (members[-1] / "run.json").write_text(json.dumps(told))
    for number, (several, dtype) in enumerate(
        ((members, "bfloat16"), (runs[:2], "float32"), ((members[0], runs[1]), None))
    ):
        config = EnsembleConfig(tuple(several), tmp_path / str(number), data_dir, languages=("de",))
        environment = run_ensemble(config)["environment"]
        assert environment["dtype"] == dtype
        assert (environment["device"], environment["backend"]) == ("cpu", "eager")


def test_members_of_one_name_are_told_apart_by_their_folders(runs, data_dir, tmp_path, monkeypatch):
    members = [shutil.copytree(run, tmp_path / folder / "aif") for run, folder in zip(runs, "xy", strict=False)]
    monkeypatch.chdir(members[0])
    for number, (given, names) in enumerate(
        (
            (("../../x/aif", "../../y/aif"), ["x/aif", "y/aif"]),
            ((".", "../../y/aif"), ["x/aif", "y/aif"]),
            ((".", runs[2]), ["aif", "run3"]),
        )
    ):
        config = EnsembleConfig(tuple(map(Path, given)), tmp_path / str(number), data_dir, languages=("de",))
        assert [run["run"] for run in run_ensemble(config)["ensemble"]["runs"]] == names
        assert json.loads((tmp_path / str(number) / "ensemble.json").read_text())["runs"] == names


def test_the_model_is_named_as_the_runs_named_it(runs, data_dir, tmp_path):
    members = [shutil.copytree(run, tmp_path / run.name) for run in runs[:2]]
    for member in members:  # as seen from where the encoder's path leads nowhere
        told = json.loads((member / "run.json").read_text())
        told["config"]["model"] = "there/encoder"
        (member / "run.json").write_text(json.dumps(told))
    results = run_ensemble(EnsembleConfig(tuple(members), tmp_path / "out", data_dir, languages=("de",)))
    assert [results["model"], *(member["model"] for member in results["ensemble"]["runs"])] == ["encoder"] * 3


def test_command_averages_and_prints(runs, data_dir, tmp_path):
    arguments = ["ensemble", *map(str, runs[:2]), "--data-dir", str(data_dir), "--output-dir", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*arguments, "--languages", "de,fr", "--quiet"])
    assert result.exit_code == 0, result.output
    assert "average, zero-shot" in result.stdout
    assert "ensemble of 2 runs" in result.stdout
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results["languages"]) == {"de", "fr"}
    assert (tmp_path / "out" / "languages.png").exists()
    for command in ("evaluate", "analyze"):
        alone = CliRunner().invoke(app, [command, str(tmp_path / "out")])
        assert (alone.exit_code, alone.stdout) == (2, "")
        assert "holds an ensemble, which has no model of its own; give one of its runs" in alone.stderr
    again = CliRunner().invoke(app, [*arguments, "--quiet"])
    assert again.exit_code == 2
    assert "holds results; give --overwrite" in again.stderr
    assert len(again.stderr.strip().split("\n")) == 1


def test_bad_ensembles_are_refused(runs, data_dir, tmp_path):
    with pytest.raises(ValueError, match="at least two runs, none of them twice"):
        EnsembleConfig((runs[0], runs[0].parent / "." / ".." / runs[0].parent.name / runs[0].name), tmp_path / "out")
    with pytest.raises(ValueError, match="holds a run or a model"):
        run_ensemble(EnsembleConfig(tuple(runs), runs[0], data_dir))
    with pytest.raises(ValueError, match=r"has no run\.json"):
        run_ensemble(EnsembleConfig((runs[0], tmp_path), tmp_path / "out", data_dir))
    other = tmp_path / "other"
    other.mkdir()
    run = json.loads((runs[0] / "run.json").read_text())
    run["config"]["task"] = "panx"
    (other / "run.json").write_text(json.dumps(run))
    with pytest.raises(ValueError, match="no model in"):
        run_ensemble(EnsembleConfig((runs[0], other), tmp_path / "out", data_dir))
    (other / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="of one task, got panx, udpos"):
        run_ensemble(EnsembleConfig((runs[0], other), tmp_path / "out", data_dir))


def test_files_of_others_stay(runs, data_dir, tmp_path):
    out = tmp_path / "out"
    for name in (
        "README.md",
        "training.json",
        "tokenizer.json",
        "model.safetensors",
        "checkpoints/a",
        "predictions/my",
    ):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    before = sorted(out.rglob("*"))
    config = EnsembleConfig(tuple(runs[:2]), out, data_dir, languages=("de", "fr"))
    run_ensemble(config)
    results = {out / "ensemble.json", out / "results.json", out / "languages.png"}
    assert set(out.rglob("*")) == {
        *before,
        *results,
        *((out / "predictions" / f"test-{code}.tsv") for code in ("de", "fr")),
    }
    run_ensemble(dataclasses.replace(config, languages=("fr",)), overwrite=True)
    assert set(out.rglob("*")) == {*before, *results, out / "predictions" / "test-fr.tsv"}


def test_one_model_alone_is_in_memory(runs, data_dir, tmp_path, monkeypatch):
    import dlfa.evaluation.ensemble as ensemble

    loaded = []

    def load(path):
        gc.collect()
        assert all(model() is None for model in loaded)
        run = load_run(path)
        loaded.append(weakref.ref(run.model))
        return run

    monkeypatch.setattr(ensemble, "load_run", load)
    run_ensemble(EnsembleConfig(tuple(runs), tmp_path / "out", data_dir, languages=("de",)))
    assert len(loaded) == len(runs)


def test_an_ensemble_that_was_killed_while_it_wrote_is_made_again(runs, data_dir, tmp_path, monkeypatch):
    import dlfa.evaluation.ensemble as ensemble

    def killed(*_):
        raise KeyboardInterrupt

    config = EnsembleConfig(tuple(runs[:2]), tmp_path / "out", data_dir, languages=("de",))
    monkeypatch.setattr(ensemble, "bar_chart", killed)
    with pytest.raises(KeyboardInterrupt):
        run_ensemble(config)
    assert (config.output_dir / "predictions" / "test-de.tsv").exists()
    monkeypatch.undo()
    results = run_ensemble(config)
    assert results == json.loads((config.output_dir / "results.json").read_text())
    with pytest.raises(ValueError, match="holds results; give --overwrite"):
        run_ensemble(config)


@pytest.mark.parametrize("name", ["ensemble.json", "results.json", "languages.png", "predictions/test-de.tsv"])
def test_results_of_something_else_are_refused(runs, data_dir, tmp_path, name):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text('{"mine": 1}')
    with pytest.raises(ValueError, match=f"holds {name} of something else"):
        run_ensemble(EnsembleConfig(tuple(runs[:2]), tmp_path / "out", data_dir), overwrite=True)
    assert path.read_text() == '{"mine": 1}'


def test_a_sweeps_directory_is_no_ensembles(runs, data_dir, tmp_path):
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds a sweep \(sweep.json\)"):
        run_ensemble(EnsembleConfig(tuple(runs[:2]), tmp_path, data_dir), overwrite=True)


def test_languages_are_those_of_all_runs_and_0_takes_all_examples(runs, data_dir, tmp_path):
    members = []
    for run, languages in zip(runs, (["de", "en"], ["fr", "de"]), strict=False):
        member = tmp_path / run.name
        shutil.copytree(run, member)
        told = json.loads((member / "run.json").read_text())
        told["config"] |= {"languages": languages, "max_eval_examples": 3}
        (member / "run.json").write_text(json.dumps(told))
        members.append(member)
    for number, size in ((0, 10), (None, 3)):
        config = EnsembleConfig(tuple(members), tmp_path / str(size), data_dir, max_eval_examples=number)
        languages = run_ensemble(config)["languages"]
        assert {language: values["examples"] for language, values in languages.items()} == {"de": size}
    with pytest.raises(ValueError, match="max_eval_examples must not be negative, got -1"):
        dataclasses.replace(config, max_eval_examples=-1)
