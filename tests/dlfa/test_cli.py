"""The command line as a user meets it: train, evaluate, predict, and one line for every mistake."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import load_file, save_file
from tiny_tasks import make_udpos, sentences
from transformers import BartConfig, BartModel
from typer.testing import CliRunner

from dlfa.cli import app
from dlfa.commands.options import run_fields
from dlfa.commands.saved_runs import show_results
from dlfa.models.configuration import CLASSIFIER_POOLINGS, LABEL_SUBWORDS
from dlfa.models.fusion_names import FUSIONS
from dlfa.runs.run_config import STATES_DTYPES
from dlfa.sweep.config import MODES
from dlfa_kernels import __version__
from dlfa_kernels.checks import ACTIVATIONS, FUSE_MODES

ROOT = Path(__file__).resolve().parents[2]


def invoke(*arguments, stdin=None):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def train_arguments(encoder, data_dir, out, *more):
    return (
        "train", "--task", "udpos", "--model", encoder, "--data-dir", data_dir, "--output-dir", out,
        "--fusion-layer", 1, "--learning-rate", 0.01, "--epochs", 2, "--batch-size", 4,
        "--gradient-accumulation", 1, "--max-length", 32, "--quiet", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(encoder, data_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    result = invoke(*train_arguments(encoder, data_dir, out, "--label-subword", "last"))
    assert result.exit_code == 0, result.output
    return out, result


def test_train_prints_the_table(run):
    out, result = run
    scores = json.loads((out / "results.json").read_text())
    assert scores["label_subword"] == "last"
    for language in ("de", "en (training)", "fr", "average, zero-shot"):
        assert f"│ {language} " in result.stdout
    assert f"{100 * scores['average_zero_shot']:.1f}" in result.stdout


def test_evaluate_repeats_the_runs_figures(run, data_dir, tmp_path):
    out, _ = run
    result = invoke(
        "evaluate", out, "--data-dir", data_dir, "--task", "udpos", "--output", tmp_path / "again.json",
        "--predictions", tmp_path / "predictions", "--quiet",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    trained, again = json.loads((out / "results.json").read_text()), json.loads((tmp_path / "again.json").read_text())
    for key in (
        "languages",
        "average",
        "average_zero_shot",
        "metric",
        "fusion_layer",
        "label_subword",
        "seed",
        "model",
    ):
        assert again[key] == trained[key]
    for language in ("de", "en", "fr"):
        name = f"test-{language}.tsv"
        assert (tmp_path / "predictions" / name).read_bytes() == (out / "predictions" / name).read_bytes()


def test_evaluation_tells_how_the_model_was_trained(run, tmp_path):
    out, _ = run
    trained = json.loads((out / "results.json").read_text())
    for name, more, changed in (("same", (), {}), ("fewer", ("--max-eval-examples", 2), {"max_eval_examples": 2})):
        result = invoke("evaluate", out, "--output", tmp_path / name, "--quiet", *more)
        assert result.exit_code == 0, result.output
        told = json.loads((tmp_path / name).read_text())
        assert told["config"] == trained["config"] | changed
        assert told["encoder_sha256"] == trained["encoder_sha256"]


def test_evaluation_names_the_model_as_the_run_did(run, encoder, tmp_path, monkeypatch):
    out = shutil.copytree(run[0], tmp_path / "run")
    told = json.loads((out / "run.json").read_text())
    told["config"]["model"] = f"{encoder.parent.name}/{encoder.name}"  # as from the directory above
    (out / "run.json").write_text(json.dumps(told))
    for place in (encoder.parent.parent, tmp_path):
        monkeypatch.chdir(place)
        assert invoke("evaluate", out, "--languages", "de", "--output", tmp_path / "de.json", "--quiet").exit_code == 0
        assert json.loads((tmp_path / "de.json").read_text())["model"] == encoder.name


def test_evaluate_takes_the_languages_and_the_subset_of_the_run(encoder, data_dir, tmp_path):
    out, path = tmp_path / "run", tmp_path / "again.json"
    subset = ("--languages", "de", "--max-eval-examples", 3)
    result = invoke(*train_arguments(encoder, data_dir, out, *subset, "--epochs", 1))
    assert result.exit_code == 0, result.output
    assert invoke("evaluate", out, "--output", path, "--quiet").exit_code == 0
    trained = json.loads((out / "results.json").read_text())
    assert json.loads(path.read_text())["languages"] == trained["languages"]
    assert trained["languages"]["de"]["examples"] == 3
    assert invoke("evaluate", out, "--max-eval-examples", 0, "--output", path, "--quiet").exit_code == 0
    assert json.loads(path.read_text())["languages"]["de"]["examples"] == 10


def test_the_first_of_all_processes_alone_prints_the_table(run, monkeypatch, capsys):
    results = json.loads((run[0] / "results.json").read_text())
    monkeypatch.setenv("LOCAL_RANK", "0")
    for rank, printed in (("8", False), ("0", True)):  # the first of a second machine
        monkeypatch.setenv("RANK", rank)
        show_results(results)
        assert ("zero-shot" in capsys.readouterr().out) is printed


def test_evaluate_knows_task_and_data_of_the_run(run, tmp_path):
    out, _ = run
    result = invoke("evaluate", out, "--split", "dev", "--output", tmp_path / "dev.json", "--quiet")
    assert result.exit_code == 0, result.output
    dev = json.loads((tmp_path / "dev.json").read_text())
    best = json.loads((out / "results.json").read_text())["train"]["best_dev"]
    assert list(dev["languages"]) == ["en"]
    assert dev["split"] == "dev"
    assert dev["languages"]["en"]["f1"] == pytest.approx(best)


def test_evaluate_takes_languages_and_subsets(run, tmp_path):
    out, _ = run
    options = ("--languages", "fr", "--max-eval-examples", 4, "--output", tmp_path / "fr.json", "--quiet")
    assert invoke("evaluate", out, *options).exit_code == 0
    assert json.loads((tmp_path / "fr.json").read_text())["languages"].keys() == {"fr"}
    assert json.loads((tmp_path / "fr.json").read_text())["languages"]["fr"]["examples"] == 4


@pytest.mark.parametrize("via", ["file", "stdin", "tokens"])
def test_predict_tags_text_and_tokens(run, tmp_path, via):
    out, _ = run
    tagged = sentences("en", 5, 3)
    separator, between = ("\n", "\n\n") if via == "tokens" else (" ", "\n")
    text = between.join(separator.join(word for word, _ in sentence) for sentence in tagged) + "\n"
    (tmp_path / "input.txt").write_text(text)
    if via == "stdin":
        done = subprocess.run(
            [sys.executable, "-m", "dlfa", "predict", str(out), "--input", "-"],
            input=text, capture_output=True, text=True, cwd=ROOT, check=True,
        )  # fmt: skip
        output = done.stdout
    else:
        target = tmp_path / "output.tsv"
        assert invoke("predict", out, "--input", tmp_path / "input.txt", "--output", target).exit_code == 0
        output = target.read_text()
    blocks = output.strip("\n").split("\n\n")
    words = [[line.split("\t")[0] for line in block.split("\n")] for block in blocks]
    assert words == [[word for word, _ in sentence] for sentence in tagged]
    # The same tags as the run wrote for these sentences, which are the first of test-en.
    tags = [[line.split("\t")[1] for line in block.split("\n")] for block in blocks]
    written = (out / "predictions" / "test-en.tsv").read_text().split("\n\n")[:5]
    assert tags == [block.split("\n") for block in written]


def test_predict_reads_what_is_left_of_standard_input_and_writes_utf8(run, tmp_path):
    out, _ = run
    (tmp_path / "input.txt").write_text("read already\nder Hund läuft\n", encoding="utf-8")
    with (tmp_path / "input.txt").open("rb", buffering=0) as file:
        file.seek(len("read already\n"))
        done = subprocess.run(
            [sys.executable, "-m", "dlfa", "predict", str(out), "--input", "-"],
            stdin=file, capture_output=True, cwd=ROOT, check=True, env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        )  # fmt: skip
    words = [line.split("\t")[0] for line in done.stdout.decode("utf-8").strip().split("\n")]
    assert words == ["der", "Hund", "läuft"]


def test_output_that_cannot_be_written_is_one_line(run, tmp_path):
    out, _ = run
    (tmp_path / "input.txt").write_text("der Hund\n")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dlfa", "predict", str(out), "--input", str(tmp_path / "input.txt")],
            stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "dlfa: error: [Errno 28] No space left on device\n")


@pytest.mark.parametrize(("command", "status"), [("tasks", 2), ("report", 2), ("--help", 1)])
def test_a_table_that_cannot_be_written_is_one_line(run, command, status):
    words = [command, str(run[0])] if command == "report" else [command]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dlfa", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            check=False,
        )
    assert (done.returncode, done.stderr) == (status, "dlfa: error: [Errno 28] No space left on device\n")


def test_a_terminal_that_lacks_a_character_costs_no_results(run):
    done = subprocess.run(
        [sys.executable, "-m", "dlfa", "report", str(run[0])],
        capture_output=True, cwd=ROOT, check=False, env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"mean ? deviation over seeds" in done.stdout


@pytest.mark.parametrize(
    ("closed", "command", "status", "said"),
    [
        ("1", ["tasks"], 0, ""),
        ("1", ["predict", "RUN", "--input", "-"], 2, "dlfa: error: standard output is closed; give --output\n"),
        ("0", ["predict", "RUN", "--input", "-"], 2, "dlfa: error: /dev/stdin: cannot be read: it is closed\n"),
    ],
)
def test_closed_streams(run, closed, command, status, said):
    words = [str(run[0]) if word == "RUN" else word for word in command]
    script = f'exec {closed}>&-; exec "$@"'
    shell = ["bash", "-c", script, "bash", sys.executable, "-m", "dlfa", *words]
    done = subprocess.run(shell, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (status, said)


def test_quickstart_is_wired(monkeypatch, tmp_path):
    seen = []
    module = pytest.importorskip("dlfa.quickstart")
    monkeypatch.setattr(module, "run", lambda *args, **options: seen.append((args, options)), raising=False)
    result = invoke("quickstart", "--output-dir", tmp_path / "q", "--seed", 3, "--overwrite")
    assert result.exit_code == 0, result.output
    assert seen == [((tmp_path / "q", 3), {"overwrite": True})]


def test_tasks_are_listed():
    result = invoke("tasks")
    assert result.exit_code == 0
    assert "udpos" in result.stdout
    assert "33: af ar bg" in result.stdout


def test_version_is_the_packages():
    result = invoke("--version")
    assert (result.exit_code, result.stdout) == (0, f"dlfa {__version__}\n")


def test_help_comes_without_heavy_imports():
    code = (
        "import sys; from dlfa.cli import app; from typer.testing import CliRunner; "
        "assert CliRunner().invoke(app, ['train', '--help']).exit_code == 0; "
        "assert CliRunner().invoke(app, ['tasks']).exit_code == 0; "
        "heavy = {'torch', 'transformers', 'datasets', 'matplotlib', 'sklearn'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_names_every_choice():
    """Also of the constants that stand beside torch or transformers, which the help does not import."""
    commands = typer.main.get_command(app).commands
    options = {option.name: option for name in ("train", "sweep") for option in commands[name].params}
    choices = {
        "fusion": FUSIONS, "fuse": FUSE_MODES, "activation": ACTIVATIONS, "label_subword": LABEL_SUBWORDS,
        "classifier_pooling": CLASSIFIER_POOLINGS, "states_dtype": STATES_DTYPES,
    }  # fmt: skip
    assert {name: options[name].metavar for name in choices} == {
        name: f"<{'|'.join(values)}>" for name, values in choices.items()
    }
    assert options["modes"].help.startswith(f"Fusions: {', '.join(MODES)}; ")


# Mistakes: status 2 and one line.


def one_line_error(result):
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.strip().split("\n")
    assert len(lines) == 1, lines
    assert lines[0].startswith("dlfa: error: ")
    return lines[0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--fusion-layer", "7"), "fusion_layer must be in 0..1"),
        (("--fusion-layer", "six"), "--fusion-layer must be an integer, several as 4,6, or none, got 'six'"),
        (("--task", "pos"), "unknown task 'pos'; valid are udpos"),
        (("--languages", "en,xx"), "language 'xx' is not in"),
        (("--languages", " ,"), "--languages must name at least one language"),
        (("--fuse", "no-such"), f"fuse must be one of {', '.join(map(repr, FUSE_MODES))}, got 'no-such'"),
        (("--fusion", "no-such"), "fusion must be one of"),
        (("--label-subword", "no-such"), f"label_subword must be one of {', '.join(map(repr, LABEL_SUBWORDS))}"),
        (("--epochs", "0"), "epochs must be a positive number, got 0.0"),
        (("--fusion", "scalar_mix", "--layer-dropout", "1"), "layer_dropout must be in [0, 1), got 1.0"),
        (("--overwrite", "--resume"), "--overwrite and --resume cannot be given together"),
        (
            ("--reduction", "4", "--squeeze-dim", "16"),
            "--reduction and --squeeze-dim cannot be given together, got 4 and 16",
        ),
        (("--data-dir", "nowhere"), "nowhere: no such folder"),
        (("--model", "/nowhere"), "no tokenizer can be loaded from '/nowhere': no such directory"),
        (("--model", __file__), f"no tokenizer can be loaded from '{__file__}': it is a file, not a directory"),
        (("--output-dir", "/dev/null/x"), "--output-dir /dev/null/x cannot be made: Not a directory"),
    ],
)
def test_bad_training_arguments(encoder, data_dir, tmp_path, more, message):
    assert message in one_line_error(invoke(*train_arguments(encoder, data_dir, tmp_path / "out", *more)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--fusion", "sum", "--fuse", "gate"), "--fuse needs the fusion aif, got sum"),
        (("--fusion-layer", "none", "--gate-bias", 1), "--gate-bias needs the fusion aif, got last"),
        (("--fusion", "lower", "--kernel-size", 3), "--kernel-size needs the fusion aif or residual, got lower"),
        (("--layer-dropout", 0.1), "--layer-dropout needs the fusion scalar_mix, got aif"),
        (("--scalar-mix-layer-norm",), "--scalar-mix-layer-norm needs the fusion scalar_mix, got aif"),
        (("--fusion", "sum", "--squeeze-dim", 16), "--squeeze-dim needs the fusion aif or residual, got sum"),
        (("--fusion", "last"), "--fusion-layer must be none for --fusion last, got 1"),
        (("--task", "xnli", "--label-subword", "last"), "--label-subword is for tagging, got the task xnli"),
        (("--classifier-pooling", "mean"), "--classifier-pooling is for sentence pairs, got the task udpos"),
        (("--states-cache", "cache"), "--states-cache needs --freeze-encoder"),
        (("--states-dtype", "float16"), "--states-dtype needs --freeze-encoder"),
    ],
)
def test_an_option_that_changes_nothing_is_refused(encoder, data_dir, tmp_path, more, message):
    assert message in one_line_error(invoke(*train_arguments(encoder, data_dir, tmp_path / "out", *more)))
    assert not (tmp_path / "out").exists()


def test_options_of_the_model_reach_its_configuration():
    fields = run_fields(task="udpos", model="encoder", squeeze_dim=16, scalar_mix_layer_norm=True)
    assert fields["model_options"] == {"squeeze_dim": 16, "scalar_mix_layer_norm": True}
    assert run_fields(task="udpos", model="encoder")["model_options"] == {}


def test_an_option_that_one_of_several_runs_reads_is_taken(encoder, data_dir, tmp_path):
    """By a mode of a sweep, or a task that comes first; another mistake tells that it was."""
    sweep = ("sweep", "--task", "udpos", "--model", encoder, "--data-dir", "nowhere", "--output-dir", tmp_path / "out")
    modes = ("--kernel-size", 3, "--modes")
    assert "nowhere: no such folder" in one_line_error(invoke(*sweep, *modes, "last,residual"))
    line = one_line_error(invoke(*sweep, *modes, "last,lower"))
    assert "--kernel-size needs the fusion aif or residual, got last, lower" in line
    line = one_line_error(invoke(*sweep, "--modes", "last,scalar_mix", "--fusion-layers", "1"))
    assert "--fusion-layers is for modes of lower layers, got last, scalar_mix" in line
    stage = ("--intermediate", "xnli", "--classifier-pooling", "mean")
    assert "nowhere: no such folder" in one_line_error(invoke(*sweep, *stage))


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "--task", "udpos", "--model", "{encoder}", "--data-dir", "{data}", "--output-dir"),
        ("train", "--task", "udpos", "--model", "{encoder}", "--output-dir", "out", "--states-cache"),
        ("sweep", "--task", "udpos", "--model", "{encoder}", "--data-dir", "{data}", "--output-dir"),
        ("ensemble", "{run}", "{encoder}", "--output-dir"),
        ("quickstart", "--output-dir"),
        ("evaluate", "{run}", "--predictions"),
        ("evaluate", "{run}", "--output"),
        ("predict", "{run}", "--input", "text", "--output"),
        ("report", "{run}", "--output"),
        ("analyze", "{run}", "--output"),
    ],
)
def test_an_empty_path_is_not_the_current_directory(run, encoder, data_dir, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    given = [part.format(run=run[0], encoder=encoder, data=data_dir) for part in arguments]
    result = invoke(*given, "")
    assert result.exit_code == 2
    assert f"Invalid value for '{arguments[-1]}': it must not be empty" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--output-dir", "--states-cache"])
def test_a_path_that_is_no_utf8_is_told_before_any_work(encoder, data_dir, tmp_path, option):
    result = invoke(*train_arguments(encoder, data_dir, tmp_path / "out", option, os.fsdecode(b"\xff")))
    assert result.exit_code == 2
    assert f"Invalid value for '{option}': it must be UTF-8, got '\\udcff'" in result.stderr
    assert not list(tmp_path.iterdir())


def test_fusion_layer_must_be_told(encoder, data_dir, tmp_path):
    arguments = [str(part) for part in train_arguments(encoder, data_dir, tmp_path / "out")]
    place = arguments.index("--fusion-layer")
    del arguments[place : place + 2]
    assert "--fusion-layer must be given" in one_line_error(invoke(*arguments))


def test_baseline_and_several_layers_parse(encoder, data_dir, tmp_path):
    options = ("--epochs", 1, "--languages", "de", "--max-train-examples", 4)
    for name, value, stored in (("none", "none", None), ("negative", "-2", 1), ("two", "0,1", [0, 1])):
        more = ("--fusion-layer", value, *options)
        result = invoke(*train_arguments(encoder, data_dir, tmp_path / name, *more))
        assert result.exit_code == 0, result.output
        assert json.loads((tmp_path / name / "results.json").read_text())["fusion_layer"] == stored


def test_malformed_data_file(encoder, tmp_path):
    folder = make_udpos(tmp_path / "data")
    (folder / "train-en.tsv").write_text("the\tDET\nnab\tNOUN\n\nvak\tVREB\n")
    line = one_line_error(invoke(*train_arguments(encoder, folder, tmp_path / "out")))
    assert f"{folder / 'train-en.tsv'}:4: unknown tag 'VREB'; valid are ADJ, ADP" in line
    assert not (tmp_path / "out").exists()


def test_run_is_not_overwritten_by_accident(run, encoder, data_dir):
    out, _ = run
    line = one_line_error(invoke(*train_arguments(encoder, data_dir, out)))
    assert "already holds a run" in line
    line = one_line_error(invoke(*train_arguments(encoder, data_dir, out, "--resume", "--seed", 9)))
    assert "another configuration" in line
    assert "seed: 1 there, 9 now" in line


@pytest.mark.parametrize("name", ["results.json", "run.json", "model.safetensors"])
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_files_of_a_run_are_no_place_for_other_output(run, tmp_path, command, name):
    out, _ = run
    before = (out / name).read_bytes()
    (tmp_path / "input.txt").write_text("the nab\n")
    more = ("--quiet",) if command == "evaluate" else ("--input", tmp_path / "input.txt")
    line = one_line_error(invoke(command, out, "--output", out / ".." / out.name / name, *more))
    assert "--output must not be a file of the run in" in line
    assert (out / name).read_bytes() == before
    assert "leave it out for standard output" in one_line_error(invoke(command, out, "--output", "-", *more))
    done = invoke(command, out, "--output", out / "other.json", *more)
    assert done.exit_code == 0, done.output
    (out / "other.json").unlink()


def test_predictions_replace_neither_gold_labels_nor_what_lay_there_before(run, data_dir, tmp_path):
    out, _ = run
    gold = shutil.copytree(data_dir, tmp_path / "gold")
    (tmp_path / "link").symlink_to(gold)
    other = make_udpos(tmp_path / "other")
    before = {path: path.read_bytes() for path in (*gold.iterdir(), *other.iterdir())}
    evaluation = ("evaluate", out, "--data-dir", gold, "--quiet", "--languages", "de", "--predictions")
    for folder in (gold, tmp_path / "link", other / ".." / "gold"):
        for more in ((), ("--overwrite",)):
            line = one_line_error(invoke(*evaluation, folder, *more))
            assert "--predictions must not be the folder of the data, whose files have the same names" in line
    line = one_line_error(invoke(*evaluation, other))
    assert f"--predictions {other} holds test-de.tsv already; give --overwrite to replace it, or another folder" in line
    assert {path: path.read_bytes() for path in before} == before
    assert invoke(*evaluation, tmp_path / "new").exit_code == 0
    written = (tmp_path / "new" / "test-de.tsv").read_bytes()
    assert "--overwrite" in one_line_error(invoke(*evaluation, tmp_path / "new"))
    assert invoke(*evaluation, tmp_path / "new", "--overwrite").exit_code == 0
    assert (tmp_path / "new" / "test-de.tsv").read_bytes() == written


def test_what_is_read_is_not_replaced_by_what_is_written(run, data_dir, tmp_path):
    gold = shutil.copytree(data_dir, tmp_path / "gold")
    out = shutil.copytree(run[0], tmp_path / "run")
    told = json.loads((out / "run.json").read_text())
    told["config"]["data_dir"] = str(gold)
    (out / "run.json").write_text(json.dumps(told))
    (tmp_path / "text").write_text("the nab\n")
    (tmp_path / "link").symlink_to("text")
    for source, output in (("text", "text"), ("text", "gold/../text"), ("link", "text"), ("text", "gold/test-de.tsv")):
        line = one_line_error(invoke("predict", out, "--input", tmp_path / source, "--output", tmp_path / output))
        assert f"--output must not be a file that is read, got {tmp_path / output}" in line
    line = one_line_error(invoke("evaluate", out, "--output", gold / "dev-en.tsv", "--quiet"))
    assert "--output must not be a file that is read" in line
    assert (tmp_path / "text").read_text() == "the nab\n"
    assert {path.name: path.read_bytes() for path in gold.iterdir()} == {
        path.name: path.read_bytes() for path in data_dir.iterdir()
    }
    (gold / "predictions").mkdir()
    answers = shutil.copy(gold / "test-de.tsv", gold / "predictions")
    for command in (train_arguments(tmp_path, gold, gold), ("ensemble", out, run[0], "--output-dir", gold)):
        assert "holds predictions/test-de.tsv of something else" in one_line_error(invoke(*command))
    assert Path(answers).read_bytes() == (gold / "test-de.tsv").read_bytes()


def test_what_one_process_does_is_refused_under_torchrun(run, tmp_path, monkeypatch):
    out, _ = run
    (tmp_path / "input.txt").write_text("the nab\n")
    new = ("--output-dir", tmp_path / "new", "--quiet")
    commands = {
        "dlfa predict is one process": ("predict", out, "--input", tmp_path / "input.txt"),
        "an ensemble is evaluated by one process": ("ensemble", out, tmp_path, *new),
        "a sweep starts its own processes, one a GPU": ("sweep", "--task", "udpos", "--model", out, *new),
    }
    monkeypatch.setenv("WORLD_SIZE", "2")
    for reason, command in commands.items():
        line = one_line_error(invoke(*command))
        assert line == f"dlfa: error: {reason}; run it without torchrun or accelerate launch"
        monkeypatch.setenv("RANK", "1")
        assert invoke(*command).output == ""
        monkeypatch.delenv("RANK")
    assert not (tmp_path / "new").exists()


def rewritten(source, folder, change):
    """A copy of the model in `source` whose weights are `change` of its own."""
    shutil.copytree(source, folder)
    weights = change(load_file(folder / "model.safetensors"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def huge_states(encoder, folder):
    """The encoder with states beyond the range of float16."""
    name = "encoder.layer.1.output.LayerNorm.bias"
    return rewritten(encoder, folder, lambda own: {**own, name: own[name].fill_(1e5)})


def test_a_run_is_kept_until_all_input_is_checked(run, encoder, data_dir, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(run[0], out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (tmp_path / "file").write_text("")
    small = {"vocab_size": 60, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
    BartModel(BartConfig(**small)).save_pretrained(tmp_path / "bart")
    for path in encoder.glob("tokenizer*"):
        shutil.copy(path, tmp_path / "bart")
    huge, frozen = huge_states(encoder, tmp_path / "huge"), ("--overwrite", "--freeze-encoder", "--states-cache")
    for model, more, message in (
        (encoder, (*frozen, tmp_path / "file"), "choose another --states-cache"),
        (huge, (*frozen, tmp_path / "cache", "--states-dtype", "float16"), "cannot be kept as float16"),
        (encoder, ("--overwrite", "--max-length", 2), "max_length must leave room"),
        (tmp_path / "bart", ("--overwrite",), "of a family without a decoder, or of T5's, got one of 'bart'"),
        (encoder, ("--overwrite", "--gate-bias", "nan"), "gate_bias must be finite"),
        (encoder, ("--overwrite", "--intermediate", f"udpos:{data_dir}", "--max-length", 2), "must leave room"),
    ):
        assert message in one_line_error(invoke(*train_arguments(model, data_dir, out, *more)))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("foo", "DLFA_BACKEND must be one of 'auto', 'triton', 'eager', got 'foo'"),
        pytest.param(
            "triton",
            "DLFA_BACKEND=triton needs CUDA or ROCm tensors, got a CPU tensor",
            marks=pytest.mark.skipif(torch.accelerator.is_available(), reason="needs a machine without a GPU"),
        ),
    ],
)
def test_a_backend_that_cannot_run_is_told_before_anything_is_written(
    run, encoder, data_dir, tmp_path, monkeypatch, backend, message
):
    monkeypatch.setattr("dlfa_kernels.backends.TAKES_CPU_TENSORS", False)
    monkeypatch.setenv("DLFA_BACKEND", backend)
    out = shutil.copytree(run[0], tmp_path / "run")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (tmp_path / "text").write_text("the nab\n")
    for arguments in (
        train_arguments(encoder, data_dir, out, "--overwrite"),
        train_arguments(encoder, data_dir, tmp_path / "new"),
        ("evaluate", out, "--quiet"),
        ("predict", out, "--input", tmp_path / "text"),
    ):
        assert message in one_line_error(invoke(*arguments))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "new").exists()


def test_what_fails_in_training_is_one_line(encoder, data_dir, tmp_path, monkeypatch):
    import dlfa.training.train as training

    def no_room(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training, "write_model", no_room)
    line = one_line_error(invoke(*train_arguments(encoder, data_dir, tmp_path / "out", "--epochs", 1)))
    assert "No space left on device" in line


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes\nframe #0"),
        MemoryError("Unable to allocate 9 GiB"),
    ],
)
def test_a_lack_of_memory_is_one_line(encoder, data_dir, tmp_path, monkeypatch, error):
    def no_room(*_, **__):
        raise error

    monkeypatch.setattr("dlfa.training.train.new_model", no_room)
    result = invoke(*train_arguments(encoder, data_dir, tmp_path / "out"))
    first = str(error).split("\n")[0]
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"dlfa: error: not enough memory: {first}\n")


def test_resume_of_a_complete_run_says_so(run, encoder, data_dir):
    out, first = run
    result = invoke(*train_arguments(encoder, data_dir, out, "--label-subword", "last", "--resume"))
    assert result.exit_code == 0, result.output
    assert "is complete" in result.stdout
    assert first.stdout in result.stdout


def test_interrupt_tells_how_to_go_on(encoder, data_dir, tmp_path, monkeypatch):
    import dlfa.training.train as training

    def interrupted(prepared):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", interrupted)
    result = invoke(*train_arguments(encoder, data_dir, tmp_path / "out"))
    assert result.exit_code == 130
    assert "--resume" in result.stderr
    monkeypatch.undo()
    again = invoke(*train_arguments(encoder, data_dir, tmp_path / "out", "--resume"))
    assert again.exit_code == 0, again.output


def test_hub_failure_is_one_line(encoder, tmp_path):
    line = one_line_error(
        invoke("train", "--task", "udpos", "--model", encoder, "--output-dir", tmp_path / "o", "--fusion-layer", 1)
    )
    assert "google/xtreme (udpos.English)" in line
    assert "--data-dir DIR" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "nowhere"), "model directory nowhere does not exist"),
        (("evaluate", "{run}", "--task", "panx"), "--task must be udpos"),
        (("evaluate", "{run}", "--languages", "xx"), "valid are de, en, fr"),
        (("evaluate", "{text}"), "text is a file"),
        (("evaluate", "{encoder}"), "--task must be given"),
        (
            ("evaluate", "{encoder}", "--task", "udpos"),
            "lack classifier.bias and 1 more of a BertForTokenClassification",
        ),
        (
            ("predict", "{encoder}", "--task", "xquad", "--input", "{text}", "--max-length", "64"),
            "lack qa_outputs.bias and 1 more of a BertForQuestionAnswering",
        ),
        (("evaluate", "{run}", "--max-length", "2", "--quiet"), "max_length must leave room"),
        (("evaluate", "{run}", "--max-length", "129"), "max_length must be at most 128"),
        (("evaluate", "{run}", "--output", "{run}"), "--output must be a file, got a directory"),
        (("evaluate", "{run}", "--output", "{run}/run.json/a"), "cannot be written"),
        (("evaluate", "{run}", "--predictions", "{run}/run.json"), "--predictions must be a directory, got a file"),
        (("evaluate", "{run}", "--predictions", "{run}/predictions"), "must not be the predictions of the run in"),
        (("predict", "{run}", "--input", "{text}", "--max-length", "2"), "max_length must leave room"),
        (("predict", "{run}", "--input", "{text}", "--output", "{run}"), "--output must be a file, got a directory"),
        (("predict", "{run}", "--input", "{text}", "--output", "{pipe}"), "--output must be a file, got a device"),
        (("predict", "{run}", "--input", "{text}", "--output", "{run}/predictions/test-en.tsv"), "a file of the run"),
        (("predict", "{run}", "--input", "nowhere.txt"), "nowhere.txt: cannot be read"),
        (("predict", "{run}", "--input", "/dev/null"), "holds nothing to predict"),
    ],
)
def test_bad_evaluation_and_prediction_arguments(run, encoder, tmp_path, arguments, message):
    text = tmp_path / "text"
    text.write_text("the nab vak\n")
    os.mkfifo(pipe := tmp_path / "pipe")
    filled = [part.format(run=run[0], encoder=encoder, text=text, pipe=pipe) for part in arguments]
    assert message in one_line_error(invoke(*filled))


@pytest.mark.parametrize(
    ("arguments", "option", "value"),
    [
        (("evaluate", "run"), "--split", "train"),
        (("evaluate", "run"), "--batch-size", "0"),
        (("evaluate", "run"), "--max-eval-examples", "-5"),
        (("evaluate", "run"), "--max-length", "0"),
        (("predict", "run", "--input", "text"), "--batch-size", "0"),
        (("predict", "run", "--input", "text"), "--max-length", "0"),
        (("predict", "run", "--input", "text"), "--input-format", "xml"),
        (("ensemble", "run", "other", "--output-dir", "out"), "--split", "train"),
        (("ensemble", "run", "other", "--output-dir", "out"), "--batch-size", "0"),
        (("ensemble", "run", "other", "--output-dir", "out"), "--max-eval-examples", "-1"),
        (("sweep", "--task", "udpos", "--model", "m", "--output-dir", "out"), "--processes", "0"),
        (("analyze", "encoder"), "--max-examples", "-1"),
        (("analyze", "encoder"), "--probe-examples", "-1"),
        (("analyze", "encoder"), "--max-length", "0"),
        (("report", "runs"), "--resamples", "-1"),
    ],
)
def test_a_value_outside_of_its_options_range_is_wrong_usage(tmp_path, monkeypatch, arguments, option, value):
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments, option, value)
    assert (result.exit_code, result.stdout) == (2, "")
    *_, line = result.stderr.strip().split("\n")
    assert line.startswith(f"Error: Invalid value for '{option}': ")
    assert any(needed in line for needed in ("greater than or equal to", "is not one of")), line
    assert not list(tmp_path.iterdir())


def test_what_a_run_cannot_be_taken_for_is_said(run, data_dir, tmp_path):
    line = one_line_error(invoke(*train_arguments(run[0], data_dir, tmp_path / "out")))
    assert "dlfa train --intermediate to train on one task after another" in line
    moved = tmp_path / "moved"
    shutil.copytree(run[0], moved)
    told = json.loads((moved / "run.json").read_text())
    told["config"]["data_dir"] = "gone"
    (moved / "run.json").write_text(json.dumps(told))
    line = one_line_error(invoke("evaluate", moved, "--quiet"))
    assert f"gone: no such folder, where the run in {moved} had its data; give --data-dir" in line


def test_damaged_weights_are_named(run, encoder, data_dir, tmp_path):
    for source, name in ((run[0], "run"), (encoder, "encoder")):
        shutil.copytree(source, tmp_path / name)
        weights = tmp_path / name / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:5000])
    assert f"the model in {tmp_path / 'run'} cannot be loaded" in one_line_error(invoke("evaluate", tmp_path / "run"))
    for more in ((), ("--freeze-encoder",)):
        arguments = train_arguments(tmp_path / "encoder", data_dir, tmp_path / "out", *more)
        line = one_line_error(invoke(*arguments))
        assert f"no encoder can be loaded from '{tmp_path / 'encoder'}': its weights cannot be read" in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": "3"}, "Field 'num_hidden_layers' expected int, got str (value: '3')"),
        ({"id2label": [1]}, "list"),  # releases of transformers say in other words that it is one
    ],
)
def test_a_configuration_that_cannot_be_used_is_one_line(run, encoder, data_dir, tmp_path, changes, message):
    def changed(source, name, values):
        folder = shutil.copytree(source, tmp_path / name)
        config = folder / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | values))
        return folder

    plain = changed(encoder, "encoder", changes)
    own = json.loads((run[0] / "config.json").read_text())["encoder_config"]
    ours = changed(run[0], "run", changes if "id2label" in changes else {"encoder_config": own | changes})
    training = train_arguments(plain, data_dir, tmp_path / "out")
    for folder, arguments in (
        (plain, training),
        (plain, ("sweep", "--task", "udpos", "--model", plain, "--output-dir", tmp_path / "sweep")),
        (plain, ("analyze", plain, "--task", "udpos", "--output", tmp_path / "analysis")),
        (ours, ("evaluate", ours)),
    ):
        result = invoke(*arguments)
        assert result.exit_code == 2, result.output
        line = result.stderr
        assert line.count("\n") == 1, line
        assert f"config.json of {folder} cannot be used: " in line
        assert message in line.partition("cannot be used: ")[2]


def test_no_missing_weight_is_drawn_at_random(run, encoder, data_dir, tmp_path):
    renamed = rewritten(
        encoder, tmp_path / "renamed", lambda own: {f"module.backbone.{name}": value for name, value in own.items()}
    )
    new = train_arguments(renamed, data_dir, tmp_path / "out")
    analysis = ("analyze", renamed, "--task", "udpos", "--data-dir", data_dir, "--quiet")
    for arguments in (new, (*new, "--freeze-encoder"), analysis):
        line = one_line_error(invoke(*arguments))
        assert f"the weights in {renamed} lack embeddings.LayerNorm.bias and 36 more of a BertModel" in line
    assert not (tmp_path / "out").exists()
    for part in ("classifier", "fusion", "encoder.encoder.layer.1"):
        lacking = rewritten(
            run[0],
            tmp_path / part,
            lambda own, part=part: {name: value for name, value in own.items() if not name.startswith(part)},
        )
        assert f"the weights in {lacking} lack {part}." in one_line_error(invoke("evaluate", lacking))
    other = rewritten(run[0], tmp_path / "other", lambda own: {**own, "classifier.bias": own["classifier.bias"][:9]})
    line = one_line_error(invoke("evaluate", other))
    assert "hold classifier.bias in shape (9,), config.json asks for (17,)" in line


def test_scores_that_are_no_numbers_are_no_results(run, encoder, data_dir, tmp_path):
    sick = rewritten(
        run[0], tmp_path / "sick", lambda own: {**own, "classifier.bias": own["classifier.bias"].fill_(torch.nan)}
    )
    (tmp_path / "text").write_text("the nab\n")
    results = tmp_path / "again.json"
    for arguments in (
        ("evaluate", sick, "--output", results, "--quiet"),
        ("predict", sick, "--input", tmp_path / "text"),
        ("ensemble", run[0], sick, "--output-dir", tmp_path / "both", "--quiet"),
        train_arguments(encoder, data_dir, tmp_path / "new", "--learning-rate", 1e30, "--max-train-examples", 4),
    ):
        result = invoke(*arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert len(result.stderr.splitlines()) == 1
        assert "sequences are NaN or infinite: its training diverged" in result.stderr
    assert not any(path.exists() for path in (results, tmp_path / "both/results.json", tmp_path / "new/results.json"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([], "config must be an object, got []"),
        ({"task": "udpos"}, "lacks model"),
        ({"task": "udpos", "model": "m", "seed": "a"}, "seed must be of type int, got 'a'"),
        (
            {"task": "udpos", "model": "m", "languages": "de"},
            "languages must be of type tuple[str, ...] | None, got 'de'",
        ),
        (
            {"task": "udpos", "model": "m", "languages": ["de", 1]},
            "languages must be of type tuple[str, ...] | None, got ['de', 1]",
        ),
        ({"task": "udpos", "model": "m", "model_options": []}, "model_options must be of type Mapping[str, Any]"),
        ({"task": "udpos", "model": "m", "bf16": 1}, "bf16 must be of type bool, got 1"),
        ({"task": "udpos", "model": "m", "seed": True}, "seed must be of type int, got True"),
        ({"task": "udpos", "model": "m", "epochs": True}, "epochs must be of type float | None, got True"),
        ({"task": "udpos", "model": "m", "epochs": -1}, "epochs must be a positive number"),
    ],
)
def test_malformed_run_files_are_named(tmp_path, config, message):
    (tmp_path / "run.json").write_text(json.dumps({"config": config, "data_sha256": ""}))
    line = one_line_error(invoke("evaluate", tmp_path))
    assert f"{tmp_path / 'run.json'}: " in line
    assert message in line
