"""A second input from outside the encoder."""

from pathlib import Path

import pytest
import torch
from tiny_encoders import WIDTH, batch, tiny_encoder

from dlfa import DLFAForSequenceClassification, DLFAForTokenClassification, DLFAModel


def features(width: int, length: int = 7) -> torch.Tensor:
    return torch.randn(2, length, width, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    "fields", [{}, {"fuse": "select"}, {"fusion": "sum"}, {"fusion": "scalar_mix"}, {"fusion": "residual"}]
)
def test_it_takes_the_place_of_the_lower_layer(fields: dict) -> None:
    torch.manual_seed(0)
    model = DLFAForTokenClassification.from_encoder(tiny_encoder("bert"), 1, 5, **fields).eval()
    with torch.no_grad():
        layer = model.encoder_states(**batch()).lowers[0]
        assert torch.equal(model(**batch(), external_features=layer).logits, model(**batch()).logits)
        assert not torch.allclose(model(**batch(), external_features=features(WIDTH)).logits, model(**batch()).logits)


@pytest.mark.parametrize("fusion_layer", [1, None])
def test_another_width_is_projected(fusion_layer: int | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = DLFAForSequenceClassification.from_encoder(tiny_encoder("bert"), fusion_layer, 3, feature_dim=12).eval()
    given = features(12).requires_grad_()
    output = model(**batch(), external_features=given, labels=torch.tensor([0, 1]))
    output.loss.backward()
    assert given.grad.abs().sum() > 0
    assert model.feature_projection.weight.grad.abs().sum() > 0
    with torch.no_grad():
        states = model.encoder_states(**batch())
        assert len(states.lowers) == (0 if fusion_layer is None else 1)
        fused = model.fusion(states.last, [model.feature_projection(given)], batch()["attention_mask"], token=0)
        torch.testing.assert_close(output.logits, model.classifier(fused))
        apart = model.head_from_states(states.last, states.lowers, batch()["attention_mask"], external_features=given)
        torch.testing.assert_close(apart.logits, output.logits)
    model.save_pretrained(tmp_path)
    loaded = DLFAForSequenceClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(**batch(), external_features=given).logits, output.logits)


def test_the_encoders_own_width_needs_no_projection() -> None:
    model = DLFAModel.from_encoder(tiny_encoder("bert"), None, feature_dim=WIDTH)
    assert model.feature_projection is None
    assert model(**batch(), external_features=features(WIDTH).half()).last_hidden_state.dtype == torch.float32


@pytest.mark.parametrize(
    ("fields", "given", "error", "message"),
    [
        ({"feature_dim": 12}, features(13), ValueError, r"\(B, T, feature_dim\) = \(2, 7, 12\), got \(2, 7, 13\)"),
        ({"fusion_layer": 1}, features(12), ValueError, r"\(B, T, E\) = \(2, 7, 32\), got \(2, 7, 12\)"),
        ({"feature_dim": 12}, features(12, length=6), ValueError, r"got \(2, 6, 12\)"),
        (
            {"feature_dim": 12},
            features(12).long(),
            TypeError,
            "external_features must be floating point, got torch.int64",
        ),
        ({"feature_dim": 12}, None, ValueError, "external_features must be given"),
        ({"fusion_layer": [1, 2]}, features(WIDTH), ValueError, "stands for one lower layer.*'aif'.* takes 2"),
        ({}, features(WIDTH), ValueError, "stands for one lower layer.*'last'.* takes 0"),
    ],
)
def test_what_does_not_fit_is_named_before_any_work(
    fields: dict, given: torch.Tensor | None, error: type, message: str
) -> None:
    model = DLFAModel.from_encoder(tiny_encoder("bert"), **{"fusion_layer": None, **fields})
    model.encoder.forward = None  # must not be reached
    with pytest.raises(error, match=message):
        model(**batch(), external_features=given)
