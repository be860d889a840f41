"""The plan of the evidence: which runs answer which question.

`python -m benchmarks.evidence --list` shows the runs. Where a group's options change after some of its runs were made,
these are of another protocol and count no more: give the group another name, or remove their directories.
"""

from __future__ import annotations

from .evidence_groups import Group, variant

# Every family and script of the 33 languages, in 12.
TWELVE = "en,de,es,ru,hi,zh,ja,th,tr,vi,ar,fi"

PLAN = (
    Group(
        name="pos-frozen",
        question="Frozen encoder: does fusing a lower layer beat the last layer, and the best single layer?",
        task="udpos",
        regime="frozen",
        metric="accuracy",
        seeds=(1, 2, 3),
        options={
            "max_train_examples": 2000,
            "max_eval_examples": 200,
            "languages": TWELVE,
            "label_subword": "last",
            "epochs": 5,
            "learning_rate": 1e-3,
            "batch_size": 32,
            "gradient_accumulation": 1,
            "squeeze_dim": 96,
        },
        variants=(
            variant("last"),
            variant("lower", *range(12)),
            variant("sum", 4, 6, 8),
            variant("scalar_mix"),
            variant("aif gate", 4, 6, 8),
            variant("aif select", 2, 4, 6, 8, 10),
            variant("aif select", 4, 6, squeeze_dim=16),
            variant("aif select", 6, squeeze_dim=16, gate_bias=-2.0),
        ),
    ),
)
