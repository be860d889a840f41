"""A frozen encoder under torchrun: one process computes the states, both train on them."""

import pytest
from launched_training import assert_same_weights, train_in_processes


@pytest.mark.slow
def test_two_processes_train_on_states_as_one(tmp_path):
    results, files = [], []
    for processes in (2, 1):
        cache = tmp_path / f"cache{processes}"
        flags = ("--epochs", 2, "--gradient-accumulation", 1, "--freeze-encoder", "--states-cache", cache)
        results.append(train_in_processes(tmp_path, processes, *flags)[0])
        files.append(sorted(path.name for path in cache.rglob("*.npy")))
    two, one = results
    # Of three seeds, the losses are apart by 5e-8, relatively, and weights by 5e-7.
    assert two["train"]["loss"] == pytest.approx(one["train"]["loss"], rel=1e-6)
    assert_same_weights(tmp_path / "2", tmp_path / "1", atol=5e-6)
    assert files[0] == files[1] != []
