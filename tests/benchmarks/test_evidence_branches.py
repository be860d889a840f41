"""The altered branches are what the table says."""

import dataclasses

import pytest
import torch

from benchmarks.evidence import branches
from benchmarks.evidence.branches import ALTERED, COLUMNS, branches_table
from benchmarks.evidence.rows import write_csv
from dlfa.models.configuration import DLFAConfig
from dlfa.models.fusion import build_fusion
from dlfa.models.residual import ResidualBranches


def built(name, layers=1):
    altered = dataclasses.replace(ALTERED[name], layers=layers)
    fusion, _, fuse = altered.mode.partition(" ")
    config = DLFAConfig(
        encoder_config={"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2},
        fusion=fusion, fusion_layer=altered.layers, squeeze_dim=16, **({"fuse": fuse} if fuse else {}),
    )  # fmt: skip
    with altered.in_place():
        return build_fusion(config)


@pytest.fixture
def states():
    return torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(0))


def trained(fusion):
    for parameter in fusion.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))
    return fusion


def test_both_is_the_control_itself():
    assert type(built("both").aif[0]) is ResidualBranches
    assert build_fusion.__globals__["ResidualBranches"] is ResidualBranches  # what was put in place is gone


@pytest.mark.parametrize(("name", "left_out"), [("global", "local"), ("local", "global")])
def test_one_branch_alone_never_sees_the_others_parameters(name, left_out, states):
    fusion = trained(built(name))
    z = fusion(states[0], [states[1]])
    branch = getattr(fusion.aif[0], f"{left_out}_squeeze")
    torch.nn.init.normal_(branch.weight)
    assert torch.equal(fusion(states[0], [states[1]]), z)
    assert not torch.equal(z, states[0] + states[1])


@pytest.mark.parametrize(("name", "read"), [("last", 0), ("lower-6", 1)])
def test_one_layer_alone_is_all_that_is_read(name, read, states):
    fusion = trained(built(name))
    changed = states.clone()
    changed[1 - read] += 1
    z = fusion(states[0], [states[1]])
    assert torch.equal(fusion(changed[0], [changed[1]]), z)
    alone = trained(ResidualBranches(8, squeeze_dim=16))
    alone.load_state_dict(fusion.aif[0].state_dict())
    assert torch.equal(z, alone(states[read]))


def test_starts(states):
    assert torch.equal(built("both")(states[0], [states[1]]), states[0] + states[1])
    assert not torch.equal(built("start")(states[0], [states[1]]), states[0] + states[1])
    gate = built("gate").gates(states[0], [states[1]])[0]
    torch.testing.assert_close(gate, torch.full_like(gate, 0.5))


def test_the_table_has_the_means_over_seeds(tmp_path):
    assert branches_table(tmp_path / "branches.csv") is None
    rows = [
        dict(zip(COLUMNS, (name, "pos-frozen", seed, "accuracy", "0.9", score, "2.0", "abc"), strict=True))
        for name, seed, score in (("both", "1", "0.70"), ("both", "2", "0.72"), ("global", "1", "0.5"))
    ]
    write_csv(tmp_path / "branches.csv", COLUMNS, rows)
    table = branches_table(tmp_path / "branches.csv")
    assert table.columns[-1] == "POS, accuracy"
    assert [row[1:] for row in table.rows[:3]] == [("-", "-", "-", "71.0"), ("-", "-", "-", "50.0"), ("-",) * 4]
    assert len(table.rows) == len(branches.ALTERED)
