"""Reading results: what is found, what is incomplete, what is malformed and how the error names it."""

import json

import pytest
from made_results import corrupted, make_run

from dlfa.data.examples import TaggedSentence
from dlfa.report.runs import load_runs, protocol_differences
from dlfa.report.variants import Variant
from dlfa.tasks import TASKS

DATA = {language: [TaggedSentence(("a", "b"), ("NOUN", "VERB"))] * 3 for language in ("en", "de")}
MINIMAL = {
    "task": "udpos", "model": "m", "fusion_layer": 8, "fuse": "gate", "seed": 1, "metric": "f1",
    "train_language": "en",
    "languages": {"en": {"f1": 0.9, "accuracy": 0.9, "examples": 5}, "de": {"f1": 0.5, "accuracy": 0.6, "examples": 4}},
    "average": 0.7, "average_zero_shot": 0.5, "train": {"steps": 10, "seconds": 5.0, "loss": 0.1}, "environment": {},
}  # fmt: skip


def load_one(path):
    (run,) = load_runs([path]).runs
    return run


def write(path, **changes):
    values = {**MINIMAL, **changes}
    path.write_text(json.dumps({name: value for name, value in values.items() if value != "absent"}))
    return path


def test_the_documented_fields_are_enough(tmp_path):
    run = load_one(write(tmp_path / "results.json"))
    assert (run.variant.label, run.seed, run.split) == ("aif gate 8", 1, "test")
    assert run.mean("f1", ["de"]) == 0.5
    assert run.mean("accuracy", ["en", "de"]) == pytest.approx(0.75)
    assert run.examples == {"en": 5, "de": 4}
    assert load_one(write(tmp_path / "results.json", fuse="absent")).variant == run.variant
    assert load_one(write(tmp_path / "results.json", fusion_layer=None)).variant == Variant("last")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "absent"}, "field task is missing"),
        ({"metric": 3}, "field metric must be a text, got 3"),
        ({"languages": {}}, "field languages must be at least one language"),
        ({"languages": {"en": {"accuracy": 0.5}}}, "field languages.en.f1 is missing"),
        ({"languages": {"en": {"f1": 50.0}}}, r"field languages.en.f1 must be a fraction in 0..1, got 50.0"),
        ({"languages": {"en": {"f1": float("nan")}}}, "field languages.en.f1 must be a fraction"),
        ({"languages": {"en": 3}}, "field languages.en must be an object"),
        ({"languages": {"en": {"f1": 0.5, "examples": -1}}}, "field languages.en.examples must be a whole number"),
        ({"seed": "one"}, "field seed must be a whole number"),
        ({"fusion_layer": "absent"}, "field fusion_layer is missing"),
        ({"fusion_layer": "six"}, "field fusion_layer must be a layer"),
        ({"train": {"seconds": "long"}}, "field train.seconds must be a number"),
        ({"config": []}, "field config must be an object"),
        ({"config": {"model_options": 1}}, "field config.model_options must be an object"),
    ],
)
def test_malformed_results_name_file_and_field(tmp_path, changes, message):
    path = write(tmp_path / "results.json", **changes)
    with pytest.raises(ValueError, match=message) as error:
        load_one(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"'])
def test_what_is_no_json_object_names_the_file(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"results\.json: (cannot be read as JSON|needed a JSON object)"):
        load_one(path)


def test_directories_are_searched_and_unfinished_runs_named(tmp_path):
    task = TASKS["udpos"]
    for seed in (1, 2):
        make_run(tmp_path / "sweep" / f"seed{seed}", DATA, corrupted(task, 0.1), seed=seed)
    unfinished = tmp_path / "sweep" / "seed3"
    unfinished.mkdir()
    (unfinished / "run.json").write_text("{}")
    again = tmp_path / "sweep" / "seed1" / "results.json"
    runs, _, notes = load_runs([tmp_path / "sweep", again, unfinished / ".." / "seed1" / "results.json"])
    assert [run.seed for run in runs] == [1, 2]
    assert len(notes) == 1
    assert str(unfinished) in notes[0]
    assert "not complete" in notes[0]


def test_failed_cells_tell_why(tmp_path):
    make_run(tmp_path / "good", DATA, corrupted(TASKS["udpos"], 0.1))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "error.txt").write_text("Traceback\nFloatingPointError: the loss became nan\n")
    runs, _, notes = load_runs([tmp_path])
    assert len(runs) == 1
    assert notes == [f"{tmp_path / 'bad'}: the run failed (FloatingPointError: the loss became nan), so it is left out"]


def test_runs_on_intermediate_tasks_belong_to_the_run_after_them(tmp_path):
    make_run(tmp_path / "run", DATA, corrupted(TASKS["udpos"], 0.1))
    make_run(tmp_path / "run" / "intermediate", DATA, corrupted(TASKS["udpos"], 0.1))
    path = tmp_path / "run" / "results.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "intermediate": [{"task": "sick", "train": {}}]}))
    (run,) = load_runs([tmp_path]).runs
    assert run.protocol["intermediate"] == ["sick"]


def test_what_of_a_sequence_is_classified_belongs_to_the_protocol(tmp_path):
    first, mean = (
        load_one(write(tmp_path / f"{pooling}.json", classifier_pooling=pooling)) for pooling in ("first", "mean")
    )
    assert protocol_differences(mean, first.protocol) == "classifier_pooling mean instead of first"
    assert mean.variant == first.variant


def test_the_number_of_processes_belongs_to_the_protocol(tmp_path):
    configs = ({"batch_size": 4, "processes": 1}, {"batch_size": 4, "processes": 2})
    one, two = (load_one(write(tmp_path / f"{config['processes']}.json", config=config)) for config in configs)
    assert protocol_differences(two, one.protocol) == "processes 2 instead of 1"
    assert load_one(write(tmp_path / "untold.json")).protocol == {}


def ensemble(**changes):
    members = [{"run": "a", "average_zero_shot": 0.6}, {"run": "b", "average_zero_shot": 0.7}]
    changes = {"runs": members, "by": "vote", **changes}
    return {**MINIMAL, "model": None, "seed": None, "average_zero_shot": 0.75, "ensemble": changes}


def test_ensembles_stand_apart(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(ensemble()))
    runs, (found,), _ = load_runs([tmp_path])
    assert runs == []
    assert (found.by, found.members, found.average, found.member_averages) == ("vote", ("a", "b"), 0.75, (0.6, 0.7))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runs": []}, "field ensemble.runs must be a list of objects"),
        ({"by": None}, "field ensemble.by must be a text"),
        ({"runs": [{"run": "a"}]}, "field ensemble.runs.0.average_zero_shot must be a fraction"),
    ],
)
def test_malformed_ensembles_name_the_field(tmp_path, changes, message):
    (tmp_path / "results.json").write_text(json.dumps(ensemble(**changes)))
    with pytest.raises(ValueError, match=message):
        load_runs([tmp_path])


def test_paths_without_runs_are_errors(tmp_path):
    with pytest.raises(ValueError, match=r"no results\.json in this directory"):
        load_runs([tmp_path])
    with pytest.raises(ValueError, match="no such file or directory"):
        load_runs([tmp_path / "absent"])
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="no complete run"):
        load_runs([tmp_path])


def test_variants_are_told_by_what_has_a_say(tmp_path):
    def variant(fusion, layers, **options):
        return Variant.of(fusion, layers, "gate", options)

    assert variant("aif", (6,), kernel_size=1, label_subword="last") == variant("aif", (6,))
    assert variant("aif", (6,), kernel_size=3).label == "aif gate 6, kernel_size 3"
    assert variant("aif", (6, 4)).label == "aif gate 6+4"
    assert variant("last", (), kernel_size=3) == Variant("last")
    assert variant("scalar_mix", (), layer_dropout=0.1, kernel_size=3).label == "scalar_mix, layer_dropout 0.1"
    assert variant("lower", (6,), reduction=16).label == "lower 6"
    assert variant("residual", (6,), reduction=16, gate_bias=2.0).label == "residual 6, reduction 16"
    order = [
        variant("aif", (10,)),
        variant("aif", (2,)),
        variant("residual", (2,)),
        variant("scalar_mix", ()),
        variant("lower", (3,)),
        Variant("last"),
    ]
    assert [item.label for item in sorted(order, key=lambda item: item.sort_key)] == [
        "last", "lower 3", "scalar_mix", "residual 2", "aif gate 2", "aif gate 10",
    ]  # fmt: skip


def test_a_mean_over_missing_languages_is_refused(tmp_path):
    run = load_one(write(tmp_path / "results.json"))
    with pytest.raises(ValueError, match="not evaluated on fr, zh"):
        run.mean("f1", ["de", "fr", "zh"])
    with pytest.raises(ValueError, match=r"languages\.de\.recall is missing"):
        run.mean("recall", ["de"])


def test_below_a_directory_what_is_no_run_is_noted_and_left_out(tmp_path):
    make_run(tmp_path / "good", DATA, corrupted(TASKS["udpos"], 0.1))
    foreign = {"quickstart": json.dumps({"task": "udpos", "languages": {}}), "cut": "{", "list": "[]"}
    for name, text in foreign.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(text)
    runs, _, notes = load_runs([tmp_path])
    assert len(runs) == 1
    assert sorted(note.partition(":")[0] for note in notes) == sorted(
        str(tmp_path / n / "results.json") for n in foreign
    )
    assert all(note.endswith("; it is left out") for note in notes)
    with pytest.raises(ValueError, match="field metric is missing"):
        load_runs([tmp_path, tmp_path / "quickstart" / "results.json"])


def test_encoders_of_one_name_are_told_apart_by_their_weights(tmp_path):
    def load(*encoders):
        for number, encoder in enumerate(encoders):
            write(tmp_path / f"{number}.json", seed=number, encoder_sha256=encoder or "absent")
        runs, _, notes = load_runs([tmp_path / f"{number}.json" for number in range(len(encoders))])
        return [run.model for run in runs], notes

    assert load(None, None) == (["m", "m"], [])
    assert load("aaaaaaaaaa", None) == (["m", "m"], [])
    models, (note,) = load("aaaaaaaaaa", "bbbbbbbbbb", None)
    assert models == ["m (aaaaaaaa)", "m (bbbbbbbb)", "m (not recorded)"]
    assert note.startswith("2 encoders are called m, so their runs are not compared")
