"""Bad arguments of the models: refused before the encoder runs, by every head and every way of fusing alike."""

from typing import Any

import pytest
import torch
from tiny_encoders import VOCABULARY, WIDTH, batch
from tiny_models import HEADS, build
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import CanineConfig, CanineModel

from dlfa import (
    DLFAForSequenceClassification,
    DLFAForTokenClassification,
)
from dlfa.models.input_checks import check_keywords, check_vocabulary, values_can_be_asserted
from dlfa.training.embedding_rows import train_rows

FUSIONS = [{"fusion_layer": None}, {"fusion_layer": 1, "fusion": "sum"}, {"fusion_layer": 1}]
IDS = torch.randint(5, 30, (2, 7))
MASKS: list[tuple[Any, type[Exception], str]] = [
    (torch.ones(2, 5, dtype=torch.int64), ValueError, r"attention_mask .* shape \(B, T\) = \(2, 7\), got \(2, 5\)"),
    (torch.ones(3, 7, dtype=torch.int64), ValueError, r"attention_mask .* got \(3, 7\)"),
    (torch.ones(2, 1, 1, 7, dtype=torch.int64), ValueError, r"attention_mask .* got \(2, 1, 1, 7\)"),
    (torch.ones(2, 7), TypeError, r"attention_mask must be bool or integer .* got torch\.float32"),
    ([[1] * 7] * 2, TypeError, r"attention_mask must be a torch\.Tensor, got list"),
    (torch.ones(2, 7, dtype=torch.bool, device="meta"), ValueError, "attention_mask must be on the device .* got meta"),
]
TOKENS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({}, ValueError, "exactly one of input_ids and inputs_embeds"),
    ({"input_ids": IDS, "inputs_embeds": torch.zeros(2, 7, WIDTH)}, ValueError, "exactly one of input_ids and"),
    ({"input_ids": IDS[0]}, ValueError, r"input_ids must have shape \(B, T\), got \(7,\)"),
    ({"input_ids": IDS.float()}, TypeError, r"input_ids must be int64 or int32, got torch\.float32"),
    ({"input_ids": IDS.tolist()}, TypeError, r"input_ids must be a torch\.Tensor, got list"),
    ({"inputs_embeds": torch.zeros(2, WIDTH)}, ValueError, r"inputs_embeds must have shape \(B, T, E\)"),
    ({"inputs_embeds": torch.zeros(2, 7, WIDTH).int()}, TypeError, "inputs_embeds must be floating point"),
]


def without_encoder(model: Any) -> Any:
    model.encoder.forward = None  # must not be reached
    return model


@pytest.mark.parametrize("fusion", FUSIONS, ids=str)
@pytest.mark.parametrize("head", HEADS)
def test_masks_that_do_not_fit(head: type, fusion: dict[str, Any]) -> None:
    model = without_encoder(build(head, **fusion))
    for mask, error, message in MASKS:
        with pytest.raises(error, match=message):
            model(IDS, mask)
        with pytest.raises(error, match=message):
            model.encoder_states(IDS, mask)
        with pytest.raises(error, match=message):
            model.head_from_states(torch.zeros(2, 7, WIDTH), [torch.zeros(2, 7, WIDTH)], mask)


@pytest.mark.parametrize("head", HEADS)
def test_tokens_that_do_not_fit(head: type) -> None:
    model = without_encoder(build(head))
    for tokens, error, message in TOKENS:
        with pytest.raises(error, match=message):
            model(**tokens)
        with pytest.raises(error, match=message):
            model.encoder_states(**tokens)


@pytest.mark.parametrize("wrong", [-1, VOCABULARY])
@pytest.mark.parametrize("head", HEADS)
def test_ids_outside_the_vocabulary(head: type, wrong: int) -> None:
    ids = IDS.clone()
    ids[1, 3] = wrong
    model = without_encoder(build(head))
    message = rf"input_ids must be in 0\.\.{VOCABULARY - 1}, the encoder's vocabulary, got {wrong}"
    with pytest.raises(ValueError, match=message):
        model(ids)
    with pytest.raises(ValueError, match=message):
        model.encoder_states(ids)


@pytest.mark.parametrize(("family", "longest"), [("bert", 64), ("distilbert", 64), ("xlm-roberta", 62)])
@pytest.mark.parametrize("head", HEADS)
def test_sequences_longer_than_the_table_of_positions(head: type, family: str, longest: int) -> None:
    model = build(head, family)
    ids = torch.full((2, longest + 1), 5)
    for name, tokens in (("input_ids", ids), ("inputs_embeds", torch.zeros(*ids.shape, WIDTH))):
        message = f"{name} must hold at most {longest} tokens a sequence, the encoder's positions, got {longest + 1}"
        with pytest.raises(ValueError, match=message):
            model(**{name: tokens})
        model(**{name: tokens[:, 1:]})


def test_padding_takes_no_position_where_the_encoder_counts_none_for_it() -> None:
    ids = torch.full((2, 70), 5)
    ids[:, 62:] = 1
    model = build(DLFAForTokenClassification, "xlm-roberta")
    assert model(ids, (ids != 1).long()).logits.shape[:2] == ids.shape


def test_a_table_that_has_grown_takes_longer_sequences() -> None:
    model = build(DLFAForTokenClassification)
    embeddings, model.encoder.config.max_position_embeddings = model.encoder.embeddings, 70
    embeddings.position_embeddings = torch.nn.Embedding(70, WIDTH)
    embeddings.position_ids, embeddings.token_type_ids = torch.arange(70)[None], torch.zeros(1, 70, dtype=torch.int64)
    assert model(torch.full((1, 70), 5)).logits.shape[1] == 70
    with pytest.raises(ValueError, match="input_ids must hold at most 70 tokens"):
        model(torch.full((1, 71), 5))


@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_positions_that_are_rotary_or_given_set_no_limit(family: str) -> None:
    ids = torch.full((1, 70), 5)
    given = {"position_ids": torch.arange(70)[None].clamp(max=63), "token_type_ids": torch.zeros_like(ids)}
    model = build(DLFAForTokenClassification, family)
    assert model(ids, **(given if family == "bert" else {})).logits.shape[1] == 70


def test_several_sequences_in_a_row_are_refused() -> None:
    model = build(DLFAForTokenClassification)
    ids = torch.full((1, 7), 5)
    several = torch.tensor([[0, 1, 2, 0, 1, 0, 0]])
    for given in ({"position_ids": several}, {"cu_seq_lens_q": torch.tensor([0, 3, 5, 6, 7], dtype=torch.int32)}):
        with pytest.raises(ValueError, match="a row must hold one sequence"):
            model(ids, **given)
    # positions of padding are anybody's
    mask = torch.tensor([[0, 0, 1, 1, 1, 0, 0]])
    assert model(ids, mask, position_ids=torch.tensor([[0, 0, 0, 1, 2, 0, 0]])).logits.isfinite().all()


@pytest.mark.parametrize(("family", "width"), [("bert", 32), ("albert", 16)])
def test_embeddings_of_another_width_are_named(family: str, width: int) -> None:
    model = build(DLFAForTokenClassification, family)
    assert model(inputs_embeds=torch.randn(1, 3, width)).logits.isfinite().all()
    with pytest.raises(ValueError, match=rf"inputs_embeds must have shape \(B, T, {width}\), got \(1, 3, 33\)"):
        model(inputs_embeds=torch.randn(1, 3, 33))


@pytest.mark.parametrize("head", HEADS)
def test_a_misspelt_keyword_is_not_lost(head: type) -> None:
    model = without_encoder(build(head))
    for call in (model, model.encoder_states):
        with pytest.raises(TypeError, match=r"unknown keyword 'atention_mask'; did you mean 'attention_mask'\?"):
            call(IDS, atention_mask=torch.ones_like(IDS))
    with pytest.raises(TypeError, match=r"unknown keyword 'input_id'; did you mean 'input_ids'\?"):
        model(input_id=IDS)


def test_keywords_that_transformers_hands_on() -> None:
    model = build(DLFAForTokenClassification)
    others = ["encoder_attention_mask", "global_attention_mask", "head_mask", "past_key_values", "use_cache"]
    check_keywords(others, model._keywords)
    output = model(IDS, labels=IDS % 2, num_items_in_batch=14, output_attentions=True, cu_seq_lens_q=None)
    assert output.loss.isfinite()


def test_token_types_that_do_not_fit() -> None:
    model = without_encoder(build(DLFAForTokenClassification))
    with pytest.raises(ValueError, match=r"token_type_ids must have shape \(B, T\) = \(2, 7\), got \(2, 5\)"):
        model(IDS, token_type_ids=IDS[:, :5])
    for kind in (torch.float32, torch.bool, torch.uint8):
        with pytest.raises(TypeError, match=f"token_type_ids must be int64 or int32, got {kind}"):
            model(IDS, token_type_ids=torch.zeros_like(IDS, dtype=kind))


@pytest.mark.parametrize(("family", "types"), [("bert", 2), ("longformer", 2), ("deberta-v2", 0), ("modernbert", 0)])
def test_token_types_that_the_encoder_has_not(family: str, types: int) -> None:
    model = build(DLFAForTokenClassification, family)
    model(IDS, token_type_ids=torch.ones_like(IDS, dtype=torch.int32))
    if not types:  # there they mean nothing
        model(IDS, token_type_ids=torch.full_like(IDS, 9))
        return
    for wrong in (-1, types):
        message = rf"token_type_ids must be in 0\.\.{types - 1}, the encoder's token types, got {wrong}"
        with pytest.raises(ValueError, match=message):
            without_encoder(model)(IDS, token_type_ids=torch.full_like(IDS, wrong))


def test_the_vocabulary_of_a_table_whose_weight_lies_elsewhere() -> None:
    encoder = build().encoder
    encoder.get_input_embeddings().weight.data = torch.empty(0)  # as a shard of it is
    check_vocabulary(IDS, encoder)
    with pytest.raises(ValueError, match="input_ids must be in"):
        check_vocabulary(torch.full_like(IDS, VOCABULARY), encoder)


def test_the_vocabulary_of_a_table_whose_rows_are_trained() -> None:
    model = without_encoder(build())
    train_rows(model, [[5]])
    with pytest.raises(ValueError, match="input_ids must be in"):
        model(torch.full_like(IDS, VOCABULARY))


def test_hashed_ids_have_no_vocabulary() -> None:
    config = CanineConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    model = DLFAForTokenClassification.from_encoder(CanineModel(config), None, num_labels=5)
    train_rows(model, [[1]])
    assert model(torch.full((1, 16), 0x1F600)).logits.shape == (1, 16, 5)


@pytest.mark.parametrize("kind", [torch.int32, torch.bool, torch.uint16])
def test_other_integers_give_the_same(kind: torch.dtype) -> None:
    model, inputs = build(), batch()
    expected = model(**inputs).logits
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    assert torch.equal(model(ids.int(), mask.to(kind) if kind is not torch.uint16 else mask.bool()).logits, expected)
    states = model.encoder_states(**inputs)
    assert torch.equal(model.head_from_states(states.last, states.lowers, mask.to(kind)).logits, expected)


@pytest.mark.parametrize(
    ("head", "labels", "error", "message"),
    [
        (DLFAForTokenClassification, torch.full((2, 7), 5), ValueError, r"labels must be in 0\.\.4, or -100 .* got 5"),
        (DLFAForTokenClassification, torch.full((2, 7), -1), ValueError, r"labels must be in 0\.\.4, .* got -1"),
        (DLFAForTokenClassification, torch.zeros(2, 7), TypeError, r"labels must be int64, got torch\.float32"),
        (DLFAForTokenClassification, [[0] * 7] * 2, TypeError, r"labels must be a torch\.Tensor, got list"),
        (DLFAForSequenceClassification, torch.tensor([0, 5]), ValueError, r"labels must be in 0\.\.4, .* got 5"),
        (DLFAForSequenceClassification, [0, 1], TypeError, r"labels must be a torch\.Tensor, got list"),
    ],
)
def test_labels_that_the_model_has_not(head: type, labels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        without_encoder(build(head))(IDS, labels=labels)


def test_labels_that_are_no_classes_are_left_alone() -> None:
    scores = build(DLFAForSequenceClassification, num_labels=1)(IDS, labels=torch.tensor([3, 9]))
    several = build(DLFAForSequenceClassification)(IDS, labels=torch.ones(2, 5))
    words = build(label_subword="mean")(IDS, labels=torch.full((2, 1), -100), word_index=torch.zeros_like(IDS))
    assert scores.loss.isfinite()
    assert several.loss.isfinite()
    assert words.logits.shape == (2, 1, 5)
    with pytest.raises(ValueError, match="labels must be in"):
        build(label_subword="mean")(IDS, labels=torch.full((2, 1), 7), word_index=torch.zeros_like(IDS))


def test_values_are_asserted_by_a_gpu_alone() -> None:
    class OnGPU(torch.Tensor):
        is_cuda = True

    for mask in (torch.ones(2, 7), torch.ones(2, 7, device="meta"), torch.ones(2, 7).as_subclass(OnGPU)):
        assert not values_can_be_asserted(mask)
    with FakeTensorMode():
        assert not values_can_be_asserted(torch.ones(2, 7, device="cuda"))


@pytest.mark.gpu
def test_values_on_a_gpu_are_asserted_outside_of_transformations() -> None:
    mask, seen = torch.ones(2, 7, device="cuda"), []
    assert values_can_be_asserted(mask)
    torch.vmap(lambda row: seen.append(values_can_be_asserted(row)) or row)(mask)
    torch.compile(lambda row: row + values_can_be_asserted(row), backend="eager", fullgraph=True)(mask)
    assert seen == [False]
