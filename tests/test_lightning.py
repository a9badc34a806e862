"""The Lightning example, killed in mid-epoch: the run that goes on trains on exactly the batches that were left."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import shardstream as ss

pytest.importorskip("lightning", reason="the test extra has Lightning")
ROOT = Path(__file__).resolve().parents[1]
# The example, noting what each step trained on.
NOTING = """
import json, sys
sys.path.insert(0, sys.argv.pop(1))
import train_lightning
notes, step = open(sys.argv.pop(1), "a", buffering=1), train_lightning.LinearText.training_step
def noted(self, batch, index):
    notes.write(json.dumps([self.global_step, batch["y"].tolist()]) + chr(10))
    return step(self, batch, index)
train_lightning.LinearText.training_step = noted
train_lightning.main()
"""


def test_resume_in_mid_epoch(tmp_path):
    """Killed in the middle of the second epoch: three epochs have every sample once."""
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(x=ss.Sparse(64), y=ss.Dense("int64"))) as writer:
        for i in range(1000):
            writer.write({"x": [i % 64], "y": i})
    command = [sys.executable, "-c", NOTING, str(ROOT / "examples"), str(tmp_path / "notes"), str(tmp_path / "d"), "--epochs", "3", "--batch-size", "50",
               "--num-classes", "1000", "--checkpoint-every", "6", "--folder", str(tmp_path / "run")]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    killed = subprocess.run([*command, "--kill-after", "27"], env=environment, capture_output=True, text=True,
                            timeout=200)  # fmt: skip
    assert killed.returncode == -9, killed.stderr
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and "went on; batch 60 of epoch 3" in done.stdout, done.stderr
    trained = {}
    for line in (tmp_path / "notes").read_text().splitlines():
        step, labels = json.loads(line)
        assert trained.setdefault(step, labels) == labels  # what was done again was the same
    for epoch in range(3):
        assert sorted(y for step in range(20 * epoch, 20 * epoch + 20) for y in trained[step]) == list(range(1000))
