"""`dlfa train` by one process or several, and whether the models are the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from tiny_tasks import make_encoder, make_udpos
from transformers import BertConfig, BertModel

from dlfa import DLFAForTokenClassification

ROOT = Path(__file__).resolve().parents[2]
SEQUENCES = 8  # in a batch, of all processes together


def train_in_processes(folder: Path, processes: int, *flags: object) -> tuple[dict, str]:
    """Train a tagger into `folder`/`processes`: its results, and what was printed.

    The encoder and the data lie in `folder` too. There is no dropout, whose draws differ between processes.
    """
    encoder, data, out = folder / "encoder", folder / "data", folder / str(processes)
    if not data.exists():
        config = BertConfig.from_pretrained(
            make_encoder(encoder), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
        )
        BertModel(config).save_pretrained(encoder)
        make_udpos(data)
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", processes, "-m"]
    command = [
        sys.executable, "-m", *(torchrun if processes > 1 else []), "dlfa", "train", "--task", "udpos", "--model",
        encoder, "--data-dir", data, "--output-dir", out, "--batch-size", SEQUENCES // processes, "--fusion-layer", 1,
        "--learning-rate", 0.01, "--max-length", 32, "--quiet", *flags,
    ]  # fmt: skip
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads((out / "results.json").read_text()), done.stdout


def assert_same_weights(one: Path, other: Path, atol: float) -> None:
    """Fail where a weight of two saved taggers is apart by more."""
    weights, others = (DLFAForTokenClassification.from_pretrained(run).state_dict() for run in (one, other))
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        assert torch.allclose(weight, others[name], rtol=0, atol=atol), name
