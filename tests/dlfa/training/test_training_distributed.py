"""The same command under torchrun: two processes see the batches that one would, and one of them writes."""

import pytest
from launched_training import assert_same_weights, train_in_processes


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one(tmp_path):
    flags = ("--epochs", 3, "--gradient-accumulation", 2)
    (two, table), (one, _) = (train_in_processes(tmp_path, processes, *flags) for processes in (2, 1))
    assert (two["config"]["processes"], one["config"]["processes"]) == (2, 1)
    assert two["train"]["steps"] == one["train"]["steps"] == 9
    # Of three seeds, the losses are apart by 5e-8, relatively, and weights by 3e-6: biases of attention's keys, which
    # by rounding alone have a gradient.
    assert two["train"]["loss"] == pytest.approx(one["train"]["loss"], rel=1e-6)
    assert_same_weights(tmp_path / "2", tmp_path / "1", atol=3e-5)
    examples = [{name: scores["examples"] for name, scores in run["languages"].items()} for run in (two, one)]
    assert examples == [{"en": 10, "de": 10, "fr": 10}] * 2
    assert table.count("average, zero-shot") == 1
    assert not (tmp_path / "2" / "checkpoints").exists()
