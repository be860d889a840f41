"""results.json; the chart; the table."""

import io
import json
from types import SimpleNamespace

import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from rich.console import Console

from dlfa.evaluation.charts import BAR, SOURCE_BAR, bar_chart, title
from dlfa.evaluation.evaluate import LanguageEvaluation
from dlfa.evaluation.results import environment, summary
from dlfa.evaluation.tables import language_table, task_table
from dlfa.tasks import TASKS, get_task


def fake_model(**config):
    values = {"fusion": "aif", "fusion_layer": 6, "fuse": "select", "aif_backend": "auto", "label_subword": "last"}
    return SimpleNamespace(
        config=SimpleNamespace(**{**values, **config}), device=torch.device("cpu"), dtype=torch.float32
    )


def results(languages=("en", "de", "zh"), **config):
    scores = {"en": 0.9, "de": 0.6, "zh": 0.3}
    evaluations = {
        language: LanguageEvaluation({"f1": scores[language], "accuracy": scores[language] + 0.05}, [None] * 7, [], [])
        for language in languages
    }
    return summary(get_task("udpos"), fake_model(**config), "some/encoder", evaluations, seed=1, train={"steps": 3})


def test_averages_with_and_without_the_training_language():
    found = results()
    assert found["average"] == pytest.approx(0.6)
    assert found["average_zero_shot"] == pytest.approx(0.45)
    assert found["averages"]["accuracy"] == pytest.approx({"all": 0.65, "zero_shot": 0.5})
    assert found["languages"]["de"] == {"f1": 0.6, "accuracy": 0.65, "examples": 7}
    assert (found["model"], found["fusion_layer"], found["fuse"]) == ("some/encoder", 6, "select")
    assert found["train"] == {"steps": 3}
    assert results(languages=("en",))["average_zero_shot"] is None
    json.dumps(found, allow_nan=False)


def test_directory_of_a_model_is_named_without_its_place(tmp_path, monkeypatch):
    (tmp_path / "enc" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("enc")
    monkeypatch.chdir(tmp_path / "enc" / "below")
    whole, link = str(tmp_path / "enc"), str(tmp_path / "link")
    for given, name in ((whole, "enc"), (link, "link"), (".", "below"), ("./", "below"), ("..", "enc")):
        found = summary(get_task("udpos"), fake_model(), given, {}, seed=None)
        assert found["model"] == name
        assert found["average"] is None


def test_environment_says_what_ran(monkeypatch):
    found = environment(fake_model(), torch.bfloat16)
    assert (found["device"], found["dtype"], found["backend"]) == ("cpu", "bfloat16", "eager")
    assert all(found[name] for name in ("dlfa", "transformers", "python"))
    monkeypatch.setenv("DLFA_BACKEND", "triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert environment(fake_model())["backend"] == "triton"
    assert environment(fake_model(fusion="last"))["backend"] is None


def test_chart_is_drawn(tmp_path):
    from matplotlib.image import imread

    bar_chart(results(), tmp_path / "chart.png")
    picture = imread(tmp_path / "chart.png")
    assert picture.shape[0] > 300
    assert picture.std() > 0.05
    with pytest.raises(ValueError, match="at least one language"):
        bar_chart({**results(), "languages": {}}, tmp_path / "none.png")


def test_chart_marks_the_training_language_and_both_averages(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, content, **_: figures.append(figure))
    bar_chart(results(), tmp_path / "chart.png")
    (axes,) = figures[0].axes
    bars = [(round(bar.get_height()), to_hex(bar.get_facecolor())) for bar in axes.patches]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["de", "en", "zh"]
    assert bars == [(60, to_hex(BAR)), (90, to_hex(SOURCE_BAR)), (30, to_hex(BAR))]
    lines = {line.get_label(): line.get_ydata()[0] for line in axes.lines}
    assert lines == {"average, zero-shot: 45.0": pytest.approx(45), "average, all: 60.0": pytest.approx(60)}


def test_table_has_a_row_a_language_and_the_averages():
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(language_table(results()))
    lines = [line.replace(" ", "") for line in console.export_text().splitlines()]
    assert any("│de│60.0│65.0│7│" in line for line in lines)
    assert any("│en(training)│90.0│95.0│7│" in line for line in lines)
    assert any("│average│60.0│65.0││" in line for line in lines)
    assert any("│average,zero-shot│45.0│50.0││" in line for line in lines)


def test_task_table_names_every_task():
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(task_table(TASKS.values()))
    text = console.export_text()
    assert all(name in text for name in TASKS)
    assert "google/xtreme" in text
    assert "--data-dir only" in text


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"fusion": "last", "fusion_layer": None}, "udpos, some/encoder, last layer"),
        ({}, "udpos, some/encoder, aif with layer 6, select"),
        ({"fusion_layer": [4, 6]}, "udpos, some/encoder, aif with layers 4, 6, select"),
        ({"fusion": "residual"}, "udpos, some/encoder, residual with layer 6"),
        ({"fusion": "scalar_mix", "fusion_layer": None}, "udpos, some/encoder, scalar_mix with all layers"),
        ({"model": None, "fuse": None, "ensemble": {"runs": [{}, {}]}}, "udpos, ensemble of 2 runs"),
    ],
)
def test_title_tells_what_was_run(changes, told):
    described = {"task": "udpos", "model": "some/encoder", "fusion": "aif", "fusion_layer": 6, "fuse": "select"}
    assert title({**described, **changes}) == told
