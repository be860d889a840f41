"""The longest sequence: that of the position table, less what RoBERTa keeps free in it."""

import pytest
import torch
from tiny_encoders import tiny_encoder
from transformers import GPT2Config, GPT2Model, XLNetConfig, XLNetModel

from dlfa import DLFAModel
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


def test_relative_positions_have_no_limit_and_gpt2s_table_has_one():
    assert longest_sequence(XLNetModel(XLNetConfig(vocab_size=60, d_model=32, n_layer=1, n_head=4, d_inner=48))) is None
    gpt2 = GPT2Model(GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=16)).eval()
    assert longest_sequence(gpt2) == 16
    with pytest.raises(ValueError, match="16"):
        DLFAModel.from_encoder(gpt2, fusion_layer=1)(torch.full((1, 17), 5))
