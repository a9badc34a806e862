"""The demo's script from end to end on a small folder of text, as ``make demo`` runs it."""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

import shardstream as ss

ROOT = Path(__file__).resolve().parents[1]
WORDS = {"rain": "drop cloud puddle umbrella wet grey".split(), "sun": "light warm noon shade dry blue".split()}


@pytest.fixture
def texts(tmp_path):
    """60 files in two folders, whose words tell the folder."""
    chance = random.Random(0)
    for label, words in WORDS.items():
        (tmp_path / "texts" / label).mkdir(parents=True)
        for number in range(30):
            lines = (" ".join(chance.choices([*words, "the", "and"], k=8)) for _ in range(100))
            (tmp_path / "texts" / label / f"{number}.txt").write_text("\n".join(lines))
    return tmp_path / "texts"


def test_demo_on_local_disk(texts):
    """Pack, measure, train, kill, resume to the same weights, and read, with something to show for each."""
    settings = (f"source.paths={texts}", 'source.include=["*.txt"]', "steps[1].hash.dim=4096")
    command = [
        sys.executable,
        str(ROOT / "examples/demo.py"),
        "--out",
        str(texts.parent / "demo"),
        "--epochs",
        "2",
        "--batch-size",
        "32",
    ]
    command += [part for setting in settings for part in ("--set", setting)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    out = done.stdout
    assert done.returncode == 0, out + done.stderr
    dense, webdataset, ours = [
        float(number.replace(",", "")) for number in re.findall(r"^  \w.*?([\d,.]+) MB", out, re.MULTILINE)
    ]
    assert dense > webdataset > ours > 0
    accuracy, baseline = map(float, re.search(r"held-out accuracy ([\d.]+)% .* ([\d.]+)%", out).groups())
    assert accuracy > baseline
    assert "(ended by SIGKILL, as it should)" in out and "going on after batch" in out and "equal bit for bit" in out
    assert out.strip().splitlines()[-1].startswith("streamed ")
    assert ss.Dataset(str(texts.parent / "demo/stdlib/train")).num_samples > 0
