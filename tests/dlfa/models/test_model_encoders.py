"""Every family of encoders: the right states, gradients, checkpointing, saving."""

import gc
import weakref
from pathlib import Path

import pytest
import torch
from tiny_encoders import FAMILIES, LAYERS, SPECIAL, batch, tiny_encoder
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertModel,
    CLIPTextConfig,
    CLIPTextModel,
    FunnelConfig,
    FunnelModel,
    PreTrainedModel,
    SqueezeBertConfig,
    SqueezeBertModel,
    XLNetConfig,
    XLNetModel,
)
from transformers.modeling_outputs import BaseModelOutput

from dlfa import DLFAForTokenClassification, DLFAModel
from dlfa.models.encoder_states import encoder_blocks, keep_block_inputs, run_encoder

EVERY = [*FAMILIES, *SPECIAL]


def token_classifier(family: str, **changes: object) -> DLFAForTokenClassification:
    torch.manual_seed(1)
    return DLFAForTokenClassification.from_encoder(tiny_encoder(family, **changes), fusion_layer=1, num_labels=5)


@pytest.mark.parametrize("family", EVERY)
def test_states_are_the_hidden_states_of_transformers(family: str) -> None:
    encoder = tiny_encoder(family)
    with torch.no_grad():
        expected = encoder(**batch(), output_hidden_states=True)
        states = DLFAModel.from_encoder(encoder, fusion_layer=1).encoder_states(**batch(), layers=range(LAYERS))
    assert torch.equal(states.last, expected.last_hidden_state)
    assert len(states.lowers) == LAYERS
    for layer, state in enumerate(states.lowers):
        torch.testing.assert_close(state, expected.hidden_states[layer], rtol=0, atol=0, msg=f"layer {layer}")
    different = [not torch.equal(state, states.last) for state in states.lowers]
    assert all(different)


def test_states_of_an_encoder_that_calls_its_blocks_past_their_hooks() -> None:
    config = SqueezeBertConfig(
        vocab_size=60, hidden_size=32, embedding_size=32, num_hidden_layers=LAYERS, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = DLFAForTokenClassification.from_encoder(SqueezeBertModel(config).eval(), fusion_layer=1, num_labels=5)
    runs = []
    model.encoder.register_forward_hook(lambda *_: runs.append(1))
    with torch.no_grad():
        expected = model.encoder(**batch(), output_hidden_states=True)
    for number in (3, 4):  # the encoder runs twice until it is known
        states = model.encoder_states(**batch(), layers=range(LAYERS))
        assert len(runs) == number
        assert all(torch.equal(state, expected.hidden_states[layer]) for layer, state in enumerate(states.lowers))
    model(**batch(), labels=torch.ones(2, 7, dtype=torch.long)).loss.backward()
    assert model.encoder.embeddings.word_embeddings.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "encoder",
    [
        XLNetModel(XLNetConfig(vocab_size=60, d_model=32, n_layer=LAYERS, n_head=4, d_inner=48, dropout=0.0)),
        AlbertModel(
            AlbertConfig(
                vocab_size=60, embedding_size=16, hidden_size=32, num_hidden_layers=2, inner_group_num=2,
                num_attention_heads=4, intermediate_size=48, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
            )
        ),
    ],
    ids=["tokens first", "blocks that run twice"],
)  # fmt: skip
def test_states_of_encoders_whose_blocks_do_not_see_them_as_they_are(encoder: PreTrainedModel) -> None:
    ids = torch.randint(5, 60, (4, 4))  # as many sequences as tokens
    model = DLFAModel.from_encoder(encoder.eval(), fusion_layer=1)
    layers = range(encoder.config.num_hidden_layers)
    with torch.no_grad():
        expected = encoder(ids, output_hidden_states=True).hidden_states
        states = model.encoder_states(ids, layers=layers)
    for layer in layers:
        assert torch.equal(states.lowers[layer], expected[layer]), layer


def test_a_layer_of_fewer_tokens_is_named() -> None:
    config = FunnelConfig(vocab_size=60, d_model=32, block_sizes=[2, 2], n_head=4, d_head=8, d_inner=48)
    encoder = FunnelModel(config).eval()
    DLFAModel.from_encoder(encoder, fusion_layer=1)(**batch())
    with pytest.raises(ValueError, match=r"fusion_layer 3 must have the last layer's shape, \(2, 7, 32\), the encoder"):
        DLFAModel.from_encoder(encoder, fusion_layer=3)(**batch())


def test_an_encoder_without_inputs_embeds() -> None:
    config = CLIPTextConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=LAYERS, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=64, eos_token_id=2,
    )  # fmt: skip
    encoder, ids = CLIPTextModel(config).eval(), batch()["input_ids"]
    with torch.no_grad():
        expected = encoder(ids, output_hidden_states=True)
        states = DLFAModel.from_encoder(encoder, fusion_layer=1).encoder_states(ids)
    assert torch.equal(states.last, expected.last_hidden_state)
    assert torch.equal(states.lowers[0], expected.hidden_states[1])


def test_states_are_of_the_final_norm_where_an_encoder_has_one() -> None:
    encoder = tiny_encoder("modernbert")
    with torch.no_grad():
        before_norm = []
        encoder.layers[-1].register_forward_hook(lambda _module, _args, output: before_norm.append(output))
        states = DLFAModel.from_encoder(encoder, fusion_layer=1).encoder_states(**batch())
        torch.testing.assert_close(states.last, encoder.final_norm(before_norm[0]))


@pytest.mark.parametrize("family", EVERY)
def test_no_other_layer_is_kept(family: str) -> None:
    model = DLFAModel.from_encoder(tiny_encoder(family), fusion_layer=1)
    shared = [module for module in model.encoder.modules() if type(module).__name__ == "AlbertLayerGroup"]
    blocks = encoder_blocks(model.encoder, LAYERS) or shared
    outputs: list[weakref.ref[torch.Tensor]] = []

    def remember(_module: nn.Module, _args: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        outputs.append(weakref.ref(output[0] if isinstance(output, tuple) else output))

    for block in blocks:
        block.register_forward_hook(remember)
    with torch.no_grad():
        states = model.encoder_states(**batch())
    gc.collect()
    assert len(outputs) == LAYERS
    alive = [state for reference in outputs if (state := reference()) is not None]
    # A view keeps its base alive, so storages are what counts.
    wanted = {state.untyped_storage().data_ptr() for state in (states.last, *states.lowers)}
    assert {state.untyped_storage().data_ptr() for state in alive} <= wanted
    del states, alive, state
    gc.collect()
    assert not any(reference() is not None for reference in outputs)  # the run itself has let go of what it handed over


@pytest.mark.parametrize("family", EVERY)
def test_gradients_reach_the_embeddings_the_fusion_and_the_head(family: str) -> None:
    model = token_classifier(family)
    inputs = batch()
    model(**inputs, labels=inputs["input_ids"] % 5).loss.backward()
    embeddings = model.get_input_embeddings().weight.grad
    assert embeddings is not None
    assert embeddings.abs().sum() > 0
    for name, parameter in [*model.fusion.named_parameters(), *model.classifier.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_changes_no_gradient(family: str, reentrant: bool) -> None:
    if family == "deberta-v2" and reentrant:
        pytest.skip("transformers hands DeBERTa's blocks a tensor with a gradient by keyword: only non-reentrant works")
    inputs = batch()
    gradients = []
    for checkpointed in (False, True):
        model = token_classifier(family).train()
        model.dropout.p = 0.0
        if checkpointed:
            # the new name, or the one before transformers 5.20
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": reentrant})
        model(**inputs, labels=inputs["input_ids"] % 5).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    plain, recomputed = gradients
    for name, gradient in plain.items():
        if gradient is None:
            assert recomputed[name] is None, name
        else:
            torch.testing.assert_close(recomputed[name], gradient, msg=name)


@pytest.mark.parametrize("family", EVERY)
def test_padding_changes_nothing(family: str) -> None:
    model = token_classifier(family).eval()
    padded = batch((7, 4))
    alone = {name: value[1:, :4] for name, value in padded.items()}
    with torch.no_grad():
        torch.testing.assert_close(model(**padded).logits[1:, :4], model(**alone).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", EVERY)
def test_saved_and_loaded_model_gives_the_same(family: str, tmp_path: Path) -> None:
    model = token_classifier(family).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # nothing may fall back to its initial value unseen
            parameter.add_(torch.randn_like(parameter) * 0.01)
    model.save_pretrained(tmp_path)
    loaded, report = DLFAForTokenClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    with torch.no_grad():
        assert torch.equal(loaded(**batch()).logits, model(**batch()).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_implementation_passes_through(family: str, tmp_path: Path) -> None:
    encoder = tiny_encoder(family)
    encoder.save_pretrained(tmp_path)
    logits = []
    for implementation in ("eager", "sdpa"):
        if implementation == "sdpa" and not encoder._supports_sdpa:
            with pytest.raises(ValueError, match="scaled_dot_product_attention"):
                DLFAModel.from_encoder(tmp_path, fusion_layer=1, attn_implementation=implementation)
            continue
        model = DLFAModel.from_encoder(tmp_path, fusion_layer=1, attn_implementation=implementation)
        assert model.encoder.config._attn_implementation == implementation
        assert model.config._attn_implementation == implementation
        with torch.no_grad():
            logits.append(model.encoder_states(**batch()).last[batch()["attention_mask"].bool()])
    for other in logits[1:]:
        torch.testing.assert_close(other, logits[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16(family: str) -> None:
    model = token_classifier(family).to(torch.bfloat16)
    output = model(**batch(), labels=batch()["input_ids"] % 5)
    assert output.logits.dtype == torch.bfloat16
    output.loss.backward()
    assert model.fusion.aif[0].local_expand.weight.grad.isfinite().all()


@pytest.mark.parametrize("family", ["bert", "modernbert", "xlm-roberta-xl", "deberta-v2"])
def test_autocast_over_float32_parameters(family: str) -> None:
    model = token_classifier(family).eval()
    exact = model(**batch()).logits
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**batch(), labels=batch()["input_ids"] % 5)
    output.loss.backward()
    assert model.fusion.aif[0].local_expand.weight.grad.dtype == torch.float32
    eps = torch.finfo(torch.bfloat16).eps  # four times what the worst of 8 seeds is off by, deberta-v2's
    torch.testing.assert_close(output.logits.float(), exact, rtol=eps, atol=eps)


@pytest.mark.parametrize("family", EVERY)
def test_hidden_states_and_attentions_are_returned_when_asked_for(family: str) -> None:
    encoder = tiny_encoder(family, attn_implementation="eager")
    model = DLFAModel.from_encoder(encoder, fusion_layer=1)
    with torch.no_grad():
        output = model(**batch(), output_hidden_states=True, output_attentions=True)
        assert len(output.hidden_states) == LAYERS + 1
        assert len(output.attentions) == LAYERS
        bare = model(**batch())
    assert bare.hidden_states is None
    assert bare.attentions is None
    assert torch.equal(bare.last_hidden_state, output.last_hidden_state)


@pytest.mark.parametrize("again", [False, True])
def test_layers_are_counted_anew_where_blocks_are_removed(again: bool) -> None:
    encoder = tiny_encoder("bert")
    model = DLFAModel.from_encoder(encoder, fusion_layer=1)
    encoder.encoder.layer = encoder.encoder.layer[1:]
    encoder.config.num_hidden_layers = LAYERS - 1
    if again:
        model = DLFAModel.from_encoder(encoder, fusion_layer=1)
    layers = range(LAYERS - 1)
    with torch.no_grad():
        expected = encoder(**batch(), output_hidden_states=True).hidden_states
        for _ in range(2):  # known from the first run on
            states = model.encoder_states(**batch(), layers=layers)
            assert all(torch.equal(states.lowers[layer], expected[layer]) for layer in layers)


def test_of_a_block_that_runs_again_the_encoder_itself_tells_the_input() -> None:
    """Layers of two blocks each, over the same two: the first input of the second block is no layer."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

        def forward(self, states: torch.Tensor, output_hidden_states: bool = False, return_dict: bool = True):
            layers = [states]
            for _ in range(2):
                for block in self.blocks:
                    states = block(states)
                layers.append(states)
            return BaseModelOutput(states, tuple(layers) if output_hidden_states else None)

    encoder, states = Shared(), torch.randn(2, 3, 4)
    assert keep_block_inputs(encoder, 2)
    for _ in range(2):  # known from the first run on
        found = run_encoder(encoder, (1,), True, states=states)
        assert torch.equal(found.lowers[0], encoder.blocks[1](encoder.blocks[0](states)))
