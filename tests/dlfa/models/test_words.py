"""Means over sub-words."""

import pytest
import torch
from tiny_encoders import WIDTH, batch
from tiny_models import build

from dlfa.models.words import mean_of_subwords

WORDS = torch.tensor([[-1, 0, 0, 1, 2, 2, -1], [-1, 0, 1, -1, -1, -1, -1]])


@pytest.mark.parametrize("fusion", ["sum", "aif"])
def test_what_the_states_of_padding_hold_does_not_matter(fusion: str) -> None:
    model = build(label_subword="mean", fusion=fusion)
    mask = batch()["attention_mask"]
    last, lower = torch.randn(2, 2, 7, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model.head_from_states(last, [lower], mask, word_index=WORDS).logits
        for states in (last, lower):
            states[mask == 0] = torch.nan
        assert torch.equal(model.head_from_states(last, [lower], mask, word_index=WORDS).logits, expected)
    assert expected.isfinite().all()


def test_states_of_no_word_have_no_part_and_no_gradient() -> None:
    states = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(1))
    expected = mean_of_subwords(states, WORDS)
    spoilt = states.clone()
    spoilt[WORDS == -1] = torch.nan
    spoilt.requires_grad_()
    found = mean_of_subwords(spoilt, WORDS)
    assert torch.equal(found, expected)
    found.sum().backward()
    assert spoilt.grad is not None
    assert torch.equal(spoilt.grad[WORDS == -1], torch.zeros_like(states[WORDS == -1]))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_sums_are_in_float32_or_wider(dtype: torch.dtype, autocast: bool) -> None:
    # In bfloat16, 256 + 1 + 1 + ... is 256; in float32 the mean is exact before it is rounded once.
    states = torch.cat([torch.full((1, 1, 3), 256.0), torch.ones(1, 511, 3)], dim=1).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        mean = mean_of_subwords(states, torch.zeros(1, 512, dtype=torch.int64))
    assert mean.dtype == dtype
    assert torch.equal(mean, torch.full((1, 1, 3), 767 / 512, dtype=torch.float64).to(dtype))
