"""A DLFA tagger under transformers' own Trainer, for data that are no task of `dlfa train`.

    python examples/own_trainer.py ENCODER OUTPUT

ENCODER is a Hub id or a directory with a fast tokenizer. A DLFA model is an ordinary one of transformers: its forward
takes `labels` (B, T), -100 where there is none, and returns a loss. Here the data are eight sentences written down
below; for the folder that is left in OUTPUT, `from_pretrained` and `pipeline("token-classification")` work.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from transformers import (
    AutoTokenizer,
    DataCollatorForTokenClassification,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)

from dlfa import DLFAForTokenClassification

TAGS = ["O", "NAME"]
SENTENCES = [
    "Ann/NAME sees Bob/NAME", "the dog sees Ann/NAME", "Bob/NAME runs", "a dog runs home",
    "Cleo/NAME and Ann/NAME eat", "the cat eats", "who sees Bob/NAME", "we see the cat",
]  # fmt: skip


def encoded(tokenizer: PreTrainedTokenizerBase, sentence: str) -> dict[str, Any]:
    """Ids of a sentence of words, each with its tag behind a slash; the tag sits on a word's first sub-word."""
    pairs = [part.partition("/") for part in sentence.split()]
    inputs = tokenizer([word for word, _, _ in pairs], is_split_into_words=True)
    labels, before = [], None
    for word in inputs.word_ids():
        labels.append(-100 if word is None or word == before else TAGS.index(pairs[word][2] or "O"))
        before = word
    return {**inputs, "labels": labels}


def train(encoder: str, output: Path, epochs: int = 20) -> float:
    """Train on the sentences, save model and tokenizer in `output`, and return the mean loss."""
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    numbers = {tag: number for number, tag in enumerate(TAGS)}
    model = DLFAForTokenClassification.from_encoder(
        encoder, fusion_layer=1, id2label=dict(enumerate(TAGS)), label2id=numbers
    )
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(output), num_train_epochs=epochs, per_device_train_batch_size=4, learning_rate=1e-3,
            save_strategy="no", report_to="none", disable_tqdm=True,
        ),
        train_dataset=[encoded(tokenizer, sentence) for sentence in SENTENCES],
        data_collator=DataCollatorForTokenClassification(tokenizer),
        processing_class=tokenizer,
    )  # fmt: skip
    loss = trainer.train().training_loss
    trainer.save_model()
    return loss


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/own_trainer.py ENCODER OUTPUT")
    print(f"mean loss: {train(sys.argv[1], Path(sys.argv[2])):.3f}")
