"""Logs made without writing their shards, of any length: what their writers would have left, on demand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property

import numpy as np

from shardstream.log import ShardRecord, ShardTable, entries, folds, new_id
from shardstream.log.entries import Entry
from shardstream.log.opening import HINT, HINT_ALL, HINT_EXPIRED
from shardstream.log.state import State, Step

DATASET = "01890000-0000-7000-8000-000000000000"
SID_HIGH, SID_LOW = 0x0189000000007000, 0x8000000000000000


def record(num_samples: int = 100, **fields) -> ShardRecord:
    """Return a shard's record of plausible numbers and a new sid."""
    numbers = {"nbytes": 64_000_000, "index_offset": 63_990_000, "index_nbytes": 8000, "index_crc32c": 7, **fields}
    return ShardRecord(sid=new_id(), num_samples=num_samples, **numbers)


class SyntheticLog:
    """A log of entries 0 to ``version``, each but the first an append of ``num_added`` shards; with its folds and
    hints.

    Any object can be taken away or spoilt through ``changed``. ``rounds`` has the names of each round asked for.
    """

    def __init__(self, version: int, num_added: int = 1):
        self.version = version
        self.num_added = num_added
        self.changed: dict[str, bytes | None] = {}
        self.rounds: list[list[str]] = []

    def read_many(self, names: Sequence[str]) -> list[bytes | None]:
        self.rounds.append(list(names))
        return [self.get(name) for name in names]

    @property
    def num_requests(self) -> int:
        return sum(map(len, self.rounds))

    def get(self, name: str) -> bytes | None:
        """Return an object's bytes, None if there is none."""
        if name in self.changed:
            return self.changed[name]
        if name in (HINT, HINT_ALL):
            unit, first = (folds.FINE, 2) if name == HINT else (folds.ALL, folds.ALL)
            return b"%d" % (self.version // unit * unit) if self.version >= first else None
        if name == HINT_EXPIRED:
            return None
        number, _, ending = name.rpartition("/")[2].partition(".")
        version = int(number)
        if version > self.version:
            return None
        if ending == "json":
            return entries.encode(self.entry(version))
        begin, best = folds.piece(version)
        if name != best:
            return None
        if ending == "all":
            return folds.encode_all(self.state(version))
        return folds.encode_tail(DATASET, begin, [Step.of(self.entry(each)) for each in range(begin + 1, version + 1)])

    def entry(self, version: int) -> Entry:
        fields = {"format": entries.FORMAT, "version": version, "dataset": DATASET, "time": 1e9 + version,
                  "commit": f"01890000-0000-7000-8000-{version:012x}"}  # fmt: skip
        if version == 0:
            return Entry(kind="create", **fields)
        table = self._table.take(np.arange((version - 1) * self.num_added, version * self.num_added))
        return Entry(kind="append", add=tuple(table.record(row) for row in range(len(table))), **fields)

    def state(self, version: int) -> State:
        table = self._table.take(np.arange(version * self.num_added))
        return State(DATASET, version, 1e9 + version, None, (table,))

    @cached_property
    def _table(self) -> ShardTable:
        return _table(self.version * self.num_added, self.num_added)


@cache
def _table(count: int, num_added: int) -> ShardTable:
    rows = np.arange(count)
    generator = np.random.default_rng(0)
    nbytes = generator.integers(60_000_000, 68_000_000, count)
    return ShardTable({
        "sid": np.stack([np.full(count, SID_HIGH, np.uint64), SID_LOW + rows.astype(np.uint64)], axis=1),
        "num_samples": generator.integers(8000, 12000, count),
        "nbytes": nbytes, "index_offset": nbytes - 10_000,
        "index_nbytes": generator.integers(7000, 9000, count),
        "index_crc32c": generator.integers(0, 2**32, count, np.uint32),
        "entry": rows // num_added + 1,
    })  # fmt: skip
