"""The models as their users call them: heads, words, states and saving."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import infer_auto_device_map
from tiny_encoders import WIDTH, batch, tiny_config, tiny_encoder
from tiny_models import HEADS, build
from torch.nn import functional as F

from dlfa import (
    DLFAConfig,
    DLFAForQuestionAnswering,
    DLFAForSequenceClassification,
    DLFAForTokenClassification,
    DLFAModel,
)
from dlfa.models import heads
from dlfa.models.fusion_names import FUSIONS

ALL_MODES = [
    {"fusion_layer": None, "fusion": "last"},
    {"fusion_layer": 1, "fusion": "lower"},
    {"fusion_layer": [0, 2], "fusion": "sum"},
    {"fusion_layer": None, "fusion": "scalar_mix", "layer_dropout": 0.1},
    {"fusion_layer": [2, 0], "fusion": "residual", "kernel_size": 3},
    {"fusion_layer": -2, "fusion": "aif", "fuse": "gate"},
    {"fusion_layer": [2, 0], "fusion": "aif", "fuse": "select", "kernel_size": 3},
]
assert {mode["fusion"] for mode in ALL_MODES} == set(FUSIONS)


def task_labels(head: type, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Labels for `head`, to be learnt at real tokens."""
    if head is DLFAForTokenClassification:
        return {"labels": torch.where(inputs["attention_mask"] == 1, inputs["input_ids"] % 5, -100)}
    if head is DLFAForSequenceClassification:
        return {"labels": inputs["input_ids"][:, 0] % 5}
    if head is DLFAForQuestionAnswering:
        return {"start_positions": torch.tensor([1, 0]), "end_positions": torch.tensor([3, 2])}
    return {}


@pytest.mark.parametrize(
    ("family", "of_encoder", "given", "expected"),
    [
        ("bert", {"hidden_dropout_prob": 0.3}, None, 0.3),
        ("bert", {"hidden_dropout_prob": 0.0}, None, 0.0),
        ("bert", {"hidden_dropout_prob": 0.3, "classifier_dropout": 0.2}, None, 0.2),
        ("bert", {"hidden_dropout_prob": 0.3, "classifier_dropout": 0.0}, None, 0.0),
        ("bert", {"hidden_dropout_prob": 0.3, "classifier_dropout": 0.2}, 0.4, 0.4),
        ("bert", {"hidden_dropout_prob": 0.3}, 0.0, 0.0),
        ("albert", {"hidden_dropout_prob": 0.0, "classifier_dropout_prob": 0.2}, None, 0.2),
    ],
)
@pytest.mark.parametrize("head", [DLFAForTokenClassification, DLFAForSequenceClassification])
def test_dropout_before_the_head_is_the_models_own_or_the_encoders(
    head: type, family: str, of_encoder: dict, given: float | None, expected: float
) -> None:
    config = DLFAConfig(encoder_config=tiny_config(family, **of_encoder), classifier_dropout=given)
    with torch.device("meta"):
        assert head(config).dropout.p == expected


@pytest.mark.parametrize("mode", ALL_MODES, ids=str)
@pytest.mark.parametrize("head", HEADS)
def test_every_head_with_every_fusion_runs_learns_and_is_saved(head: type, mode: dict, tmp_path: Path) -> None:
    model = build(head, **mode)
    inputs = batch()
    labels = task_labels(head, inputs)
    output = model.train()(**inputs, **labels)
    loss = output.loss if labels else output.last_hidden_state.square().mean()
    loss.backward()
    assert model.get_input_embeddings().weight.grad.abs().sum() > 0
    for name, parameter in model.named_parameters():
        if not name.startswith("encoder."):
            assert parameter.grad is not None, name
    model.eval().save_pretrained(tmp_path)
    loaded = head.from_pretrained(tmp_path)
    assert loaded.config.to_diff_dict() == model.config.to_diff_dict()
    with torch.no_grad():
        for before, after in zip(model(**inputs).to_tuple(), loaded(**inputs).to_tuple(), strict=True):
            assert torch.equal(before, after)


@pytest.mark.parametrize("head", HEADS)
def test_states_and_head_called_apart_give_what_forward_gives(head: type) -> None:
    model, inputs = build(head, fusion_layer=[2, 0]), batch()
    labels = task_labels(head, inputs)
    with torch.no_grad():
        whole = model(**inputs, **labels, output_gate=True)
        states = model.encoder_states(**inputs)
        apart = model.head_from_states(states.last, states.lowers, inputs["attention_mask"], **labels, output_gate=True)
        for one, other in zip(whole.to_tuple(), apart.to_tuple(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
        # as kept on disk in half precision
        kept = [state.half() for state in (states.last, *states.lowers)]
        half = model.head_from_states(kept[0], kept[1:], inputs["attention_mask"], **labels)
        field = next(iter(set(whole.keys()) & {"logits", "start_logits", "last_hidden_state"}))
        eps = torch.finfo(torch.float16).eps  # of 20 seeds, the worst is off by 0.6 eps of 1 + |value|
        torch.testing.assert_close(half[field].float(), whole[field], rtol=2 * eps, atol=2 * eps)
    assert len(whole.gate) == 2
    assert whole.gate[0].shape == ((2, WIDTH) if head is DLFAForSequenceClassification else (2, 7, WIDTH))
    assert ((whole.gate[0] >= 0) & (whole.gate[0] <= 1)).all()


def test_a_frozen_encoder_is_trained_from_kept_states_and_saved_as_any_model(tmp_path: Path) -> None:
    model, inputs = build(), batch((9, 6, 3))
    encoder = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    labels = task_labels(DLFAForTokenClassification, inputs)["labels"]
    with torch.no_grad():
        states = model.encoder_states(**inputs)
    model.encoder.requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model.head_from_states(states.last, states.lowers, inputs["attention_mask"], labels=labels).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(value, encoder[name])
    model.save_pretrained(tmp_path)
    loaded = DLFAForTokenClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs, labels=labels).loss, model(**inputs, labels=labels).loss)


def test_sequence_classification_sees_the_fused_first_token() -> None:
    model, inputs = build(DLFAForSequenceClassification, fuse="select"), batch()
    with torch.no_grad():
        states = model.encoder_states(**inputs)
        fused = model.fusion(states.last, states.lowers, inputs["attention_mask"])
        torch.testing.assert_close(model(**inputs).logits, model.classifier(fused[:, 0]))


def test_sequence_classification_refuses_left_padding() -> None:
    model, inputs = build(DLFAForSequenceClassification), batch()
    flipped = {name: value.flip(1) for name, value in inputs.items()}
    with pytest.raises(ValueError, match=r"attention_mask must be true at the first token.*sequence 1 starts with pad"):
        model(**flipped)
    inputs["attention_mask"][1] = 0  # a sequence without any token is no such case
    assert model(**inputs).logits.isfinite().all()


def test_left_padding_is_asserted_where_the_mask_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "values_can_be_read", lambda tensor: False)
    model, inputs = build(DLFAForSequenceClassification), batch()
    flipped = {name: value.flip(1) for name, value in inputs.items()}
    assert model(**flipped).logits.isfinite().all()  # on the CPU nothing else can be done
    monkeypatch.setattr(heads, "values_can_be_asserted", lambda tensor: True)
    for mask in (flipped["attention_mask"], flipped["attention_mask"].bool()):
        with pytest.raises(RuntimeError, match="attention_mask must be true at the first token"):
            model(**{**flipped, "attention_mask": mask})
    inputs["attention_mask"][1] = 0
    assert model(**inputs).logits.isfinite().all()


ON_GPU = """
import torch
from tiny_encoders import batch
from tiny_models import build
from dlfa import DLFAForSequenceClassification
from dlfa.models.heads import _first_token_is_real
model = build(DLFAForSequenceClassification).cuda()
inputs = {name: values.cuda() for name, values in batch().items()}
torch.cuda.set_sync_debug_mode("error")
_first_token_is_real(inputs["attention_mask"])
torch.cuda.set_sync_debug_mode("default")
model(**inputs)
torch.cuda.synchronize()
print("right", flush=True)
model(**{name: values.flip(1) for name, values in inputs.items()})
torch.cuda.synchronize()
print("left")
"""


@pytest.mark.gpu
def test_a_gpu_stops_at_left_padding() -> None:
    places = os.pathsep.join((str(Path(__file__).parents[1]), *sys.path))
    variables = {**os.environ, "PYTHONPATH": places, "DLFA_VALIDATE": "0"}
    ended = subprocess.run([sys.executable, "-c", ON_GPU], env=variables, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert ended.stdout == "right\n"
    assert "assert" in ended.stderr


def test_regression_and_several_labels() -> None:
    inputs = batch()
    model = build(DLFAForSequenceClassification, num_labels=1)
    output = model(**inputs, labels=torch.tensor([0.5, -1.0]))
    torch.testing.assert_close(output.loss, F.mse_loss(output.logits[:, 0], torch.tensor([0.5, -1.0])))
    model = build(DLFAForSequenceClassification, num_labels=3, problem_type="multi_label_classification")
    wanted = torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    output = model(**inputs, labels=wanted)
    torch.testing.assert_close(output.loss, F.binary_cross_entropy_with_logits(output.logits, wanted))


@pytest.mark.parametrize("fusion", ["aif", "sum", "last"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_sequences_are_classified_by_the_mean_of_their_tokens(fusion: str, side: str) -> None:
    model = build(DLFAForSequenceClassification, num_labels=3, fusion=fusion, classifier_pooling="mean")
    inputs = batch()
    if side == "left":
        inputs = {name: values.flip(1) for name, values in inputs.items()}
    mask = inputs["attention_mask"]
    with torch.no_grad():
        states = model.encoder_states(**inputs)
        fused = model.fusion(states.last, states.lowers, mask)
        means = torch.stack([states[real == 1].mean(0) for states, real in zip(fused, mask, strict=True)])
        torch.testing.assert_close(model(**inputs).logits, model.classifier(means))
        whole = {"input_ids": inputs["input_ids"][:1]}
        alone = model(**whole, attention_mask=torch.ones_like(whole["input_ids"])).logits
        torch.testing.assert_close(model(**whole).logits, alone)
        empty = model.head_from_states(states.last, states.lowers, torch.zeros_like(mask)).logits
        torch.testing.assert_close(empty, model.classifier.bias.expand(2, 3))
    if fusion == "aif":
        (gate,) = model(**inputs, output_gate=True).gate
        assert gate.shape == (2, 7, WIDTH)


WORDS = torch.tensor([[-1, 0, 0, 1, 2, 2, -1], [-1, 0, 1, -1, -1, -1, -1]])


def test_words_are_classified_by_the_mean_of_their_subwords() -> None:
    model, inputs = build(label_subword="mean"), batch()
    with torch.no_grad():
        tokens = model(**inputs).logits  # the head is linear, so the mean may be taken after it
        words = model(**inputs, word_index=WORDS).logits
    assert tokens.shape == (2, 7, 5)
    expected = torch.stack([tokens[0, 1:3].mean(0), tokens[0, 3], tokens[0, 4:6].mean(0)])
    torch.testing.assert_close(words[0], expected)
    torch.testing.assert_close(words[1, :2], tokens[1, 1:3])
    torch.testing.assert_close(words[1, 2], model.classifier.bias)  # no such word
    labels = torch.tensor([[4, 0, 1, -100], [2, 3, -100, -100]])
    output = model(**inputs, word_index=WORDS, labels=labels)
    assert output.logits.shape == (2, 4, 5)
    chosen = labels != -100
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits[chosen], labels[chosen]))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(**inputs, word_index=WORDS).logits.float()
    eps = torch.finfo(torch.bfloat16).eps  # seven times what the worst of 12 seeds is off by
    torch.testing.assert_close(rounded, words, rtol=eps, atol=eps)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"word_index": WORDS.int()}, TypeError, "word_index must be int64, got torch.int32"),
        ({"word_index": WORDS[:, :5]}, ValueError, r"word_index must have shape \(B, T\) = \(2, 7\), got \(2, 5\)"),
        ({"word_index": WORDS - 1}, ValueError, "word_index must hold words numbered from 0, or -1.*got -2"),
        ({"word_index": WORDS, "labels": torch.zeros(2, 2).long()}, ValueError, "one column a word, 3 .*got 2"),
        (
            {"word_index": WORDS, "labels": torch.tensor([[0, 1, 2], [0, 1, 2]])},
            ValueError,
            "labels must be -100 for a word without a token in word_index, got 2 for word 2 of sequence 1",
        ),
        ({"word_index": WORDS, "labels": torch.zeros(3, 3).long()}, ValueError, r"labels must have shape \(B, W\)"),
        ({"labels": torch.zeros(2, 5).long()}, ValueError, r"labels must have shape \(B, T\) = \(2, 7\), got \(2, 5\)"),
    ],
)
def test_bad_words_and_labels_are_named_before_any_work(arguments: dict, error: type, message: str) -> None:
    model = build(label_subword="mean")
    model.encoder.forward = None  # must not be reached
    with pytest.raises(error, match=message):
        model(**batch(), **arguments)


def test_words_need_a_model_that_was_made_for_them() -> None:
    with pytest.raises(ValueError, match="word_index needs label_subword='mean', this model has 'last'"):
        build(label_subword="last")(**batch(), word_index=WORDS)


def test_other_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="output_gate needs fusion='aif', this model has fusion='sum'"):
        build(fusion="sum")(**batch(), output_gate=True)
    with pytest.raises(ValueError, match=r"layers must be in 0\.\.2, got 3"):
        build().encoder_states(**batch(), layers=[3])
    with pytest.raises(ValueError, match="lowers must hold 1 layers, got 0"):
        build().head_from_states(torch.randn(2, 7, WIDTH))
    with pytest.raises(ValueError, match=r"last must have shape \(B, T, E\) with E = 32, got \(2, 7, 31\)"):
        build().head_from_states(torch.randn(2, 7, WIDTH - 1), [torch.randn(2, 7, WIDTH - 1)])
    with pytest.raises(ValueError, match="given together, got no end_positions"):
        build(DLFAForQuestionAnswering)(**batch(), start_positions=torch.tensor([0, 1]))
    wrong = torch.ones(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"start_positions must have shape \(B,\) = \(2,\), got \(2, 3\)"):
        build(DLFAForQuestionAnswering)(**batch(), start_positions=wrong, end_positions=wrong[:, 0])
    with pytest.raises(ValueError, match="end_positions must not be negative, got -5"):
        build(DLFAForQuestionAnswering)(
            **batch(), start_positions=torch.tensor([0, 1]), end_positions=torch.tensor([1, -5])
        )
    with pytest.raises(TypeError, match=r"start_positions must be int64, got torch\.float32"):
        build(DLFAForQuestionAnswering)(**batch(), start_positions=torch.ones(2), end_positions=torch.ones(2))
    with pytest.raises(ValueError, match="labels must have B = 2 rows"):
        build(DLFAForSequenceClassification)(**batch(), labels=torch.tensor([1]))


@pytest.mark.parametrize(
    ("num_labels", "labels", "message"),
    [
        (3, torch.zeros(2, 7).long(), r"labels must have shape \(B,\) = \(2,\), got \(2, 7\)"),
        (3, torch.zeros(2, 2), r"labels must have shape \(B, C\) = \(2, 3\), got \(2, 2\)"),
        (1, torch.zeros(2, 2), r"labels must have shape \(B,\) = \(2,\), got \(2, 2\)"),
    ],
)
def test_labels_of_sequences_that_do_not_fit_the_problem(num_labels: int, labels: torch.Tensor, message: str) -> None:
    model = build(DLFAForSequenceClassification, num_labels=num_labels)
    with pytest.raises(ValueError, match=message):
        model(**batch(), labels=labels)
    fitting = labels.new_zeros((2, 3) if num_labels == 3 and labels.is_floating_point() else (2, 1))
    assert model(**batch(), labels=fitting).loss.isfinite()


@pytest.mark.parametrize(
    ("problem", "num_labels", "shape", "form"),
    [
        ("regression", 3, (2, 3, 1), r"\(B, C\) = \(2, 3\)"),
        ("regression", 3, (2, 1, 3), r"\(B, C\) = \(2, 3\)"),
        ("regression", 1, (2, 1, 1), r"\(B,\) = \(2,\)"),
        (None, 3, (2, 3, 1), r"\(B, C\) = \(2, 3\)"),
        ("multi_label_classification", 3, (2, 3, 1), r"\(B, C\) = \(2, 3\)"),
        ("multi_label_classification", 1, (2,), r"\(B, C\) = \(2, 1\)"),
    ],
)
def test_labels_are_told_by_their_shape_not_by_how_many_there_are(
    problem: str | None, num_labels: int, shape: tuple[int, ...], form: str
) -> None:
    model = build(DLFAForSequenceClassification, num_labels=num_labels, problem_type=problem).eval()
    with pytest.raises(ValueError, match=rf"labels must have shape {form}, got {re.escape(str(shape))}"):
        model(**batch(), labels=torch.zeros(shape))
    labels = torch.rand(2, num_labels)
    output = model(**batch(), labels=labels)
    loss = F.mse_loss if problem == "regression" else F.binary_cross_entropy_with_logits
    torch.testing.assert_close(output.loss, loss(output.logits, labels))


def test_integer_labels_of_several_problems_are_named() -> None:
    model = build(DLFAForSequenceClassification, num_labels=3, problem_type="multi_label_classification")
    with pytest.raises(TypeError, match=r"labels must be floating point for problem_type 'multi_.*, got torch\.int64"):
        model(**batch(), labels=torch.zeros(2, 3).long())


@pytest.mark.parametrize("fusion", [each for each in FUSIONS if each != "last"])
def test_kept_layers_that_do_not_fit_are_named_whatever_fuses_them(fusion: str) -> None:
    model, last = build(fusion=fusion), torch.randn(2, 7, WIDTH)
    with pytest.raises(ValueError, match=r"lowers\[0\] must have the shape of last, \(2, 7, 32\), got \(1, 7, 32\)"):
        model.head_from_states(last, [last[:1]])
    with pytest.raises(TypeError, match=r"lowers\[0\] must have the dtype of last, torch.float32, got torch.float16"):
        model.head_from_states(last, [last.half()])


@pytest.mark.parametrize(
    ("family", "of_encoder", "tokens", "sequences"),
    [
        ("distilbert", {"dropout": 0.1, "seq_classif_dropout": 0.2}, 0.1, 0.2),
        ("deberta-v2", {"hidden_dropout_prob": 0.1, "cls_dropout": 0.3}, 0.1, 0.3),
    ],
)
def test_some_encoders_have_another_dropout_before_heads_over_sequences(
    family: str, of_encoder: dict, tokens: float, sequences: float
) -> None:
    for head, rate in ((DLFAForTokenClassification, tokens), (DLFAForSequenceClassification, sequences)):
        encoder = tiny_encoder(family, **of_encoder)
        assert head.from_encoder(encoder, fusion_layer=1, num_labels=3).dropout.p == rate


def test_a_bool_mask_reaches_encoders_that_compute_with_it() -> None:
    model = DLFAModel.from_encoder(tiny_encoder("deberta-v2", conv_kernel_size=3), fusion_layer=1)
    inputs = batch()
    expected = model(**inputs).last_hidden_state
    inputs["attention_mask"] = inputs["attention_mask"].bool()
    assert torch.equal(model(**inputs).last_hidden_state, expected)


def test_the_gate_is_the_last_of_a_tuple() -> None:
    model, inputs = build(), batch()
    labels = torch.zeros_like(inputs["input_ids"])
    asked = {"output_gate": True, "output_hidden_states": True, "output_attentions": True}
    named = model(**inputs, labels=labels, **asked)
    assert list(named) == ["loss", "logits", "hidden_states", "attentions", "gate"]
    several = model(**inputs, labels=labels, **asked, return_dict=False)
    assert isinstance(several, tuple)
    assert [tuple(value.shape) for value in several[:2]] == [(), (2, 7, 5)]
    assert all(torch.equal(a, b) for a, b in zip(several[-1], named.gate, strict=True))


@pytest.mark.parametrize("fusion", ["aif", "residual"])
def test_neither_a_fusion_nor_a_block_of_the_encoder_is_spread_over_devices(fusion: str) -> None:
    model = build(fusion=fusion)
    size = sum(parameter.nbytes for parameter in model.parameters())
    for share in (0.5, 0.7, 0.9, 0.95, 0.98):
        places = infer_auto_device_map(
            model, {0: int(share * size), 1: 2 * size}, no_split_module_classes=list(model._no_split_modules)
        )
        assert not any(re.search(r"local_|global_|\.layer\.\d+\.", name) for name in places), places


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification", "single_label_classification"])
def test_accumulated_batches_have_the_loss_of_one(problem: str) -> None:
    model = build(DLFAForSequenceClassification, problem_type=problem)
    inputs, labels = batch(), torch.rand(2, model.num_labels)
    if problem == "single_label_classification":
        labels = labels.argmax(1)
    whole = model(**inputs, labels=labels).loss
    parts = [
        model(
            **{name: value[row : row + 1] for name, value in inputs.items()}, labels=labels[row : row + 1],
            num_items_in_batch=torch.tensor(labels.numel()),
        ).loss
        for row in range(2)
    ]  # fmt: skip
    torch.testing.assert_close(sum(parts), whole)


def test_a_model_over_an_encoder_is_in_evaluation_mode() -> None:
    model = DLFAForTokenClassification.from_encoder(tiny_encoder("bert"), fusion_layer=1, num_labels=3)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("head", HEADS)
def test_a_misspelt_argument_of_the_head_is_named(head: type) -> None:
    model, last = build(head), torch.randn(2, 7, WIDTH)
    with pytest.raises(TypeError, match=f"unknown keyword 'lables'; {head.__name__} takes .*output_gate"):
        model.head_from_states(last, [last], lables=torch.zeros(2, 7).long())
    assert model.head_from_states(last, [last], num_items_in_batch=torch.tensor(3)) is not None


def test_embeddings_in_place_of_ids() -> None:
    model, inputs = build(), batch()
    embedded = model.get_input_embeddings()(inputs["input_ids"])
    torch.testing.assert_close(
        model(inputs_embeds=embedded, attention_mask=inputs["attention_mask"]).logits, model(**inputs).logits
    )


def test_token_types_reach_an_encoder_that_has_them() -> None:
    inputs = batch()
    types = torch.ones_like(inputs["input_ids"])
    bert, distilbert = build(), build(family="distilbert")
    assert not torch.equal(bert(**inputs, token_type_ids=types).logits, bert(**inputs).logits)
    assert torch.equal(distilbert(**inputs, token_type_ids=types).logits, distilbert(**inputs).logits)
