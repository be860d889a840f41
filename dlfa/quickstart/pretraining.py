"""Pre-train a tiny multilingual BERT by masked language modelling on unlabelled text of all languages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback

from ..data.ignored_label import IGNORED

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


# The files that `pretrain` saves; only some releases of transformers write the last one.
ENCODER_FILES = (
    "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
)  # fmt: skip


@dataclass(frozen=True)
class Pretraining:
    """The encoder's size and training length, chosen so that the quickstart takes under two minutes on a CPU."""

    vocabulary: int = 600
    layers: int = 4
    width: int = 64
    heads: int = 4
    block: int = 32
    positions: int = 128
    batch: int = 32
    steps: int = 1700
    learning_rate: float = 3e-3
    # Twice BERT's share, to learn more from each of the few steps.
    masked: float = 0.3


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a WordPiece tokenizer of `vocabulary` pieces on sentences of all languages, with BERT's special tokens."""
    sentences = list(texts)
    special = list(SPECIAL_TOKENS.values())
    letters = sorted(set("".join(sentences)) - {" "})
    trained = Tokenizer(models.WordPiece(unk_token=SPECIAL_TOKENS["unk_token"]))
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    # The trainer numbers continuing letters in hash order, which differs between processes, and breaks ties by number.
    # Passing the letters as special tokens fixes their numbers; afterwards they become ordinary pieces.
    fixed = [*special, *(f"##{letter}" for letter in letters)]
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=fixed, show_progress=False)
    trained.train_from_iterator(sentences, trainer)
    tokenizer = Tokenizer(models.WordPiece(trained.get_vocab(), unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    before, after = ((token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]"))
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[before, after])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL_TOKENS)


def blocks(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], length: int) -> list[dict[str, list[int]]]:
    """Pack sentences, each between [CLS] and [SEP], into blocks of at most `length` tokens; only longer ones are cut.

    Every block starts with a sentence, so that positions mean the same in every language. The encoder needs this to
    relate words in different alphabets: with blocks cut anywhere, it learned nothing in the same number of steps.
    """
    found: list[list[int]] = []
    for ids in tokenizer(list(texts))["input_ids"]:
        if found and len(found[-1]) + len(ids) <= length:
            found[-1] += ids
        else:
            found.append(list(ids[:length]))
    return [{"input_ids": ids} for ids in found]


def pretrain(
    texts: Mapping[str, Sequence[str]],
    folder: Path,
    settings: Pretraining,
    seed: int,
    on_step: Callable[[int, float], None],
) -> dict[str, Any]:
    """Train tokenizer and encoder on `texts` and save both to `folder`, for AutoModel and AutoTokenizer to load.

    Args:
        texts: sentences by language; the encoder has no information about a sentence's language.
        folder: output folder, created if missing.
        settings: sizes and training length.
        seed: seed of initialisation, masks and data order.
        on_step: called at intervals with the number of steps and the mean loss since the last call.

    Returns:
        `steps`, `loss` (nats per masked token, mean over the last tenth), `parameters` and `vocabulary`.
    """
    tokenizer = train_tokenizer(chain.from_iterable(texts.values()), settings.vocabulary)
    data = [block for sentences in texts.values() for block in blocks(tokenizer, sentences, settings.block)]
    set_seed(seed)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.width,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            intermediate_size=2 * settings.width,
            max_position_embeddings=settings.positions,
            # Dropout would only slow down training that sees the data twice.
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.steps // 10,
        weight_decay=0.01,
        seed=seed,
        save_strategy="no",
        logging_steps=max(1, settings.steps // 100),
        disable_tqdm=True,
        report_to="none",
    )
    record = _Record(on_step)
    trainer = _MaskedTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=settings.masked),
        callbacks=[record],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    tokenizer.save_pretrained(folder)
    model.bert.save_pretrained(folder)
    last = record.losses[-max(1, len(record.losses) // 10) :]
    return {
        "steps": settings.steps,
        "loss": sum(last) / len(last),
        "parameters": model.bert.num_parameters(),
        "vocabulary": len(tokenizer),
    }


class _MaskedTrainer(Trainer):
    """Decodes only the masked positions, because only they have a loss."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        assert isinstance(model, BertForMaskedLM)
        labels = inputs.pop("labels")
        masked = labels != IGNORED
        states = model.bert(**inputs).last_hidden_state
        return F.cross_entropy(model.cls(states[masked]), labels[masked])


class _Record(TrainerCallback):
    """Stores the losses that the Trainer logs and passes them to `on_step`."""

    def __init__(self, on_step: Callable[[int, float], None]) -> None:
        self.on_step = on_step
        self.losses: list[float] = []

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))
            self.on_step(state.global_step, self.losses[-1])
