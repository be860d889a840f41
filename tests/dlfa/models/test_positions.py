"""The longest sequence: that of the position table, less what RoBERTa keeps free in it."""

import pytest
import torch
from tiny_encoders import tiny_encoder

from dlfa.models.positions import check_length, longest_sequence


@pytest.mark.parametrize(
    ("family", "longest"),
    [
        ("bert", 64),
        ("distilbert", 64),
        ("electra", 64),
        ("xlm-roberta", 62),
        ("xlm-roberta-xl", 62),
        ("longformer", 62),
    ],
)
def test_the_longest_sequence_runs_and_one_more_does_not(family, longest):
    encoder = tiny_encoder(family)
    assert longest_sequence(encoder) == longest
    with torch.inference_mode():
        encoder(input_ids=torch.full((1, longest), 5))
        with pytest.raises((IndexError, RuntimeError)):
            encoder(input_ids=torch.full((1, longest + 1), 5))
    check_length(encoder, "enc", longest)
    with pytest.raises(ValueError, match=f"max_length must be at most {longest} for 'enc', got {longest + 1}"):
        check_length(encoder, "enc", longest + 1)
