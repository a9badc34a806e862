"""Orders of fixed seeds, pinned: a run that resumes on a newer version goes on in the same order."""

import json
from pathlib import Path

import numpy as np
import pytest

from shardstream._native import order as native
from shardstream.order.epoch import EpochOrder
from shardstream.order.mix import MixOrder

GOLDEN = Path(__file__).parent / "golden/order"


def cases(name):
    return json.loads((GOLDEN / name).read_text())


@pytest.mark.parametrize("case", cases("keys.json"), ids=lambda case: str(case["words"]))
def test_keys_are_pinned(case):
    """The key of these words is this number, for ever."""
    assert f"{native.key(*case['words']):016x}" == case["key"]


@pytest.mark.parametrize("case", cases("ciphers.json"), ids=lambda case: f"{case['key']}-{case['n']}")
def test_permutations_are_pinned(case):
    """The images of these indices under this key and size are these, for ever."""
    assert native.permute(int(case["key"], 16), case["n"], case["indices"]).tolist() == case["images"]


@pytest.mark.parametrize("case", cases("epochs-shuffle-1.json"), ids=lambda case: case["name"])
def test_epochs_are_pinned(case):
    """Under order shuffle-1 these positions of this epoch are these samples, for ever."""
    order = EpochOrder(case["shard_num_samples"], shuffle=True, **case["arguments"])
    line = np.concatenate([order.line(position, position + 1) for position in case["positions"]])
    shards, rows = order.locate(line)
    assert [list(pair) for pair in zip(shards.tolist(), rows.tolist(), strict=True)] == case["samples"]


@pytest.mark.parametrize("case", cases("mixtures-mix-1.json"), ids=lambda case: case["name"])
def test_mixtures_are_pinned(case):
    """Under order mix-1 the first positions of this mixture are these (source, course position), for ever."""
    mix = MixOrder(case["num_samples"], pieces=case["pieces"], **case["arguments"])
    source, course = mix.draws(range(len(case["draws"])))
    assert [list(pair) for pair in zip(source.tolist(), course.tolist(), strict=True)] == case["draws"]
    assert mix.num_samples == case["end"]
