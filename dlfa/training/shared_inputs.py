"""Inputs that runs share: examples, tokenizer, features and cached hidden states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from ..files.cache_directory import cache_directory
from ..frozen import StateInputs, StateStore
from ..models.configuration import DLFAConfig
from ..models.embedding_table import embedding_table
from ..models.modeling import DLFAModel
from ..models.pretrained import no_encoder
from ..models.tokenizer import load_tokenizer
from ..processes import default_device
from ..progress import progress_bar
from ..runs.run_config import CompleteRunConfig, RunConfig
from ..tasks import Encoding, Feature
from ..tasks.loading import TaskData, load_task_data
from ..tasks.model_inputs import ModelInputs


@dataclass(frozen=True)
class SharedInputs:
    """The inputs that runs with the same data, tokenizer and frozen encoder share, read once for all of them."""

    data: TaskData
    inputs: ModelInputs
    encoder: DLFAModel | None  # a model without fusion around the encoder; only if it is frozen
    encoder_sha256: str | None  # hash of its weights


def load_data(config: RunConfig) -> TaskData:
    """Load all data of a run, including the test data of all its languages.

    Raises:
        DataError: the data are invalid.
    """
    return load_task_data(
        config.task_object,
        config.data_dir,
        config.languages,
        max_train_examples=config.max_train_examples,
        max_eval_examples=config.max_eval_examples,
    )


def load_shared_inputs(config: CompleteRunConfig, data: TaskData) -> SharedInputs:
    """Load what runs on `data` share: the tokenizer and, if the encoder is frozen, it and the store of its states.

    Args:
        config: one of the runs.
        data: the data of the runs.

    Raises:
        ValueError: the tokenizer or encoder cannot be loaded, or the tokenizer does not allow `max_length` tokens.
    """
    tokenizer = load_tokenizer(config.model, config.max_length)
    encoding = Encoding(config.max_length, config.model_options.get("label_subword", "first"))
    if not config.freeze_encoder:
        return SharedInputs(data, ModelInputs(config.task_object, tokenizer, encoding), None, None)
    encoder = load_encoder(config.model)
    store = StateStore(
        encoder.to(default_device()),  # type: ignore[arg-type]
        tokenizer,
        (config.states_cache or cache_directory()) / "states",
        dtype=config.states_dtype,
        batch_size=config.eval_batch_size,
        autocast=config.autocast,
    )
    inputs = StateInputs(config.task_object, tokenizer, encoding, store)
    return SharedInputs(data, inputs, encoder, store.weights_sha256)


def load_encoder(name: str) -> DLFAModel:
    """Load the encoder `name`, a Hub id or directory, into a model without fusion.

    Raises:
        ValueError: there is no such encoder.
    """
    try:
        return DLFAModel.from_encoder(name, None)
    except OSError as error:
        raise no_encoder(name, error) from error


def compute_states(shared: SharedInputs, several: Iterable[Mapping[str, Any]], *, progress: bool = False) -> None:
    """Compute a frozen encoder's states in one pass, for all layers that any of the runs needs.

    Args:
        shared: the inputs of the runs; if their encoder is not frozen, nothing is computed.
        several: the model options of each run.
        progress: show a bar on standard error.

    Raises:
        ValueError, OSError: the states cannot be stored in the chosen precision or directory.
    """
    if not isinstance(shared.inputs, StateInputs):
        return
    encoder_config = shared.inputs.store.encoder.config.encoder_config
    layers = {
        layer for options in several for layer in DLFAConfig(encoder_config=encoder_config, **options).lower_layers
    }
    shared.inputs.compute(shared.data.parts, sorted(layers), progress=progress)


def check_token_ids(shared: SharedInputs, encoder: PreTrainedModel, *, progress: bool = False) -> None:
    """Encode all data, and check their token ids against the embedding table of `encoder`, if it has a single one.

    Without this check, an invalid id would only fail when the encoder reaches it, possibly after all training, and on a
    GPU with an assertion that ends the process.

    Args:
        shared: the inputs of the runs.
        encoder: the encoder that will read them.
        progress: show a bar on standard error while the data are encoded.

    Raises:
        ValueError: a token id has no row in the table, or `max_length` is too small for some example.
    """
    inputs, tokenizer = shared.inputs, shared.inputs.tokenizer
    with progress_bar(shown=progress, transient=True) as bar:
        todo = bar.add_task("tokenize", total=sum(len(examples) for examples, _ in shared.data.parts))
        parts = [
            inputs.features(examples, training=training, on_encoded=lambda count: bar.advance(todo, count))
            for examples, training in shared.data.parts
        ]
    rows = getattr(embedding_table(encoder), "num_embeddings", None)
    if rows is None:
        return
    highest = max((max(feature.inputs["input_ids"], default=0) for part in parts for feature in part), default=0)
    if highest >= rows:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path!r} gives token {tokenizer.convert_ids_to_tokens(highest)!r} the "
            f"id {highest}, but the encoder's embedding table has {rows} rows; save the encoder with the tokenizer "
            "that it was trained with, or after resize_token_embeddings(len(tokenizer))"
        )


def encode_all(
    config: RunConfig, shared: SharedInputs, encoder: PreTrainedModel, *, progress: bool = False
) -> list[Feature]:
    """Encode all data of a run, compute a frozen encoder's states, and return the features of the training data.

    Args:
        config: the run.
        shared: its inputs.
        encoder: the encoder that will read them, frozen or not.
        progress: show bars on standard error.

    Raises:
        ValueError: `max_length` is too small for some example, no example can be trained on, or a token id is not in
            the encoder's embedding table.
        OSError: the states cannot be stored.
    """
    check_token_ids(shared, encoder, progress=progress)
    features = shared.inputs.features(shared.data.train, training=True)
    if not features:
        raise ValueError(
            f"{config.data_dir or 'the Hub'}: none of the training data of {config.task} can be trained on; a question "
            "needs an answer that its passage holds"
        )
    compute_states(shared, [config.model_options], progress=progress)
    return features
