"""examples/online/ from end to end, in short: a log grows, its concept drifts, both programs are killed, all is learned
once.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import shardstream as ss

ROOT = Path(__file__).resolve().parents[1]


def test_the_online_loop(tmp_path):
    """One command: every line trained on once, a model that is better than a guess, and a plot."""
    command = [sys.executable, str(ROOT / "examples/online/run.py"), "--out", str(tmp_path), "--seconds", "6",
               "--drift-every", "4", "--rate", "300"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
                          timeout=240)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    [out] = tmp_path.iterdir()
    lines = (out / "events.jsonl").read_text().splitlines()
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert sum(record["num"] for record in metrics) == len(lines) == ss.Dataset(str(out / "events")).num_samples
    rows = [(float(row["t"]), int(row["y"])) for row in ss.ShardStream(str(out / "events"), fields=["t", "y"])]
    assert rows == [(record["time"], record["label"]) for record in map(json.loads, lines)]
    assert re.search(r"([\d.]+)% predicted right", done.stdout) and sum(record["right"] for record in metrics) > 0.6 * len(lines)
    assert done.stdout.count("by SIGKILL; starting it again") == 2 and "going on after" in done.stdout
    assert (out / "online.png").stat().st_size > 10_000
