"""The plan of the evidence: the runs that answer each question.

`python -m benchmarks.evidence --list` shows the runs. If a group's options change after some of its runs were made,
these have another protocol and no longer count: give the group another name, or remove their directories.

Sizes suit two CPU cores: `max_train_examples` and `max_eval_examples` select fixed random subsets; without them all
data are used (udpos: 12,544 training sentences, 2,001 for development, 21,282 for test).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from .groups import Ensemble, Group, Layers, Variant, variant

# 12 languages with the families and scripts of the 33, for groups with many runs.
TWELVE = "en,de,es,ru,hi,zh,ja,th,tr,vi,ar,fi"

PAIR = (6, 4)  # fused in sequence: the last layer with 6, the result with 4
FIVE = (1, 2, 3, 4, 5)
TWO = (1, 2)
THREE = (1, 2, 3)

_TRAINING: dict[str, Any] = {"gradient_accumulation": 1, "group_by_length": True}
_TAGGING: dict[str, Any] = {**_TRAINING, "label_subword": "last"}
_FROZEN: dict[str, Any] = {
    "learning_rate": 1e-3, "batch_size": 32, "epochs": 6, "states_dtype": "float16", "max_train_examples": 2000,
}  # fmt: skip
_FULL: dict[str, Any] = {"learning_rate": 2e-5, "head_learning_rate": 1e-3, "batch_size": 16, "epochs": 2, "bf16": True}
_FULL_2000: dict[str, Any] = {**_FULL, "max_train_examples": 2000}
_POS_100: dict[str, Any] = {**_TAGGING, "max_eval_examples": 100}
_NER_300: dict[str, Any] = {**_TAGGING, "max_eval_examples": 300}

_pos = functools.partial(Group, task="udpos", metric="accuracy")
_ner = functools.partial(Group, task="uner")
_nli = functools.partial(Group, task="sick")


def _modes(
    *single: int, mix: tuple[Layers, ...] = (PAIR,), seeds: tuple[int, ...] | None = None, **options: Any
) -> tuple[Variant, ...]:
    """Return the last layer, single lower ones, and every way to fuse the last with the two of PAIR.

    None in `mix` mixes all layers.
    """
    return (
        variant("last", seeds=seeds, **options),
        variant("aif select", PAIR, seeds=seeds, **options),
        variant("lower", *single, seeds=seeds, **options),
        variant("sum", PAIR, seeds=seeds, **options),
        variant("aif gate", PAIR, seeds=seeds, **options),
        variant("residual", PAIR, seeds=seeds, **options),
        variant("scalar_mix", *mix, seeds=seeds, **options),
    )


def _rates(of: Group, *variants: Variant) -> Group:
    """Return a frozen encoder's group at three times its learning rate, with additional `variants`."""
    return dataclasses.replace(
        of,
        name=f"{of.name}-rates",
        headline=None,
        question=f"{of.headline}: does the result depend on the learning rate?",
        seeds=TWO,
        options={**of.options, "learning_rate": 3e-3},
        variants=variants,
    )


POS_FROZEN = _pos(
    name="pos-frozen",
    headline="POS, frozen encoder",
    question="POS, frozen encoder: does fusing lower layers beat the last layer, and the best single layer?",
    regime="frozen",
    seeds=TWO,
    options={**_TAGGING, **_FROZEN},
    variants=(
        *_modes(3, 4, 5, 6, mix=(None, PAIR), seeds=FIVE),
        variant("sum", 6, (8, 6, 4), seeds=FIVE),
        variant("aif gate", 6, (8, 6, 4), seeds=FIVE),
        variant("aif select", 6, (8, 6, 4), seeds=FIVE),
        variant("residual", 6, (8, 6, 4), seeds=FIVE),
        variant("lower", 0, 1, 2, 7, 8, 9, 10, 11),
        variant("sum", 2, 3, 4, 5, 7, 8, 10),
        variant("aif gate", 0, 2, 3, 4, 5, 7, 8, 10),
        variant("aif select", 0, 2, 3, 4, 5, 7, 8, 10),
        variant("residual", 0, 2, 3, 4, 5, 7, 8, 10),
    ),
)

POS_ENSEMBLES = _pos(
    name="pos-ensembles",
    question="POS, frozen encoder: what do ensembles of seeds and of fusion layers gain over one model?",
    regime="frozen",
    # Each member's own encoder must process the test data.
    options={**_POS_100, **_FROZEN},
    variants=(
        variant("last", seeds=THREE),
        variant("aif select", PAIR, seeds=THREE),
        variant("aif select", 4, 5, 6),
        variant("lower", 4, 5, 6),
    ),
    keep_models=True,
    ensembles=(
        Ensemble("last-3-seeds", tuple(f"last/seed{seed}" for seed in THREE)),
        Ensemble("select-6-4-3-seeds", tuple(f"aif-select-6-4/seed{seed}" for seed in THREE)),
        Ensemble("select-3-layers", tuple(f"aif-select-{layer}/seed1" for layer in (4, 5, 6))),
        Ensemble("lower-3-layers", tuple(f"lower-{layer}/seed1" for layer in (4, 5, 6))),
    ),
)

POS_FROZEN_RATES = _rates(
    POS_FROZEN,
    *_modes(4, 5, 6, mix=(None, PAIR)),
    variant("aif select", PAIR, learning_rate=5e-4),
    variant("aif select", PAIR, learning_rate=1e-2),
    variant("lower", 4, 5, 6, learning_rate=1e-2),
    variant("residual", PAIR, learning_rate=1e-2),
    # It learns English fastest, so it also runs at a lower rate.
    variant("residual", PAIR, learning_rate=5e-4),
    variant("residual", PAIR, learning_rate=2e-4),
)

POS_FROZEN_MODULE = _pos(
    name="pos-frozen-module",
    question="POS, frozen encoder: what in AIF matters (kernel size, squeeze width, gate bias, activation, decay)?",
    regime="frozen",
    seeds=THREE,
    options=POS_FROZEN.options,
    include=("pos-frozen/last/*", "pos-frozen/lower-5/*", "pos-frozen/aif-select-6-4/*"),
    variants=(
        variant("aif select", PAIR, kernel_size=3),
        variant("aif select", PAIR, reduction=16),
        variant("aif select", PAIR, gate_bias=2.0),
        variant("aif select", PAIR, gate_bias=-2.0),
        variant("aif select", PAIR, activation="gelu"),
        variant("aif select", PAIR, weight_decay=0.1),
        variant("aif select", (4, 6)),
    ),
)

POS_FULL = _pos(
    name="pos-full",
    headline="POS, full fine-tuning",
    question="POS, full fine-tuning: does fusing lower layers beat the last layer, and the best single layer?",
    regime="full",
    seeds=THREE,
    options={**_POS_100, **_FULL_2000},
    variants=(
        *_modes(6),
        variant("aif gate", 6),
        variant("aif select", 6, (8, 6, 4)),
        variant("scalar_mix"),
        variant("lower", 4),
        variant("lower", 8, seeds=(1,)),
        variant("aif select", 8, 4, (8, 6), seeds=(1,)),
        variant("aif gate", 8, 4, seeds=(1,)),
    ),
)

POS_FULL_ALL = _pos(
    name="pos-full-all",
    headline="POS, full fine-tuning, all training data",
    question="POS, full fine-tuning, all of the English training data: what is left of the gains?",
    regime="full",
    seeds=TWO,
    options={**_POS_100, **_FULL, "epochs": 1},
    variants=_modes(6),
)

POS_FULL_RATES = _pos(
    name="pos-full-rates",
    question="POS, full fine-tuning: do the rates of the encoder and of the new parameters change the picture?",
    regime="full",
    options={**POS_FULL.options, "learning_rate": 5e-5},
    variants=(
        *_modes(6, 8),
        variant("last", learning_rate=1e-4),
        variant("aif select", PAIR, learning_rate=1e-4),
        variant("lower", 8, learning_rate=1e-4),
        variant("aif gate", PAIR, learning_rate=1e-4),
        variant("aif select", PAIR, head_learning_rate=3e-3),
        variant("lower", 6, head_learning_rate=3e-3),
        variant("aif select", PAIR, learning_rate=2e-5, head_learning_rate=2e-5),
    ),
)


def _few(sentences: int, epochs: int) -> Group:
    return _pos(
        name=f"pos-few-{sentences}",
        headline=f"POS, {sentences} sentences",
        question=f"POS, full fine-tuning on {sentences} sentences: does fusing lower layers help where data are few?",
        regime=f"few-shot {sentences}",
        seeds=TWO,
        # A checkpoint only at the end: an epoch takes a few seconds, writing a checkpoint longer.
        options={
            **_POS_100,
            **_FULL,
            "epochs": epochs,
            "save_steps": -(-sentences // 16) * epochs,
            "languages": TWELVE,
        },
        variants=(
            *_modes(4, 6, 8, mix=(None,)),
            variant("aif gate", 6),
            variant("aif select", 6),
        ),
    )


_FEW_100 = _few(100, 10)

POS_FEW_RATES = _pos(
    name="pos-few-100-rates",
    question="POS, full fine-tuning on 100 sentences: is it attention, or how fast the new parameters learn?",
    regime="few-shot 100",
    seeds=TWO,
    options={**_FEW_100.options, "head_learning_rate": 3e-3},
    variants=(*_modes(6), *_modes(6, head_learning_rate=1e-2)),
)

NER_FROZEN = _ner(
    name="ner-frozen",
    headline="NER, frozen encoder",
    question="NER, frozen encoder: does fusing lower layers help?",
    regime="frozen",
    seeds=TWO,
    options={**_TAGGING, **_FROZEN},
    variants=(
        *_modes(6, 7, mix=(None, PAIR), seeds=FIVE),
        variant("sum", 7, seeds=FIVE),
        variant("aif gate", 7, seeds=FIVE),
        variant("aif select", 7, seeds=FIVE),
        variant("residual", 7, seeds=FIVE),
        variant("lower", 2, 4, 5, 8, 10),
        variant("sum", 4, 5, 6, 8),
        variant("aif gate", 4, 5, 6, 8),
        variant("aif select", 2, 4, 5, 6, 8, 10),
        variant("residual", 4, 5, 6, 8),
    ),
)

NER_FROZEN_RATES = _rates(NER_FROZEN, *_modes(6, 7), *_modes(6, 7, learning_rate=1e-2))

NER_FULL = _ner(
    name="ner-full",
    headline="NER, full fine-tuning",
    question="NER, full fine-tuning: does fusing lower layers help?",
    regime="full",
    seeds=THREE,
    options={**_NER_300, **_FULL_2000},
    variants=_modes(6, mix=(None,)),
)

NLI_FROZEN = _nli(
    name="nli-frozen",
    headline="NLI, frozen encoder, first token",
    question="NLI (SICK), frozen encoder: does fusing lower layers help the first token?",
    regime="frozen",
    seeds=TWO,
    options={**_TRAINING, **_FROZEN},
    variants=(
        *_modes(8, 10, mix=(None,), seeds=FIVE),
        variant("sum", 4, 7, (10, 8), seeds=FIVE),
        variant("aif gate", 7, (10, 8), seeds=FIVE),
        variant("aif select", 7, (10, 8), seeds=FIVE),
        variant("residual", 7, (10, 8), seeds=FIVE),
        variant("lower", 2, 4, 6),
        variant("sum", 6, 8, 10),
        variant("aif gate", 4, 5, 6, 8, 10),
        variant("aif select", 4, 5, 6, 8, 10),
        variant("residual", 4, 5, 6, 8, 10),
    ),
)

NLI_FROZEN_RATES = _rates(
    NLI_FROZEN,
    *_modes(7, 8),
    variant("aif gate", 7),
    variant("residual", 7),
    *_modes(7, 8, learning_rate=1e-2),
    variant("aif gate", 7, learning_rate=1e-2),
    variant("residual", 7, learning_rate=1e-2),
)

NLI_FROZEN_MEAN = _nli(
    name="nli-frozen-mean",
    headline="NLI, frozen encoder, mean of tokens",
    question="NLI (SICK), frozen encoder: is the mean of all fused tokens better than the first fused token?",
    regime="frozen",
    seeds=TWO,
    options={**NLI_FROZEN.options, "classifier_pooling": "mean"},
    variants=(
        *_modes(8, mix=(None,), seeds=FIVE),
        variant("sum", 6, 8, (10, 8), seeds=FIVE),
        variant("aif gate", 6, 8, (10, 8), seeds=FIVE),
        variant("aif select", 6, 8, (10, 8), seeds=FIVE),
        variant("residual", 6, 8, (10, 8), seeds=FIVE),
        variant("lower", 2, 4, 6, 10),
        variant("sum", 10),
        variant("aif gate", 10),
        variant("aif select", 10),
        variant("residual", 10),
    ),
)

NLI_FROZEN_MEAN_RATES = _rates(
    NLI_FROZEN_MEAN,
    *_modes(8, 10),
    variant("aif select", 6),
    variant("residual", 6),
    *_modes(8, 10, learning_rate=1e-2),
    variant("aif select", 6, learning_rate=1e-2),
    variant("residual", 6, learning_rate=1e-2),
)

NLI_FULL = _nli(
    name="nli-full",
    headline="NLI, full fine-tuning",
    question="NLI (SICK), full fine-tuning: does fusing lower layers help?",
    regime="full",
    seeds=THREE,
    # All test pairs: with two languages, 300 pairs of each add more variance than the seeds.
    options={**_TRAINING, **_FULL_2000, "epochs": 3},
    variants=(
        variant("last"),
        variant("aif select", PAIR),
        variant("last", classifier_pooling="mean"),
        variant("aif select", PAIR, classifier_pooling="mean"),
        variant("aif gate", PAIR),
        variant("lower", 8),
        variant("scalar_mix"),
        variant("sum", PAIR),
        variant("residual", PAIR),
    ),
)

POS_AFTER = _pos(
    name="pos-after",
    question="POS, full fine-tuning: do intermediate English tasks help, and fusion after them?",
    regime="full",
    options=POS_FULL.options,
    include=("pos-full/last/seed1", "pos-full/aif-select-6-4/seed1"),
    variants=(
        variant("last", intermediate=("sick",)),
        variant("aif select", PAIR, intermediate=("sick",)),
        variant("last", intermediate=("sick", "uner")),
        variant("aif select", PAIR, intermediate=("sick", "uner")),
    ),
)

NER_AFTER = _ner(
    name="ner-after",
    question="NER, full fine-tuning: does POS as an intermediate task help, and fusion after it?",
    regime="full",
    options=NER_FULL.options,
    include=("ner-full/last/seed1", "ner-full/aif-select-6-4/seed1"),
    variants=(
        variant("last", intermediate=("udpos",)),
        variant("aif select", PAIR, intermediate=("udpos",)),
    ),
)

PLAN = (
    POS_FROZEN,
    POS_ENSEMBLES,
    POS_FROZEN_RATES,
    POS_FROZEN_MODULE,
    POS_FULL,
    POS_FULL_RATES,
    POS_FULL_ALL,
    _FEW_100,
    POS_FEW_RATES,
    _few(500, 4),
    NER_FROZEN,
    NER_FROZEN_RATES,
    NER_FULL,
    NLI_FROZEN,
    NLI_FROZEN_RATES,
    NLI_FROZEN_MEAN,
    NLI_FROZEN_MEAN_RATES,
    NLI_FULL,
    POS_AFTER,
    NER_AFTER,
)
