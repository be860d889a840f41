"""Which runs stand in one table, and what is said of those that do not."""

import dataclasses

import pytest
from made_results import corrupted, make_run

from dlfa.data.examples import TaggedSentence
from dlfa.report.comparison import Comparison, compare
from dlfa.report.runs import load_runs
from dlfa.report.variants import Variant
from dlfa.tasks import TASKS

TASK = TASKS["udpos"]
SENTENCE = TaggedSentence(("a", "b", "c"), ("NOUN", "VERB", "PUNCT"))


def data(languages="en de fr", count=4):
    return {language: [SENTENCE] * count for language in languages.split()}


@pytest.fixture
def made(tmp_path):
    """Makes a run in a folder of its own; `load` reads all of them."""

    class Maker:
        def __call__(self, fusion="last", layer=None, seed=1, content=None, **more):
            folder = tmp_path / f"{len(list(tmp_path.iterdir())):02}"
            make_run(
                folder, content or data(), corrupted(TASK, 0.2), fusion=fusion, fusion_layer=layer, seed=seed, **more
            )

        def load(self, *fields):
            return load_runs([tmp_path], fields).runs

    return Maker()


def labels(comparison):
    return [variant.label for variant in comparison.runs]


def test_variants_and_seeds_are_paired_with_the_baseline(made):
    for seed in (2, 1):
        made("last", seed=seed)
        made("aif", 6, seed=seed)
        made("lower", 6, seed=seed)
    (comparison,) = compare(made.load())
    assert labels(comparison) == ["last", "lower 6", "aif gate 6"]
    assert comparison.seeds == (1, 2)
    assert comparison.languages == ("de", "en", "fr")
    assert comparison.zero_shot == ("de", "fr")
    assert comparison.left_out == ()
    last = Variant("last")
    assert comparison.baselines == {variant: last for variant in comparison.runs if variant != last}
    assert all([run.seed for run in runs] == [1, 2] for runs in comparison.runs.values())


def test_another_protocol_is_left_out_with_a_line(made):
    made("last")
    made("aif", 6)
    made("aif", 4, config={"epochs": 3})
    (comparison,) = compare(made.load())
    assert labels(comparison) == ["last", "aif gate 6"]
    (line,) = comparison.left_out
    assert "aif gate 4, seed 1" in line
    assert "another protocol (epochs 3 instead of 1)" in line


def test_protocols_that_can_be_compared_have_their_own_tables(made):
    for epochs in (1, 3):
        made("last", config={"epochs": epochs})
        made("aif", 6, config={"epochs": epochs})
    comparisons = compare(made.load())
    assert [comparison.protocol["epochs"] for comparison in comparisons] == [1, 3]


def test_the_protocol_of_most_variants_comes_first_and_has_the_notes(made):
    made("aif", 8, config={"epochs": 9})
    for layer, epochs, seeds in ((None, 3, (1, 2)), (6, 3, (1, 2)), (None, 1, (1,)), (4, 1, (1,)), (6, 1, (1,))):
        for seed in seeds:  # the one of fewer variants has more runs
            made("last" if layer is None else "aif", layer, config={"epochs": epochs}, seed=seed)
    most, fewer = compare(made.load())
    assert (most.protocol["epochs"], labels(most)) == (1, ["last", "aif gate 4", "aif gate 6"])
    assert (fewer.protocol["epochs"], labels(fewer)) == (3, ["last", "aif gate 6"])
    (line,) = most.left_out
    assert "aif gate 8, seed 1" in line
    assert "another protocol (epochs 9 instead of 1)" in line
    assert fewer.left_out == ()


@pytest.mark.parametrize("name", ["eval_batch_size", "states_cache", "gradient_checkpointing"])
def test_what_changes_no_result_is_no_protocol(made, name):
    made("last")
    made("aif", 6, config={name: "another"})
    (comparison,) = compare(made.load())
    assert labels(comparison) == ["last", "aif gate 6"]
    assert name not in comparison.protocol


def test_a_compared_field_belongs_to_the_variant(made):
    for rate in (1e-5, 1e-4):
        made("last", config={"learning_rate": rate})
        made("aif", 6, config={"learning_rate": rate})
    (comparison,) = compare(made.load("learning_rate"))
    assert labels(comparison) == [
        "last, learning_rate 0.0001", "last, learning_rate 1e-05", "aif gate 6, learning_rate 0.0001",
        "aif gate 6, learning_rate 1e-05",
    ]  # fmt: skip
    assert {a.label: b.label for a, b in comparison.pairs} == {
        "aif gate 6, learning_rate 0.0001": "last, learning_rate 0.0001",
        "aif gate 6, learning_rate 1e-05": "last, learning_rate 1e-05",
    }
    with pytest.raises(ValueError, match="no run has a field 'rate'; fields are epochs"):
        made.load("rate")


def test_other_seeds_are_left_out_with_a_line(made):
    for seed in (1, 2, 3):
        made("last", seed=seed)
    for seed in (1, 2, 3):
        made("aif", 6, seed=seed)
    made("aif", 4, seed=1)
    made("aif", 2, seed=9)
    wide, narrow = compare(made.load())
    assert (wide.seeds, labels(wide)) == ((1, 2, 3), ["last", "aif gate 6"])
    assert "aif gate 4 is left out: seeds 1, this comparison needs 1, 2, 3" in wide.left_out
    assert (narrow.seeds, labels(narrow)) == ((1,), ["last", "aif gate 4", "aif gate 6"])
    assert "aif gate 2 is left out: seeds 9, this comparison needs 1" in narrow.left_out
    assert any("aif gate 2: seeds 9 stand in no comparison" in line for line in narrow.left_out)


def test_seeds_in_common_are_compared(made):
    for seed in (1, 2, 3):
        made("last", seed=seed)
    for seed in (2, 3, 4):
        made("aif", 6, seed=seed)
    (comparison,) = compare(made.load())
    assert comparison.seeds == (2, 3)
    assert sorted(comparison.left_out) == [
        "aif gate 6: seeds 4 stand in no comparison, as the runs to compare with are missing",
        "last: seeds 1 stand in no comparison, as the runs to compare with are missing",
    ]


def test_unequal_sets_of_languages_are_refused_and_named(made):
    made("last")
    made("aif", 6)
    made("aif", 4, content=data("en de"))
    (comparison,) = compare(made.load())
    assert labels(comparison) == ["last", "aif gate 6"]
    (line,) = comparison.left_out
    assert "aif gate 4" in line
    assert "not evaluated on fr, and a mean over unequal sets of languages is refused" in line
    (both,) = compare(made.load(), languages=["en", "de"])
    assert labels(both) == ["last", "aif gate 4", "aif gate 6"]
    assert both.left_out == ()


@pytest.mark.parametrize("step", [1, -1])
def test_runs_of_other_languages_have_no_say_in_the_number_of_examples(made, step):
    for languages in ("de en", "de en es fr zh"):
        made("last", content=data(languages))
        made("aif", 6, content=data(languages))
    runs = made.load()[::step]
    (comparison,) = compare(runs)
    assert comparison.languages == ("de", "en", "es", "fr", "zh")
    assert labels(comparison) == ["last", "aif gate 6"]
    assert all(len(run.scores) == 5 for several in comparison.runs.values() for run in several)
    (line,) = comparison.left_out
    assert line.startswith("left out are 2 runs,")
    assert "not evaluated on es, fr, zh" in line
    (both,) = compare(runs, languages=["de", "en"])
    assert labels(both) == ["last", "aif gate 6"]


@pytest.mark.parametrize("step", [1, -1])
def test_the_number_of_examples_is_one_that_a_run_has(made, step):
    made("last", content=data("en", 3) | data("de", 5))
    made("aif", 6, content=data("en", 5) | data("de", 3))
    (comparison,) = compare(made.load()[::step])
    assert labels(comparison) == ["last"]
    assert (
        "aif gate 6, seed 1): evaluated on other numbers of examples (de 3 for 5, en 5 for 3)"
        in (comparison.left_out[0])
    )


def test_what_cannot_be_compared_is_a_line_beside_what_can(made):
    for fusion, layer in (("last", None), ("aif", 6)):
        made(fusion, layer)
    runs = made.load()
    scores = {"de": {"f1": 0.5}, "en": {"f1": 0.5, "accuracy": 0.5}, "fr": {"f1": 0.5}}
    others = [dataclasses.replace(run, task="uner", scores=scores) for run in runs]
    (comparison,) = compare([*others, *runs], metric="accuracy")
    assert (comparison.task, labels(comparison)) == ("udpos", ["last", "aif gate 6"])
    (line,) = comparison.left_out
    assert line.startswith("no run of uner, tiny can be compared: left out are 2 runs,")
    assert line.endswith("the results hold no accuracy")
    with pytest.raises(ValueError, match="no run of uner, tiny can be compared: left out are 2 runs,"):
        compare(others, metric="accuracy")


def test_a_comparison_checks_itself(made):
    made("last")
    made("aif", 6, content=data("en de"))
    runs = made.load()
    (comparison,) = compare(runs, languages=["en", "de"])
    with pytest.raises(ValueError, match="not evaluated on fr"):
        dataclasses.replace(comparison, languages=("en", "de", "fr"))
    with pytest.raises(ValueError, match="needed the seeds 1, 2, got 1"):
        dataclasses.replace(comparison, seeds=(1, 2))
    assert isinstance(comparison, Comparison)


def test_languages_that_few_runs_have_do_not_count(made):
    made("last")
    made("aif", 6)
    made("aif", 4, content=data("en de fr zh"))
    (comparison,) = compare(made.load())
    assert labels(comparison) == ["last", "aif gate 4", "aif gate 6"]
    assert comparison.left_out == ("zh do not count, as most runs were not evaluated on them",)


def test_other_numbers_of_examples_are_left_out(made):
    made("last")
    made("aif", 6)
    made("aif", 4, content=data(count=3))
    (comparison,) = compare(made.load())
    assert labels(comparison) == ["last", "aif gate 6"]
    assert "evaluated on other numbers of examples (de 3 for 4, en 3 for 4, fr 3 for 4)" in comparison.left_out[0]


def test_a_repeated_run_is_left_out(made):
    made("last")
    made("aif", 6)
    made("aif", 6)
    (comparison,) = compare(made.load())
    assert len(comparison.runs) == 2
    assert "is a run of the same variant, protocol and seed" in comparison.left_out[0]


def test_runs_of_one_reason_share_a_line(made):
    made("last")
    made("aif", 6)
    for layer in (2, 4):
        made("aif", layer, content=data("en de"))
    (comparison,) = compare(made.load())
    (line,) = comparison.left_out
    assert line.startswith("left out are 2 runs,")
    assert line.count("aif gate") == 2


def test_any_variant_can_be_the_baseline(made):
    made("lower", 6)
    made("aif", 6)
    (comparison,) = compare(made.load())
    assert comparison.pairs == []
    (comparison,) = compare(made.load(), baseline="lower 6")
    assert [(a.label, b.label) for a, b in comparison.pairs] == [("aif gate 6", "lower 6")]


@pytest.mark.parametrize(
    ("name", "value"), [("task", "panx"), ("model", "other"), ("split", "dev"), ("train_language", "de")]
)
def test_tasks_models_splits_and_languages_of_training_stand_apart(made, name, value):
    made("last")
    runs = made.load()
    found = compare([*runs, dataclasses.replace(runs[0], **{name: value})])
    assert [getattr(comparison, name) for comparison in found] == [getattr(runs[0], name), value]


def test_names_that_are_nowhere_are_listed(made):
    made("last")
    runs = made.load()
    with pytest.raises(ValueError, match="no run is 'lower 3'; there are last"):
        compare(runs, baseline="lower 3")
    with pytest.raises(ValueError, match="no run was evaluated on 'xx'; there are de, en, fr"):
        compare(runs, languages=["xx"])
    with pytest.raises(ValueError, match="no results hold 'bleu'; there are accuracy, f1, xtreme_span_f1"):
        compare(runs, metric="bleu")
