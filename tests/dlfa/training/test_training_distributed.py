"""The same command under torchrun: two processes see the batches that one would, and one of them writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_tasks import make_encoder, make_udpos
from transformers import BertConfig, BertModel

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_two_processes_train_and_evaluate_as_one(tmp_path):
    encoder = make_encoder(tmp_path / "encoder")
    # Without dropout, whose draws differ between processes, the two runs differ by rounding alone.
    config = BertConfig.from_pretrained(encoder, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    BertModel(config).save_pretrained(encoder)
    data = make_udpos(tmp_path / "data")
    flags = [
        "--task", "udpos", "--model", encoder, "--data-dir", data, "--fusion-layer", 1, "--learning-rate", 0.01,
        "--epochs", 3, "--gradient-accumulation", 2, "--max-length", 32, "--quiet",
    ]  # fmt: skip

    def run(launcher, name, batch_size):
        out = tmp_path / name
        command = [*launcher, "-m", "dlfa", "train", *flags, "--batch-size", batch_size, "--output-dir", out]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [str(part) for part in command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads((out / "results.json").read_text()), done.stdout

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    two, table = run(torchrun, "two", 4)
    one, _ = run([sys.executable], "one", 8)
    assert (two["config"]["processes"], one["config"]["processes"]) == (2, 1)
    assert two["train"]["steps"] == one["train"]["steps"] == 9
    assert two["train"]["loss"] == pytest.approx(one["train"]["loss"], rel=1e-4)
    assert two["train"]["best_dev"] == pytest.approx(one["train"]["best_dev"], abs=0.02)
    for language, scores in one["languages"].items():
        assert two["languages"][language]["accuracy"] == pytest.approx(scores["accuracy"], abs=0.05)
        assert two["languages"][language]["examples"] == scores["examples"]
    assert table.count("average, zero-shot") == 1
    assert not (tmp_path / "two" / "checkpoints").exists()
