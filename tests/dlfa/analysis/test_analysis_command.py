"""`dlfa analyze` as a user meets it, on tiny random models."""

import json

import pytest
import torch
from tiny_tasks import make_tokenizer, sentences, token_text
from typer.testing import CliRunner

from dlfa import DLFAForSequenceClassification, DLFAForTokenClassification
from dlfa.analysis.document import FILES
from dlfa.cli import app
from dlfa.tasks import TASKS

PICTURES = ("probes.png", "probe-languages.png", "gates.png", "contributions.png")


def invoke(*arguments):
    return CliRunner().invoke(app, ["analyze", *map(str, arguments), "--quiet"])


def save(model_class, encoder, folder, labels, **options):
    torch.manual_seed(0)
    model = model_class.from_encoder(str(encoder), id2label=dict(enumerate(labels)), **options)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def analysed(encoder, data_dir, tmp_path_factory):
    root = tmp_path_factory.mktemp("analysis")
    labels = TASKS["udpos"].labels
    model = save(
        DLFAForTokenClassification, encoder, root / "select", labels, fusion_layer=[1, 0], fuse="select",
        label_subword="last",
    )  # fmt: skip
    result = invoke(model, "--task", "udpos", "--data-dir", data_dir, "--output", root / "out")
    assert result.exit_code == 0, result.output
    return root / "out", result.stdout


def test_everything_is_written(analysed):
    folder, output = analysed
    found = json.loads((folder / "analysis.json").read_text())
    assert found["layers"] == ["0", "1", "2", "fused"]
    assert (found["fuse"], found["fusion_layer"], found["label_subword"]) == ("select", [1, 0], "last")
    assert found["examples"] == {"de": 10, "en": 10, "fr": 10}
    assert found["probe_examples"] == 48
    for scores in found["label_probe"].values():
        assert len(scores["f1"]) == len(scores["accuracy"]) == 4
    assert len(found["language_probe"]["accuracy"]) == 4
    assert [gate["layer"] for gate in found["gates"]] == ["1", "0"]
    for gate in found["gates"]:
        assert set(gate["languages"]) == {"de", "en", "fr"}
        assert sum(gate["variance"].values()) == pytest.approx(1)
        assert all(len(item["channels"]) == 32 for item in gate["languages"].values())
    for parts in found["contributions"].values():
        assert set(parts) == {"last", "1", "0"}
        for measure in ("weight", "norm_share"):  # select's coefficients of one token and channel add up to one
            assert sum(part[measure] for part in parts.values()) == pytest.approx(1, abs=1e-5)
    text = (folder / "analysis.md").read_text()
    for picture in PICTURES:
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
        assert f"]({picture})" in text
    assert f"| 0 | {100 * found['label_probe']['en']['f1'][0]:.1f} |" in text
    assert "what the gate varies with" in output


def test_a_plain_encoder_has_probes_alone(encoder, data_dir, tmp_path):
    result = invoke(
        encoder, "--task", "udpos", "--data-dir", data_dir, "--languages", "de", "--max-examples", 6,
        "--probe-examples", 20, "--output", tmp_path,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "analysis.json").read_text())
    assert found["layers"] == ["0", "1", "2"]
    assert found["examples"] == {"de": 6, "en": 6}
    assert found["probe_examples"] == 20
    assert found["gates"] == []
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["probe-languages.png", "probes.png"]


def test_files_of_others_are_replaced_only_when_asked(encoder, data_dir, tmp_path, analysed):
    assert {path.name for path in analysed[0].iterdir()} == set(FILES)
    arguments = [
        encoder, "--task", "udpos", "--data-dir", data_dir, "--languages", "en,de", "--max-examples", 4,
        "--probe-examples", 8, "--output", tmp_path,
    ]  # fmt: skip
    for name in ("analysis.md", "analysis.json", "probes.png"):
        (tmp_path / name).write_text("mine")
        result = invoke(*arguments)
        assert result.exit_code == 2, result.output
        assert f"--output {tmp_path} holds {name} already; give --overwrite to replace it" in result.stderr
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}
        (tmp_path / name).unlink()
    (tmp_path / "probes.png").write_text("mine")
    for option in (["--overwrite"], []):  # then they are the analysis's own
        result = invoke(*arguments, *option)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "probes.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "parts", "weight"),
    [
        ({"fusion": "scalar_mix", "fusion_layer": None}, {"last", "0", "1"}, 1 / 3),
        ({"fusion": "residual", "fusion_layer": 1}, {"last", "1", "branches"}, 1),
    ],
)
def test_without_a_gate_there_are_contributions(encoder, data_dir, tmp_path, options, parts, weight):
    model = save(DLFAForTokenClassification, encoder, tmp_path / "mix", TASKS["udpos"].labels, **options)
    result = invoke(
        model, "--task", "udpos", "--data-dir", data_dir, "--probe-examples", 12, "--output", tmp_path / "out"
    )
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert found["gates"] == []
    assert set(found["contributions"]["de"]) == parts
    assert found["contributions"]["de"]["last"]["weight"] == pytest.approx(weight)
    assert all(f"{part}: weight" in (tmp_path / "out" / "analysis.md").read_text() for part in parts)


def test_a_sentence_task_is_probed_on_its_first_token(encoder, tmp_path):
    for name, count in (("train-en", 24), ("test-en", 8), ("test-nl", 8)):
        lines = [f"a {index % 7} b\tc {index % 5}\t{TASKS['sick'].labels[index % 3]}\n" for index in range(count)]
        (tmp_path / f"{name}.tsv").write_text("".join(lines))
    model = save(DLFAForSequenceClassification, encoder, tmp_path / "nli", TASKS["sick"].labels, fusion_layer=1)
    result = invoke(model, "--task", "sick", "--data-dir", tmp_path, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert set(found["label_probe"]) == {"en", "nl"}
    assert found["gates"][0]["languages"]["nl"]["tokens"] == 8


def test_development_data_stand_in_where_there_is_no_test(encoder, tmp_path):
    for name, language, count in (("train-en", "en", 20), ("dev-en", "en", 6), ("test-de", "de", 6)):
        (tmp_path / f"{name}.tsv").write_text(token_text(sentences(language, count)))
    result = invoke(encoder, "--task", "udpos", "--data-dir", tmp_path)
    assert result.exit_code == 0, result.output
    assert "- en has no test data; its development data stand in" in result.stdout


def test_too_few_sentences_leave_the_language_probe_out(encoder, data_dir):
    result = invoke(encoder, "--task", "udpos", "--data-dir", data_dir, "--max-examples", 3, "--probe-examples", 12)
    assert result.exit_code == 0, result.output
    assert "no language probe: a language probe needs at least 5 sentences a language" in result.stdout.replace(
        "\n", " "
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{encoder}", "--data-dir", "{data}"], "--task must be given"),
        (["{encoder}", "--task", "dogs"], "unknown task 'dogs'; valid are udpos"),
        (["{encoder}", "--task", "udpos", "--data-dir", "{data}", "--languages", "xx"], "language 'xx' is not in"),
        (
            ["{encoder}", "--task", "udpos", "--data-dir", "{data}", "--label-subword", "middle"],
            "label_subword must be one of 'first', 'last', 'mean', got 'middle'",
        ),
        (["{encoder}", "--task", "xnli", "--label-subword", "last"], "label_subword is for tagging, got the task xnli"),
        (["{data}", "--task", "udpos", "--data-dir", "{data}"], "no encoder can be loaded from"),
        (["runs/nowhere"], "there is no directory runs/nowhere; for an encoder of the Hub, --task must be given"),
        (["/nowhere", "--task", "udpos", "--data-dir", "{data}"], "model directory /nowhere does not exist"),
        (["{encoder}", "--task", "udpos", "--data-dir", "{data}/absent"], "no such folder"),
    ],
)
def test_bad_input_is_one_line(encoder, data_dir, arguments, message):
    places = {"encoder": encoder, "data": data_dir}
    result = invoke(*(argument.format(**places) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("dlfa: error: ")
    assert len(result.stderr.splitlines()) == 1
    assert message in result.stderr
