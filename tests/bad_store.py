"""Epochs through a store that misbehaves: what ``test_bad_store.py`` runs for seconds and ``soak_s3.py`` for minutes.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator

import numpy as np

import shardstream as ss

SCHEMA = ss.Schema(x=ss.Sparse(1000), t=ss.Ragged("uint8"), y=ss.Dense("int64"))
BLOCK_ROWS = 50
FAULTS = ["reset", "lost", "500", "503", "409", "truncate", "corrupt", "trickle", "stall"]
QUICK = ss.RetryPolicy(first_delay_s=0.01, max_delay_s=0.2, request_s=5.0)


@contextlib.contextmanager
def small_blocks() -> Iterator[None]:
    """Write blocks of ``BLOCK_ROWS``, and read each by a request of its own, so that an epoch has many requests."""
    import pytest

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shardstream.shardfile.MAX_BLOCK_SAMPLES", BLOCK_ROWS)
        patch.setattr("shardstream.parts.MAX_PART_NBYTES", 1)
        yield


def write(url: str, num_samples: int, **options) -> None:
    """Write samples whose columns follow from ``y``."""
    with ss.ShardWriter(url, schema=SCHEMA, shard_nbytes="60kB", **options) as writer:
        for begin in range(0, num_samples, 500):
            y = np.arange(begin, min(begin + 500, num_samples))
            indices = np.stack([y % 1000, (y * 7 + 1) % 1000], 1).ravel()
            writer.write_batch({"x": (indices, np.arange(len(y) + 1) * 2), "t": (np.repeat(y % 251, 20).astype(np.uint8), np.arange(len(y) + 1) * 20),
                                "y": y})  # fmt: skip


def check_batch(batch: dict) -> list[int]:
    """Return a batch's ``y``; fail if any other column is not what follows from it."""
    y = batch["y"]
    assert (batch["t"].offsets == np.arange(len(y) + 1) * 20).all()
    assert (batch["t"].values.reshape(len(y), 20).numpy() == (y.numpy() % 251)[:, None]).all()
    expected = np.zeros((len(y), 1000), np.float32)
    np.put_along_axis(expected, np.stack([y.numpy() % 1000, (y.numpy() * 7 + 1) % 1000], 1), 1, 1)
    assert (batch["x"].numpy() == expected).all()
    return y.tolist()


def check_epoch(stream: ss.ShardStream, num_samples: int) -> None:
    """Read an epoch; fail unless every sample comes once, and is what was written."""
    found = collections.Counter(y for batch in stream for y in check_batch(batch))
    assert found == collections.Counter(range(num_samples))
