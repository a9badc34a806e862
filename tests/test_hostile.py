"""Hostile shards cost bounded time and memory, raise the error that fits, and touch nothing
(``tests/hostile/README.md``).
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile import build

ROOT = Path(__file__).resolve().parents[1]
CPU_S, MEMORY_MIB = 5.0, 160  # of each; a bomb may become 64 MiB, which some decoders hold twice


@pytest.fixture(scope="module")
def attacks(tmp_path_factory) -> dict[str, dict]:
    """What came of reading each shard, by its name."""
    folder = tmp_path_factory.mktemp("hostile")
    done = subprocess.run([sys.executable, "-m", "tests.hostile.attack", str(folder)], cwd=ROOT, capture_output=True, text=True,
                          timeout=240, env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return {attack["name"]: attack for attack in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", build.SHARDS)
def test_a_hostile_shard_is_an_error_that_costs_little(attacks, name):
    """Reading ends with the expected error or the samples, in little CPU time and memory, and no file appears or is
    read.
    """
    attack = attacks[name]
    assert attack["found"] == build.EXPECTED[name]
    assert attack["cpu_s"] < CPU_S and attack["memory_mib"] < MEMORY_MIB
    assert attack["appeared"] == []


def test_every_shard_is_in_the_readme():
    """The README lists each shard with its idea and what holds against it, and no other."""
    listed = re.findall(r"^\| `(\w+)` \|", (ROOT / "tests" / "hostile" / "README.md").read_text(), re.M)
    assert sorted(listed) == sorted(build.SHARDS)
