"""The live shards of a dataset as columns, one row each: about 60 bytes a shard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from shardstream.errors import DatasetError
from shardstream.locks import lazy
from shardstream.log.entries import ShardRecord

COLUMNS = {"sid": np.uint64, "num_samples": np.int64, "nbytes": np.int64, "index_offset": np.int64,
           "index_nbytes": np.int64, "index_crc32c": np.uint32, "entry": np.int64}  # fmt: skip
NUMBERS = tuple(name for name in COLUMNS if name != "sid")


def sid_bytes(sids: Iterable[str]) -> np.ndarray:
    """Return UUID texts as uint64 pairs, shape ``(n, 2)``, the first eight bytes first."""
    data = bytes.fromhex("".join(sids).replace("-", ""))
    return np.frombuffer(data, ">u8").reshape(-1, 2).astype(np.uint64)


class ShardTable:
    """Shards in log order, columns by attribute.

    =================  ==========  ======================================================
    column             dtype       meaning
    =================  ==========  ======================================================
    ``sid``            uint64 x 2  the UUID's 16 bytes, big-endian; ``sid(i)`` is the text
    ``num_samples``    int64       samples in the shard
    ``nbytes``         int64       size of the tar
    ``index_offset``   int64       where index.json's bytes begin; its size and CRC-32C:
    ``index_nbytes``   int64
    ``index_crc32c``   uint32
    ``entry``          int64       the log entry that added it
    =================  ==========  ======================================================

    ``adopted`` maps the rows of foreign shards to their URLs. Never modified once made.
    """

    def __init__(self, columns: dict[str, np.ndarray], adopted: dict[int, str] | None = None, base: str = ""):
        self.sids: np.ndarray = columns["sid"]
        self.num_samples: np.ndarray = columns["num_samples"]
        self.nbytes: np.ndarray = columns["nbytes"]
        self.index_offset: np.ndarray = columns["index_offset"]
        self.index_nbytes: np.ndarray = columns["index_nbytes"]
        self.index_crc32c: np.ndarray = columns["index_crc32c"]
        self.entry: np.ndarray = columns["entry"]
        self.adopted = adopted or {}
        self.base = base

    @classmethod
    def from_records(cls, records: Sequence[ShardRecord], entry: int) -> ShardTable:
        """Return the table of the shards that log entry ``entry`` adds."""
        columns = {name: np.array([getattr(record, name) for record in records], COLUMNS[name])
                   for name in NUMBERS if name != "entry"}  # fmt: skip
        columns["sid"] = sid_bytes(record.sid for record in records)
        columns["entry"] = np.full(len(records), entry, np.int64)
        return cls(columns, {row: record.url for row, record in enumerate(records) if record.url is not None})

    @classmethod
    def concatenate(cls, tables: Sequence[ShardTable]) -> ShardTable:
        """Return the rows of all tables, in order."""
        if len(tables) == 1:
            return tables[0]
        columns = {name: np.concatenate([table.column(name) for table in tables] or [_empty(name)]) for name in COLUMNS}
        adopted, begin = {}, 0
        for table in tables:
            adopted.update((begin + row, url) for row, url in table.adopted.items())
            begin += len(table)
        return cls(columns, adopted)

    def column(self, name: str) -> np.ndarray:
        return self.sids if name == "sid" else getattr(self, name)

    def __len__(self) -> int:
        return len(self.num_samples)

    def take(self, rows: np.ndarray) -> ShardTable:
        """Return the rows chosen by an ascending index array or a mask."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        columns = {name: self.column(name)[rows] for name in COLUMNS}
        adopted = {}
        if self.adopted:
            place = {int(row): position for position, row in enumerate(rows)}
            adopted = {place[row]: url for row, url in self.adopted.items() if row in place}
        return ShardTable(columns, adopted, self.base)

    def based(self, base: str) -> ShardTable:
        """Return the same rows with URLs below the dataset at ``base``."""
        return ShardTable({name: self.column(name) for name in COLUMNS}, self.adopted, base)

    def rows_of(self, sids: np.ndarray) -> np.ndarray:
        """Return the row of each of ``sids`` (uint64 pairs), -1 where it is not in the table."""
        order = np.argsort(self.sids[:, 1], kind="stable")
        low = self.sids[order, 1]
        rows = np.full(len(sids), -1, np.int64)
        begins, ends = np.searchsorted(low, sids[:, 1], "left"), np.searchsorted(low, sids[:, 1], "right")
        for position, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            same = order[begin:end][self.sids[order[begin:end], 0] == sids[position, 0]]
            if len(same):
                rows[position] = same[0]
        return rows

    def without(self, sids: np.ndarray) -> ShardTable:
        """Return the table without the given shards, which must all be in it."""
        rows = self.rows_of(sids)
        if (rows < 0).any():
            raise DatasetError(f"the log removes shard {_text(sids[rows < 0][0])}, which is not live.")
        keep = np.ones(len(self), bool)
        keep[rows] = False
        return self.take(keep)

    def sid(self, row: int) -> str:
        """Return a shard's id as text."""
        return _text(self.sids[row])

    def url(self, row: int) -> str:
        """Return a shard's URL."""
        row = range(len(self))[row]
        adopted = self.adopted.get(row)
        if adopted is None:
            return f"{self.base}/{self.sid(row)}.tar"
        return adopted if "://" in adopted or adopted.startswith("/") else f"{self.base}/{adopted}"

    def index_url(self, row: int) -> str:
        """Return the URL of the object in which ``[index_offset, + index_nbytes)`` is the shard's index."""
        row = range(len(self))[row]
        return f"{self.base}/{self.sid(row)}.index.json" if row in self.adopted else self.url(row)

    @lazy
    def urls(self) -> list[str]:
        """All URLs, in log order; made when first asked for."""
        text, base = self.sids.astype(">u8").tobytes().hex(), self.base
        urls = [f"{base}/{_dashed(text[begin : begin + 32])}.tar" for begin in range(0, len(text), 32)]
        for row in self.adopted:
            urls[row] = self.url(row)
        return urls

    def record(self, row: int) -> ShardRecord:
        """Return one shard as an entry states it."""
        numbers = {name: int(self.column(name)[row]) for name in NUMBERS if name != "entry"}
        return ShardRecord(sid=self.sid(row), url=self.adopted.get(row), **numbers)


def _empty(name: str) -> np.ndarray:
    return np.empty((0, 2) if name == "sid" else 0, COLUMNS[name])


def _text(pair: np.ndarray) -> str:
    return _dashed(f"{int(pair[0]):016x}{int(pair[1]):016x}")


def _dashed(text: str) -> str:
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


EMPTY = ShardTable({name: _empty(name) for name in COLUMNS})
