"""The models over a real multilingual encoder of 12 layers."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from dlfa import DLFAForSequenceClassification, DLFAForTokenClassification
from dlfa.evaluation.evaluate import evaluate
from dlfa.evaluation.saved_runs import load_run
from dlfa.runs.run_config import RunConfig
from dlfa.training.shared_inputs import load_data
from dlfa.training.train import train

TEXTS = ["The cat sleeps on the warm roof.", "Die Katze schläft auf dem warmen Dach.", "猫が屋根で寝ている。"]


@pytest.fixture(scope="module")
def me5(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    script = shared / "models" / "unpack_me5.py"
    spec = importlib.util.spec_from_file_location("unpack_me5", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("encoder")
    module.unpack(shared / "models" / "me5-small-q4", folder)
    return folder


def test_states_and_training_step(me5: Path) -> None:
    torch.manual_seed(0)
    layers = [0, 6, 11]
    model = DLFAForTokenClassification.from_encoder(me5, fusion_layer=layers, num_labels=17).eval()
    inputs = AutoTokenizer.from_pretrained(me5)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(me5)(**inputs, output_hidden_states=True).hidden_states
        states = model.encoder_states(**inputs)
    for state, layer in zip((*states.lowers, states.last), (*layers, 12), strict=True):
        torch.testing.assert_close(state, hidden[layer])
    labels = torch.where(inputs["attention_mask"] == 1, inputs["input_ids"] % 17, -100)
    output = model.train()(**inputs, labels=labels)
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits.flatten(0, 1), labels.flatten()))
    output.loss.backward()
    for aif in model.fusion.aif:
        assert aif.global_squeeze.weight.grad.abs().sum() > 0


def test_saving_and_padding(me5: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = DLFAForSequenceClassification.from_encoder(me5, fusion_layer=-7, num_labels=3, fuse="select").eval()
    assert model.config.fusion_layer == 6
    tokenizer = AutoTokenizer.from_pretrained(me5)
    model.save_pretrained(tmp_path)
    loaded = DLFAForSequenceClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        together = loaded(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
        alone = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in TEXTS])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-6)  # the worst of six seeds is apart by 1.3e-7


@pytest.mark.slow
@pytest.mark.parametrize(("task", "languages"), [("udpos", 33), ("uner", 12), ("sick", 3)])
def test_frozen_training_on_real_data(me5: Path, shared: Path, tmp_path: Path, task: str, languages: int) -> None:
    config = RunConfig(
        task=task, model=str(me5), output_dir=tmp_path / "run", data_dir=shared / "data" / task,
        model_options={"fusion_layer": 6, "label_subword": "last"}, freeze_encoder=True, epochs=3, batch_size=8,
        gradient_accumulation=1, states_cache=tmp_path / "cache", max_train_examples=40, max_eval_examples=4,
    )  # fmt: skip
    results = train(config)
    assert len(results["languages"]) == languages
    assert {scores["examples"] for scores in results["languages"].values()} == {4}
    run = load_run(tmp_path / "run")
    language = "ja" if task == "sick" else "zh"
    examples = load_data(config).test[language]
    again = evaluate(run.model, run.inputs(), {language: examples})[language]
    written = (tmp_path / "run" / "predictions" / f"test-{language}.tsv").read_text()
    assert run.task.prediction_text(examples, again.predictions) == written
