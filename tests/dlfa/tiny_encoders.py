"""Random encoders of every supported family, small enough for a test: 3 layers, 32 channels, 60 pieces."""

import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

LAYERS, WIDTH, VOCABULARY = 3, 32, 60
_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
}
_OWN = {
    "bert": {},
    "distilbert": {"hidden_dim": 48},
    "xlm-roberta": {},
    "xlm-roberta-xl": {},
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": ["p2c", "c2p"],
        "conv_kernel_size": 3,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
    },
    "modernbert": {"bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2},
    "electra": {"embedding_size": 16},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
}
FAMILIES = tuple(_OWN)
# Blocks that are shared, and states that are padded inside, need their own way to the hidden states.
SPECIAL = {
    "albert": {"embedding_size": 16},
    "longformer": {"attention_window": 4, "bos_token_id": 0, "eos_token_id": 2},
}


def tiny_config(family: str, **changes: object) -> PreTrainedConfig:
    """The configuration of a small encoder, without dropout unless `changes` say otherwise."""
    values = {**_COMMON, **{**_OWN, **SPECIAL}[family]}
    config = AutoConfig.for_model(family, **{**values, **changes})
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"):
        if hasattr(config, name) and name not in changes:
            setattr(config, name, 0.0)
    return config


def tiny_encoder(family: str, **changes: object) -> PreTrainedModel:
    """A small random encoder in evaluation mode; the same weights at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModel.from_config(tiny_config(family, **changes)).eval()


def batch(lengths: tuple[int, ...] = (7, 4), seed: int = 0) -> dict[str, torch.Tensor]:
    """Random sequences, padded on the right: input_ids and attention_mask."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    mask = torch.tensor([[int(position < length) for position in range(longest)] for length in lengths])
    ids = torch.randint(3, VOCABULARY, (len(lengths), longest), generator=generator)
    return {"input_ids": torch.where(mask.bool(), ids, 1), "attention_mask": mask}
