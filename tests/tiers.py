"""Samples with a field of every kind, and what datasets must give for them; for the tests of the map-style tiers."""

from __future__ import annotations

import numpy as np
import torch

import shardstream as ss

SCHEMA = ss.Schema(x=ss.Sparse(1024), v=ss.Sparse(50, "float32"), tokens=ss.Ragged("uint16"), text=ss.Text(), raw=ss.Bytes(),
                   img=ss.Dense("uint8", (2, 3)), y=ss.Dense("int64"))  # fmt: skip


def samples(num_samples: int, seed: int = 0) -> list[dict]:
    """Return samples as writers take them; some sets, texts and token lists are empty."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(num_samples):
        made.append({
            "x": np.sort(rng.choice(1024, rng.integers(0, 30), replace=False)), "v": (np.arange(i % 5), np.full(i % 5, i / 2, "f4")),
            "tokens": rng.integers(0, 60_000, i % 7).astype("u2"), "text": "añ中"[: i % 4], "raw": bytes([i % 256]) * (i % 3),
            "img": rng.integers(0, 255, (2, 3)).astype("u1"), "y": i,
        })  # fmt: skip
    return made


def assert_is_sample(got: dict, wanted: dict) -> None:
    """Compare a sample of a dataset (``sparse="indices"``) with the one that was written."""
    assert list(got) == list(SCHEMA)
    assert got["x"].tolist() == wanted["x"].tolist()
    assert [part.tolist() for part in got["v"]] == [part.tolist() for part in wanted["v"]]
    assert got["tokens"].dtype == torch.int64 and got["tokens"].tolist() == wanted["tokens"].tolist()
    assert (got["text"], got["raw"], int(got["y"])) == (wanted["text"], wanted["raw"], wanted["y"])
    assert got["img"].dtype == torch.uint8 and got["img"].tolist() == wanted["img"].tolist()


def assert_same(left, right) -> None:
    """Compare two samples or batches of any kind of column exactly."""
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert list(left) == list(right)
        for name in left:
            assert_same(left[name], right[name])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for a, b in zip(left, right):
            assert_same(a, b)
    elif isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype and left.layout == right.layout and torch.equal(left.to_dense(), right.to_dense())
    elif isinstance(left, np.ndarray):
        assert left.dtype == right.dtype and np.array_equal(left, right)
    else:
        assert left == right
