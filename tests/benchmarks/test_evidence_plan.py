"""The plan: names that speak, options that are known, and the configuration that a name stands for."""

from pathlib import Path

import pytest

from benchmarks.evidence.groups import Ensemble, Group, Places, planned_runs, variant
from benchmarks.evidence.plan import PLAN

PLACES = Places("encoder", Path("data"), Path("runs"), Path("cache"))


def group(*variants, **changes):
    values = {"name": "pos", "question": "?", "task": "udpos", "regime": "frozen", "variants": variants}
    return Group(**{**values, "options": {"squeeze_dim": 96, "epochs": 2, "languages": "en,de"}, **changes})


def test_the_plan_itself_can_be_run():
    runs, ensembles = planned_runs(PLAN)
    names = [run.name for run in runs] + [ensemble.name for ensemble in ensembles]
    assert len(set(names)) == len(names)
    for run in runs:
        assert run.config(PLACES).output_dir == Path("runs") / run.name


def test_names_show_mode_layers_and_what_differs_from_the_group():
    made = group(
        variant("last"),
        variant("lower", 0, 3),
        variant("scalar_mix"),
        variant("aif select", (6, 4), squeeze_dim=16, gate_bias=-2.0, seeds=(7,)),
        variant("aif gate", 6, squeeze_dim=96, head_learning_rate=1e-2),
        variant("last", intermediate=("sick", "uner")),
        seeds=(1, 2),
    )
    assert [run.name for run in made.runs() if run.seed == 1] == [
        "pos/last/seed1", "pos/lower-0/seed1", "pos/lower-3/seed1", "pos/scalar_mix/seed1",
        "pos/aif-gate-6-headlr0.01/seed1", "pos/last-intermediate-sick+uner/seed1",
    ]  # fmt: skip
    assert [run.name for run in made.runs() if run.seed == 7] == ["pos/aif-select-6-4-h16-bias-2/seed7"]


def test_a_name_stands_for_its_configuration():
    made = group(variant("aif select", (6, 4), squeeze_dim=16, weight_decay=0.1, intermediate=("sick",)), seeds=(5,))
    config = made.runs()[0].config(PLACES)
    assert config.model_options == {"fusion": "aif", "fuse": "select", "fusion_layer": [6, 4], "squeeze_dim": 16}
    assert (config.task, config.seed, config.epochs, config.weight_decay) == ("udpos", 5, 2, 0.1)
    assert (config.freeze_encoder, config.languages) == (True, ("en", "de"))
    assert config.data_dir == Path("data/udpos")
    assert config.intermediate == ("sick:data/sick",)
    few = group(variant("last"), regime="few-shot 100").runs()[0].config(PLACES)
    assert (few.freeze_encoder, few.max_train_examples) == (False, 100)


def test_patterns_choose_runs_and_ensembles():
    made = group(
        variant("last"), variant("lower", 1, 2), seeds=(1, 2), keep_models=True,
        ensembles=(Ensemble("seeds", ("last/seed1", "last/seed2")),),
    )  # fmt: skip
    runs, ensembles = planned_runs((made,), ["pos/lower-*/seed1", "*/last/seed2"])
    assert [run.name for run in runs] == ["pos/lower-1/seed1", "pos/lower-2/seed1", "pos/last/seed2"]
    assert not ensembles
    assert planned_runs((made,), ["*ensemble*"])[1][0].members == ("pos/last/seed1", "pos/last/seed2")
    with pytest.raises(ValueError, match="no run's name matches 'nothing'; groups are pos"):
        planned_runs((made,), ["pos/*", "nothing"])
    with pytest.raises(ValueError, match="two groups of one name: pos"):
        planned_runs((made, made))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: variant("aif"),
            "mode must be one of last, lower, sum, scalar_mix, residual, aif gate, aif select, got 'aif'",
        ),
        (lambda: variant("last", 3), "takes no layers"),
        (lambda: variant("sum"), "needs at least one layer"),
        (lambda: variant("last", sqeeze_dim=3), "unknown option sqeeze_dim; valid are activation, "),
        (lambda: group(variant("last"), regime="half"), "regime must be one of full, frozen, few-shot 100"),
        (lambda: group(variant("last"), task="pos"), "unknown task 'pos'"),
        (lambda: group(variant("last"), options={"seed": 3}), "group pos: unknown option seed"),
        (lambda: group(variant("last"), name="a b"), "a group's name must be"),
        (lambda: group(variant("last"), variant("last")), "runs of one name: pos/last/seed1"),
        (lambda: group(variant("last"), ensembles=(Ensemble("two", ("last/seed1",)),)), "runs of one name|members"),
        (
            lambda: group(variant("last"), seeds=(1, 2), ensembles=(Ensemble("n", ("last/seed1", "last/seed3")),)),
            "members, got",
        ),
    ],
)
def test_what_is_wrong_with_a_plan_is_said(make, message):
    with pytest.raises(ValueError, match=message):
        make()
