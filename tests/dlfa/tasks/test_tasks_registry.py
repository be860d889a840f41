"""The registry: XTREME's conventions, task by task."""

from pathlib import Path

import pytest

from dlfa.tasks import TASKS, get_task

# task: languages, metric, learning rate, batch x accumulation, epochs, length, model chosen on dev
XTREME = {
    "xnli": (15, "accuracy", 2e-5, (8, 4), 5, 128, True),
    "paws-x": (7, "accuracy", 2e-5, (8, 4), 5, 128, True),
    "panx": (40, "f1", 2e-5, (8, 4), 10, 128, True),
    "udpos": (33, "f1", 2e-5, (8, 4), 10, 128, True),
    "tydiqa": (9, "f1", 3e-5, (4, 8), 3, 384, False),
    "xquad": (11, "f1", 3e-5, (4, 8), 3, 384, False),
    "mlqa": (7, "f1", 3e-5, (4, 8), 3, 384, False),
}


@pytest.mark.parametrize("name", XTREME)
def test_presets_are_xtremes(name):
    languages, metric, rate, batch, epochs, length, select = XTREME[name]
    task = get_task(name)
    preset = task.preset
    assert (len(task.languages), task.metric) == (languages, metric)
    assert len(set(task.languages)) == languages
    assert (preset.learning_rate, (preset.batch_size, preset.gradient_accumulation)) == (rate, batch)
    assert (preset.epochs, preset.max_length, preset.select_best) == (epochs, length, select)
    assert preset.warmup_steps == (500 if task.kind == "qa" else 0)
    assert set(task.hub) == {"train", "dev", "test"}


def test_udpos_has_the_17_universal_tags():
    assert len(set(get_task("udpos").labels)) == len(get_task("udpos").labels) == 17


def test_names_match_and_train_language_is_english():
    assert all(task.name == name and task.train_language == "en" for name, task in TASKS.items())


def test_the_guide_names_every_task():
    guide = (Path(__file__).resolve().parents[3] / "docs" / "workbench.md").read_text(encoding="utf-8")
    table = [line for line in guide.partition("| task | languages |")[2].splitlines() if line.startswith("| `")]
    assert {name.strip(" `") for line in table for name in line.split("|")[1].split(",")} >= set(TASKS)


def test_unknown_task_lists_the_known():
    with pytest.raises(ValueError, match="unknown task 'pos'; valid are udpos, panx"):
        get_task("pos")


def test_hub_configurations():
    assert get_task("udpos").hub["test"].config_of("zh") == "udpos.Chinese"
    assert get_task("panx").hub["train"].config_of("en") == "PAN-X.en"
    assert get_task("xnli").hub["test"].config_of("sw") == "sw"
    assert get_task("mlqa").hub["test"].config_of("hi") == "MLQA.hi.hi"
    assert get_task("mlqa").hub["train"].config_of("en") == "SQuAD"
