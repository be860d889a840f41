"""Inside transformers: pipelines, the Trainer, and what any of its models can do."""

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from tiny_encoders import batch, tiny_encoder
from tiny_models import HEADS, build
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    DataCollatorForTokenClassification,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    pipeline,
)
from transformers.utils import find_labels

import dlfa
from dlfa import DLFAForQuestionAnswering, DLFAForSequenceClassification, DLFAForTokenClassification, DLFAModel

WORDS = [f"w{index}" for index in range(50)]


def save_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", cls_token="<s>", sep_token="</s>"
    )
    fast.save_pretrained(folder)
    return fast


@pytest.mark.parametrize("label_subword", ["first", "last", "mean"])
def test_token_classification_pipeline(label_subword: str, tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path)
    torch.manual_seed(0)
    model = DLFAForTokenClassification.from_encoder(
        tiny_encoder("bert"), 1, id2label={0: "A", 1: "B"}, label2id={"A": 0, "B": 1}, label_subword=label_subword
    )
    model.save_pretrained(tmp_path)
    tagged = pipeline("token-classification", model=str(tmp_path), ignore_labels=[])("w3 w8 w1")
    assert isinstance(tagged, list)
    logits = model.eval()(**tokenizer("w3 w8 w1", return_tensors="pt")).logits[0, 1:-1]
    assert [entry["word"] for entry in tagged] == ["w3", "w8", "w1"]
    assert [entry["entity"] for entry in tagged] == [model.config.id2label[int(one)] for one in logits.argmax(-1)]
    expected = logits.softmax(-1).max(-1).values
    torch.testing.assert_close(torch.tensor([float(entry["score"]) for entry in tagged]), expected)


def test_text_classification_pipeline_pads_and_batches(tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path)
    torch.manual_seed(0)
    model = DLFAForSequenceClassification.from_encoder(tiny_encoder("bert"), 1, 3)
    model.save_pretrained(tmp_path)
    texts = ["w3 w8", "w1 w2 w3 w4 w5"]
    scored = pipeline("text-classification", model=str(tmp_path), top_k=None)(texts, batch_size=2)
    for text, scores in zip(texts, scored, strict=True):
        expected = model.eval()(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0]
        for entry in scores:
            assert entry["score"] == pytest.approx(expected[model.config.label2id[entry["label"]]].item(), abs=1e-5)


def test_feature_extraction_pipeline(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    DLFAModel.from_encoder(tiny_encoder("bert"), 1).save_pretrained(tmp_path)
    features = pipeline("feature-extraction", model=str(tmp_path), return_tensors=True)("w3 w8")
    assert features.shape == (1, 4, 32)


def test_question_answering_takes_pairs(tmp_path: Path) -> None:
    # Transformers 5 has no question-answering pipeline any more.
    tokenizer = save_tokenizer(tmp_path)
    model = DLFAForQuestionAnswering.from_encoder(tiny_encoder("bert"), 1).eval()
    output = model(**tokenizer("w1 w2", "w3 w4 w5", return_tensors="pt"))
    assert output.start_logits.shape == output.end_logits.shape == (1, 8)


class Examples(torch.utils.data.Dataset):
    """A word's tag is its number modulo 3; some positions carry none."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.rows = []
        for index in range(count):
            ids = torch.randint(4, 54, (4 + index % 5,), generator=generator)
            labels = torch.where(torch.arange(len(ids)) % 4 == 3, -100, ids % 3)
            self.rows.append({"input_ids": ids.tolist(), "labels": labels.tolist()})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.rows[index]


def train(folder: Path, **settings: object) -> tuple[Trainer, DLFAForTokenClassification]:
    torch.manual_seed(0)
    model = DLFAForTokenClassification.from_encoder(tiny_encoder("bert"), 0, 3, classifier_dropout=0.0)
    settings = {"learning_rate": 5e-3, "max_steps": 40, "per_device_train_batch_size": 8, **settings}
    arguments = TrainingArguments(
        str(folder), report_to="none", save_strategy="no", disable_tqdm=True, use_cpu=True, seed=0, **settings
    )
    tokenizer = save_tokenizer(folder / "tokenizer")
    trainer = Trainer(
        model, arguments, train_dataset=Examples(40), eval_dataset=Examples(16),
        data_collator=DataCollatorForTokenClassification(tokenizer),
    )  # fmt: skip
    return trainer, model


def test_the_trainer_learns_evaluates_and_predicts(tmp_path: Path) -> None:
    trainer, _ = train(tmp_path)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.3 * before
    predictions = trainer.predict(Examples(16))
    wanted = predictions.label_ids != -100
    assert (predictions.predictions.argmax(-1) == predictions.label_ids)[wanted].mean() > 0.9


def test_accumulated_steps_weigh_tokens_as_one_large_batch(tmp_path: Path) -> None:
    after = []
    for settings in (
        {"per_device_train_batch_size": 8},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    ):
        trainer, model = train(tmp_path, max_steps=2, optim="sgd", learning_rate=0.1, max_grad_norm=0.0, **settings)
        trainer.train()
        after.append(model.classifier.weight.detach().clone())
    torch.testing.assert_close(after[0], after[1], rtol=1e-4, atol=1e-6)


def test_gradient_checkpointing_through_the_trainer(tmp_path: Path) -> None:
    trainer, model = train(tmp_path, max_steps=2, gradient_checkpointing=True)
    trainer.train()
    assert model.encoder.encoder.layer[0].gradient_checkpointing


@pytest.mark.parametrize(("family", "supported"), [("bert", True), ("albert", False)])
def test_gradient_checkpointing_is_refused_where_the_encoder_has_none(family: str, supported: bool) -> None:
    model = build(DLFAForTokenClassification, family)
    assert model.supports_gradient_checkpointing is supported
    if not supported:
        with pytest.raises(ValueError, match=r"does not support (gradient|activation) checkpointing"):
            model.gradient_checkpointing_enable()


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
def test_a_quantized_classifier_takes_the_states_as_they_are() -> None:
    model = build(DLFAForTokenClassification)
    expected = model(**batch()).logits
    classifier = nn.Sequential(model.classifier)
    model.classifier = torch.ao.quantization.quantize_dynamic(classifier, {nn.Linear}, dtype=torch.qint8)[0]
    logits = model(**batch()).logits
    assert 0 < (logits - expected).abs().max() < 0.05 * expected.abs().max()


def test_the_fusion_is_fixed_once_a_model_is_built() -> None:
    for name, value in (("fusion", "sum"), ("fusion_layer", [0, 1])):
        model = build(DLFAForTokenClassification)
        setattr(model.config, name, value)
        with pytest.raises(ValueError, match=r"config must keep the fusion .* built with, 'aif' and 1, got"):
            model(**batch())
    model = build(DLFAForTokenClassification, fusion_layer=1, fusion="lower")
    model.config.fusion_layer = 2
    assert torch.equal(
        model(**batch()).logits, model.classifier(model.encoder(**batch(), output_hidden_states=True).hidden_states[2])
    )


def test_low_rank_adapters() -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = DLFAForTokenClassification.from_encoder(tiny_encoder("bert"), 1, 5)
    wanted = peft.LoraConfig(target_modules=["query", "value"], modules_to_save=["fusion", "classifier"])
    adapted = peft.get_peft_model(model, wanted)
    output = adapted(**batch(), labels=batch()["input_ids"] % 5, output_gate=True)
    output.loss.backward()
    assert output.gate[0].shape == (2, 7, 32)
    learning = {name for name, parameter in adapted.named_parameters() if parameter.grad is not None}
    assert all("lora_" in name or "fusion" in name or "classifier" in name for name in learning)
    assert any("local_squeeze" in name for name in learning)
    assert any("lora_A" in name for name in learning)


def test_embeddings_can_be_resized_and_saved(tmp_path: Path) -> None:
    model = build()
    model.resize_token_embeddings(75)
    assert model.get_input_embeddings().weight.shape[0] == 75
    assert model.config.encoder_config.vocab_size == 75
    model.save_pretrained(tmp_path)
    loaded = DLFAForTokenClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded.get_input_embeddings().weight, model.get_input_embeddings().weight)


def test_a_copy_is_independent() -> None:
    model, inputs = build(), batch()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        before = model(**inputs).logits
        assert torch.equal(twin(**inputs).logits, before)
        for parameter in twin.parameters():
            parameter.zero_()
        assert (twin(**inputs).logits == 0).all()
        assert torch.equal(model(**inputs).logits, before)


def test_two_models_can_share_one_encoder() -> None:
    encoder, inputs = tiny_encoder("bert"), batch()
    first, second = (DLFAModel.from_encoder(encoder, fusion_layer=layer, fusion="lower") for layer in (0, 2))
    hidden = encoder(**inputs, output_hidden_states=True).hidden_states
    torch.testing.assert_close(first(**inputs).last_hidden_state, hidden[0])
    torch.testing.assert_close(second(**inputs).last_hidden_state, hidden[2])
    assert all(len(layer._forward_pre_hooks) == 1 for layer in encoder.encoder.layer)


def test_threads_do_not_see_each_others_layers() -> None:
    model = build(fusion="lower", fusion_layer=1)
    inputs = [batch((length, 3), seed=length) for length in range(4, 20)]
    with torch.no_grad():
        expected = [model(**one).logits for one in inputs]

        def run(one: dict[str, torch.Tensor]) -> torch.Tensor:
            with torch.no_grad():
                return model(**one).logits

        with ThreadPoolExecutor(4) as pool:
            for alone, together in zip(expected, pool.map(run, inputs), strict=True):
                assert torch.equal(alone, together)


def test_the_trainer_finds_the_labels_of_every_head() -> None:
    found = {head: find_labels(head) for head in HEADS[1:]}
    assert found.pop(DLFAForQuestionAnswering) == ["start_positions", "end_positions"]
    assert list(found.values()) == [["labels"]] * 2


def test_compiled_model_gives_the_same() -> None:
    model, inputs = build(), batch()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(**inputs).logits, model(**inputs).logits)


def test_every_name_of_the_package_is_there() -> None:
    for name in dlfa.__all__:
        assert getattr(dlfa, name).__name__ == name
    assert set(dlfa.__all__) <= set(dir(dlfa))
    with pytest.raises(AttributeError, match="no attribute 'DLFAForSums'"):
        _ = dlfa.DLFAForSums
