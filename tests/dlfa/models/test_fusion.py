"""The fusions against their formulas, and their one interface."""

import pytest
import torch
from torch.nn import functional as F

from dlfa import DLFAConfig
from dlfa.models.fusion import (
    AIFSequence,
    Fusion,
    LastLayer,
    LayerSum,
    LowerLayer,
    ResidualSequence,
    ScalarMix,
    build_fusion,
)

MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
ENCODER = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}


def states(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 5, 32, generator=generator) for _ in range(count)]


def fusion(**fields: object) -> Fusion:
    torch.manual_seed(0)
    built = build_fusion(DLFAConfig(encoder_config=ENCODER, **fields))
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return built


def test_each_mode_builds_its_fusion() -> None:
    assert isinstance(fusion(), LastLayer)
    assert isinstance(fusion(fusion="lower", fusion_layer=1), LowerLayer)
    assert isinstance(fusion(fusion="sum", fusion_layer=1), LayerSum)
    assert isinstance(fusion(fusion="scalar_mix"), ScalarMix)
    control = fusion(
        fusion="residual", fusion_layer=[1, 3], squeeze_dim=20, kernel_size=3, activation="gelu", gate_bias=-2.0,
    )  # fmt: skip
    assert isinstance(control, ResidualSequence)
    assert [(step.squeeze_dim, step.kernel_size, step.activation) for step in control.aif] == [(20, 3, "gelu")] * 2
    aif = fusion(
        fusion_layer=[1, 3], fuse="select", squeeze_dim=20, kernel_size=3, activation="gelu", gate_bias=-2.0,
        aif_backend="eager",
    )  # fmt: skip
    assert isinstance(aif, AIFSequence)
    assert len(aif.aif) == 2
    for module in aif.aif:
        assert (module.fuse, module.squeeze_dim, module.kernel_size) == ("select", 20, 3)
        assert (module.activation, module.gate_bias, module.backend) == ("gelu", -2.0, "eager")
    assert fusion(fusion_layer=1, reduction=2).aif[0].squeeze_dim == 16
    assert list(fusion().parameters()) == []


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"fusion": "lower", "fusion_layer": 2},
        {"fusion": "sum", "fusion_layer": [2, 0]},
        {"fusion": "scalar_mix", "fusion_layer": [2, 0]},
        {"fusion": "scalar_mix", "scalar_mix_layer_norm": True},
        {"fusion": "residual", "fusion_layer": 2},
        {"fusion": "residual", "fusion_layer": [2, 0, 1], "kernel_size": 3},
        {"fusion_layer": 2},
        {"fusion_layer": [2, 0, 1], "fuse": "select", "kernel_size": 3},
    ],
)
def test_one_token_is_that_row_of_all(fields: dict[str, object]) -> None:
    config = DLFAConfig(encoder_config=ENCODER, **fields)
    last, *lowers = states(1 + config.num_lower_inputs)
    module = fusion(**fields)
    whole = module(last, lowers, MASK)
    assert whole.shape == last.shape
    torch.testing.assert_close(module(last, lowers, MASK, token=0), whole[:, 0])
    half = module(last.bfloat16(), [lower.bfloat16() for lower in lowers], MASK)
    assert half.dtype == torch.bfloat16
    # of 40 seeds, the worst is off by 2.2 eps of 1 + |value|: three steps of the residual control, each rounded
    eps = torch.finfo(torch.bfloat16).eps
    torch.testing.assert_close(half[0].float(), whole[0], rtol=4 * eps, atol=4 * eps)


def test_last_lower_and_sum() -> None:
    last, first, second = states(3)
    assert torch.equal(LastLayer()(last, [], MASK), last)
    assert torch.equal(LowerLayer()(last, [first], MASK), first)
    torch.testing.assert_close(LayerSum()(last, [first, second], MASK), last + first + second)


def test_scalar_mix_is_gamma_times_the_softmax_weighted_sum() -> None:
    last, first, second = states(3)
    mix = ScalarMix(3)
    torch.testing.assert_close(mix(last, [first, second]), (last + first + second) / 3)
    with torch.no_grad():
        mix.scalars.copy_(torch.tensor([1.0, -1.0, 0.5]))
        mix.gamma.fill_(2.0)
    weights = torch.softmax(torch.tensor([1.0, -1.0, 0.5]), 0)
    expected = 2 * (weights[0] * first + weights[1] * second + weights[2] * last)
    torch.testing.assert_close(mix(last, [first, second]), expected)
    with pytest.raises(ValueError, match="argument"):
        mix(last, [first])


def test_scalar_mix_of_16_bits_is_float32_rounded_once() -> None:
    mix, layers = ScalarMix(3), [layer.bfloat16() for layer in states(3)]
    with torch.no_grad():
        mix.scalars.copy_(torch.tensor([0.3, -0.2, 0.7]))
        expected = mix(layers[2].float(), [layer.float() for layer in layers[:2]])
        found = mix(layers[2], layers[:2])
        half = mix.bfloat16()
        rounded = torch.softmax(half.scalars.float(), dim=0)
    assert torch.equal(found, expected.bfloat16())
    assert torch.equal(half.weights(), rounded)


def test_scalar_mix_normalises_each_layer_token_by_token() -> None:
    last, lower = states(2)
    mix = ScalarMix(2, layer_norm=True)
    expected = (F.layer_norm(last * 100 + 3, (32,)) + F.layer_norm(lower, (32,))) / 2
    torch.testing.assert_close(mix(last * 100 + 3, [lower]), expected)


def test_scalar_mix_drops_layers_in_training_alone() -> None:
    mix = ScalarMix(4, layer_dropout=0.5)
    torch.manual_seed(0)
    drawn = torch.stack([mix.weights() for _ in range(400)])
    torch.testing.assert_close(drawn.sum(1), torch.ones(400))
    shares = {round(share, 4) for share in drawn.flatten().tolist()}
    assert shares == {0.0, 1.0, 0.5, 0.3333, 0.25}  # 1 to 4 layers left; where all were dropped, all are kept
    assert 0.4 < (drawn == 0).float().mean() < 0.5  # 1/2, less 1/16 where none is dropped
    mix.eval()
    torch.testing.assert_close(mix.weights(), torch.full((4,), 0.25))


@pytest.mark.parametrize("mode", ["aif", "residual"])
def test_several_layers_are_fused_in_sequence(mode: str) -> None:
    last, first, second = states(3)
    sequence = fusion(fusion=mode, fusion_layer=[2, 0])
    step = sequence.aif[0](last, first, MASK)
    torch.testing.assert_close(sequence(last, [first, second], MASK), sequence.aif[1](step, second, MASK))
    # the last step alone is confined to the token, the ones before it feed its pooling
    torch.testing.assert_close(
        sequence(last, [first, second], MASK, token=0), sequence.aif[1](step, second, MASK, token=0)
    )
    with pytest.raises(ValueError, match="argument"):
        sequence(last, [first], MASK)


def test_gates_are_those_of_each_step() -> None:
    last, first, second = states(3)
    sequence = fusion(fusion_layer=[2, 0])
    step = sequence.aif[0](last, first, MASK)
    gates = sequence.gates(last, [first, second], MASK)
    torch.testing.assert_close(gates[0], sequence.aif[0].gate(last, first, MASK))
    torch.testing.assert_close(gates[1], sequence.aif[1].gate(step, second, MASK))
    assert gates[1].shape == last.shape
    assert sequence.gates(last, [first, second], MASK, token=0)[1].shape == (2, 32)


def test_padding_never_reaches_aif() -> None:
    last, lower = states(2)
    module = fusion(fusion_layer=2)
    clean = module(last, [lower], MASK)
    last[1, 3:], lower[1, 3:] = torch.nan, torch.inf
    torch.testing.assert_close(module(last, [lower], MASK), clean)
    assert (clean[1, 3:] == 0).all()
