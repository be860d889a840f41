"""Seconds per 1,000 sentences of training and evaluation: last layer and AIF, with a trained or a frozen encoder.

`python -m benchmarks.workbench` creates a random encoder of 12 layers, 384 wide, and random sentences of 4 to 40 words,
so it needs no network; `--model` and `--data-dir` measure others. Training is one epoch with the workbench's own code,
including its checkpoint; evaluation is on test data, including scoring. With a frozen encoder the hidden states are
precomputed; computing them, once for all runs, has a separate row.
"""

from __future__ import annotations

import dataclasses
import gc
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, BertConfig, BertModel, PreTrainedTokenizerFast, set_seed

from dlfa.evaluation.evaluate import evaluate
from dlfa.frozen import StateInputs
from dlfa.runs.run_config import RunConfig
from dlfa.terminal import one_line_errors
from dlfa.training.shared_inputs import SharedInputs, load_data, load_shared_inputs
from dlfa.training.train import fit, prepare

from .output import print_table, write_json

TAGS = ("NOUN", "VERB", "DET", "PUNCT")
WORDS = 5000


def make_encoder(folder: Path, layers: int, width: int) -> Path:
    """Save a random BERT over a vocabulary of whole words, w0 to w4999, with its tokenizer."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{number}" for number in range(WORDS))]
    tokenizer = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=128,
    ).save_pretrained(folder)  # fmt: skip
    set_seed(0)
    config = BertConfig(
        vocab_size=len(names), hidden_size=width, num_hidden_layers=layers, num_attention_heads=max(1, width // 32),
        intermediate_size=4 * width, max_position_embeddings=128, pad_token_id=0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def make_data(folder: Path, sentences: int) -> Path:
    """Write udpos files of random sentences: train and test in en."""
    draw = random.Random(0)
    folder.mkdir(parents=True)
    for split, count in (("train", sentences), ("dev", 1), ("test", sentences)):
        blocks = []
        for _ in range(count):
            words = [draw.randrange(WORDS) for _ in range(draw.randint(4, 40))]
            blocks.append("".join(f"w{word}\t{TAGS[word % len(TAGS)]}\n" for word in words))
        (folder / f"{split}-en.tsv").write_text("\n".join(blocks), encoding="utf-8")
    return folder


def measure(config: RunConfig, repeats: int) -> list[dict[str, Any]]:
    """Return rows of seconds per 1,000 sentences, each the fastest of `repeats`.

    Args:
        config: task, model, data and sizes; the caller deletes its output directory and cache.
        repeats: repetitions of every measurement.
    """
    rows: list[dict[str, Any]] = []
    for frozen in (False, True):
        regime = dataclasses.replace(config, freeze_encoder=frozen)
        data = load_data(regime)
        # One sentence, so that development evaluation takes no time.
        data = dataclasses.replace(data, dev=data.dev[:1])
        shared = load_shared_inputs(regime.with_presets(), data)
        if isinstance(shared.inputs, StateInputs):
            rows.append(_states_row(shared, shared.inputs, config.model_options["fusion_layer"]))
        for name, options in (("last", {"fusion_layer": None}), ("aif", {})):
            run = dataclasses.replace(regime, model_options={**config.model_options, **options})
            rows.append({"model": name, "encoder": "frozen" if frozen else "trained"} | _fastest(run, shared, repeats))
    return rows


def _states_row(shared: SharedInputs, inputs: StateInputs, layer: int) -> dict[str, Any]:
    parts = shared.data.parts
    for examples, training in parts:
        inputs.features(examples, training=training)
    seconds = _timed(lambda: inputs.compute(parts, (layer,)))[0]
    count = sum(len(examples) for examples, _ in parts)
    return {"model": "hidden states", "encoder": "frozen", "once": 1000 * seconds / count}


def _fastest(config: RunConfig, shared: SharedInputs, repeats: int) -> dict[str, Any]:
    data, train, test = shared.data, [], []
    for repeat in range(repeats):
        prepared = prepare(
            dataclasses.replace(config, output_dir=config.output_dir / str(repeat)), overwrite=True, shared=shared
        )
        assert prepared is not None
        results = fit(prepared, keep_model=False)
        train.append(results["train"]["seconds"])
        trained_module = prepared.new_trained_module()
        seconds, _ = _timed(
            lambda trained_module=trained_module: evaluate(  # type: ignore[misc]
                trained_module, shared.inputs, data.test, batch_size=config.eval_batch_size
            )
        )
        test.append(seconds)
        del prepared, trained_module
        gc.collect()
    sentences = sum(map(len, data.test.values()))
    return {
        "train": 1000 * min(train) / len(data.train),
        "evaluate": 1000 * min(test) / sentences,
        "environment": results["environment"],
    }


def _timed(action: Callable[[], Any]) -> tuple[float, Any]:
    start = time.monotonic()
    result = action()
    return time.monotonic() - start, result


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    columns = ("encoder", "model", "train", "evaluate", "once")
    cells = [
        ([row[name] if isinstance(row.get(name), str) else _seconds(row.get(name)) for name in columns], False)
        for row in rows
    ]
    print_table("seconds per 1,000 sentences", columns, cells)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def main(
    sentences: Annotated[int, typer.Option(help="To train on, and of each test set.")] = 200,
    layers: Annotated[int, typer.Option(help="Of the random encoder.")] = 12,
    width: Annotated[int, typer.Option(help="Of the random encoder.")] = 384,
    fusion_layer: Annotated[int | None, typer.Option(help="Default: half-way up.")] = None,
    model: Annotated[str | None, typer.Option(help="Another encoder; needs --data-dir.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="udpos files; needs --model.")] = None,
    languages: Annotated[str, typer.Option(help="To evaluate on.")] = "en",
    batch_size: Annotated[int, typer.Option(help="Of training.")] = 32,
    repeats: Annotated[int, typer.Option(help="The fastest counts.")] = 2,
    output: Annotated[Path | None, typer.Option(help="Write the rows here as JSON.")] = None,
) -> None:
    """Measure, print a table, and write the rows."""
    if repeats < 1:
        raise typer.BadParameter(f"--repeats must be at least 1, got {repeats}")
    if (model is None) != (data_dir is None):
        raise typer.BadParameter("--model and --data-dir must be given together")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with one_line_errors(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        encoder = model or str(make_encoder(folder / "encoder", layers, width))
        if fusion_layer is None:
            fusion_layer = AutoConfig.from_pretrained(encoder).num_hidden_layers // 2
        config = RunConfig(
            task="udpos",
            model=encoder,
            output_dir=folder / "runs",
            data_dir=data_dir or make_data(folder / "data", sentences),
            languages=tuple(languages.split(",")),
            model_options={"fusion_layer": fusion_layer},
            learning_rate=1e-4,
            epochs=1,
            batch_size=batch_size,
            gradient_accumulation=1,
            max_length=128,
            max_train_examples=sentences,
            max_eval_examples=sentences,
            states_cache=folder / "cache",
        )
        rows = [{**row, "threads": torch.get_num_threads(), "sentences": sentences} for row in measure(config, repeats)]
    print_rows(rows)
    if output is not None:
        write_json(output, rows)


if __name__ == "__main__":
    typer.run(main)
