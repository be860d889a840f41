"""Embedding rows that no training sequence looks up are left alone, and what is learned is the same."""

import dataclasses
from pathlib import Path

import pytest
import torch
from tiny_encoders import FAMILIES, VOCABULARY, WIDTH, batch, tiny_encoder
from tiny_tasks import make_encoder, make_udpos
from torch import nn

import dlfa.training.train as training
from dlfa import DLFAForTokenClassification
from dlfa.runs.run_config import RunConfig
from dlfa.training.embedding_rows import RowEmbedding, merge_rows, train_rows


def model_of(family):
    torch.manual_seed(0)
    return DLFAForTokenClassification.from_encoder(tiny_encoder(family), 1, num_labels=4).eval()


def learn(model, inputs):
    """Ten steps as the Trainer makes them, but for dropout: clipped gradients, AdamW without decay."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0)
    for step in range(10):
        labels = torch.arange(inputs["input_ids"].numel()).view(inputs["input_ids"].shape).add(step) % 4
        labels = labels.masked_fill(inputs["attention_mask"] == 0, -100)
        model(**inputs, labels=labels).loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_is_learned(family):
    inputs = batch()
    whole, rows = model_of(family), model_of(family)
    start = whole.encoder.get_input_embeddings().weight.detach().clone()
    train_rows(rows, inputs["input_ids"].tolist())
    assert isinstance(rows.encoder.get_input_embeddings(), RowEmbedding)
    learn(whole, inputs)
    learn(rows, inputs)
    merge_rows(rows)
    table = rows.encoder.get_input_embeddings()
    assert type(table) is nn.Embedding
    assert table.weight.requires_grad
    assert table.padding_idx == whole.encoder.get_input_embeddings().padding_idx
    seen = torch.zeros(VOCABULARY, dtype=torch.bool)
    seen[inputs["input_ids"][inputs["attention_mask"] == 1]] = True
    assert torch.equal(table.weight[~seen], start[~seen])
    assert not torch.isclose(table.weight[seen], start[seen]).any(dim=1).all()
    assert list(rows.state_dict()) == list(whole.state_dict())
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(rows.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_lookup_is_that_of_the_table_for_any_ids():
    table = nn.Embedding(VOCABULARY, WIDTH, padding_idx=1)
    embedding = RowEmbedding(table, torch.tensor([4, 7, 59]))
    ids = torch.randint(VOCABULARY, (3, 5, 2))
    assert torch.equal(embedding(ids), table(ids))
    with torch.no_grad():
        embedding.trained += 1.0
    assert torch.equal(embedding(torch.tensor([4, 5])), table.weight[[4, 5]] + torch.tensor([[1.0], [0.0]]))
    assert torch.equal(embedding.merged().weight[7], embedding.trained[1])


def test_gradients_reach_the_rows_alone():
    embedding = RowEmbedding(nn.Embedding(VOCABULARY, WIDTH), torch.tensor([4, 7]))
    embedding(torch.tensor([4, 5, 4])).sum().backward()
    assert torch.equal(embedding.trained.grad, torch.tensor([[2.0], [0.0]]).expand(2, WIDTH))
    assert embedding.weight.grad is None


def test_the_row_of_padding_is_not_trained_even_where_it_is_looked_up():
    model = model_of("bert")
    table = model.encoder.get_input_embeddings()
    train_rows(model, [[5, table.padding_idx, 4], [4]])
    rows = model.encoder.get_input_embeddings()
    assert (rows.row_of >= 0).nonzero().flatten().tolist() == [4, 5]
    assert torch.equal(rows.trained, rows.weight[[4, 5]])


class ScaledEmbedding(nn.Embedding):
    """As some encoders have it: a table with a forward of its own."""


@pytest.mark.parametrize("kind", ["frozen", "subclass", "renormalised", "scaled", "sparse", "twice"])
def test_other_tables_are_left_as_they_are(kind):
    model = model_of("bert")
    table = model.encoder.get_input_embeddings()
    if kind == "frozen":
        model.encoder.requires_grad_(False)
    elif kind == "subclass":
        table = ScaledEmbedding(VOCABULARY, WIDTH)
    elif kind == "renormalised":
        table = nn.Embedding(VOCABULARY, WIDTH, max_norm=1.0)
    elif kind == "scaled":
        table = nn.Embedding(VOCABULARY, WIDTH, scale_grad_by_freq=True)
    elif kind == "sparse":
        table = nn.Embedding(VOCABULARY, WIDTH, sparse=True)
    else:
        model.encoder.second_place = table
    model.encoder.set_input_embeddings(table)
    train_rows(model, [[3, 4]])
    assert model.encoder.get_input_embeddings() is table
    merge_rows(model)
    assert model.encoder.get_input_embeddings() is table


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_a_run_trains_rows_unless_weights_decay(tmp_path, monkeypatch, weight_decay):
    config = RunConfig(
        task="udpos", model=str(make_encoder(tmp_path / "encoder")), output_dir=Path(tmp_path / "run"),
        data_dir=make_udpos(tmp_path / "udpos"), model_options={"fusion_layer": 1}, epochs=1, learning_rate=1e-2,
        weight_decay=weight_decay,
    )  # fmt: skip
    seen = []

    def trainer(prepared):
        seen.append(type(prepared.model.encoder.get_input_embeddings()))
        return original(prepared)

    original = training.task_trainer
    monkeypatch.setattr(training, "task_trainer", trainer)
    results = training.train(config)
    assert seen == [RowEmbedding if weight_decay == 0 else nn.Embedding]
    if weight_decay == 0:
        monkeypatch.setattr(training, "train_rows", lambda *_: None)
        whole = training.train(dataclasses.replace(config, output_dir=tmp_path / "whole"))
        assert whole["train"]["loss"] == pytest.approx(results["train"]["loss"], rel=1e-5)
    saved = DLFAForTokenClassification.from_pretrained(config.output_dir)
    assert type(saved.encoder.get_input_embeddings()) is nn.Embedding
