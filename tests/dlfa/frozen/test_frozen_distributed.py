"""A frozen encoder under torchrun: one process computes the states, both train on them."""

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
def test_two_processes_train_on_states_as_one(tmp_path):
    encoder, data = make_encoder(tmp_path / "encoder"), make_udpos(tmp_path / "data")
    config = BertConfig.from_pretrained(encoder, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    BertModel(config).save_pretrained(encoder)
    results = {}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, launcher, batch_size in (("two", torchrun, "4"), ("one", [], "8")):
        command = [
            sys.executable, *launcher, "-m", "dlfa", "train", "--task", "udpos", "--model", str(encoder), "--data-dir",
            str(data), "--fusion-layer", "1", "--learning-rate", "0.01", "--epochs", "2", "--gradient-accumulation",
            "1", "--max-length", "32", "--quiet", "--freeze-encoder", "--states-cache", str(tmp_path / f"cache-{name}"),
            "--batch-size", batch_size, "--output-dir", str(tmp_path / name),
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        results[name] = json.loads((tmp_path / name / "results.json").read_text())
    assert results["two"]["train"]["loss"] == pytest.approx(results["one"]["train"]["loss"], rel=1e-4)
    files = [sorted(path.name for path in (tmp_path / f"cache-{name}").rglob("*.npy")) for name in ("two", "one")]
    assert files[0] == files[1]
