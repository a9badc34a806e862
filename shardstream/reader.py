"""Stored bytes to columns: one block read, verified and decoded (``BlockReader``).

This is the only place where a shard's bytes become data. A block is one ranged read of exactly the
members that are wanted, every one of them checked against its CRC-32C before it is decoded.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shardstream._native.crc32c import crc32c
from shardstream.buffers import BufferPool
from shardstream.codecs import columns
from shardstream.codecs.shard import ShardIndex
from shardstream.errors import ChecksumError, CodecError, ConfigError, ShardError
from shardstream.schema import Schema, Sparse
from shardstream.source import Source
from shardstream.storage import Fetcher

INDEXES_KEPT = 4096  # parsed shard indexes of one reader; a window touches far fewer shards
# Decoded bytes per stored byte, assumed until a block is decoded (sparse: about 7 bits become 32; text: zstd).
SPARSE_GROWTH, ZSTD_GROWTH = 5, 4


@dataclass(frozen=True, eq=False)
class Block:
    """The decoded columns of one block.

    Attributes:
        columns: Field name to decoded form (``codecs/columns.py``); in the files layout, ``"__samples__"`` to
            a list of ``(key, {field: memoryview})``.
        num_samples: Rows.
        nbytes: Bytes of memory that the block holds.
    """

    columns: dict
    num_samples: int
    nbytes: int


class BlockReader:
    """Reads blocks of a source; threads may share one.

    Args:
        source: Shards and where they are.
        fields: Names to read, or None for all; other columns are neither fetched nor decoded.
        fetcher: Reads byte ranges.
    """

    def __init__(self, source: Source, fields: list[str] | None, fetcher: Fetcher):
        self.source, self.fetcher = source, fetcher
        self.fields = None if source.schema is None else checked_fields(source.schema, fields)
        self._indexes: OrderedDict[int, tuple[ShardIndex, np.ndarray]] = OrderedDict()
        self._lock = threading.Lock()
        self.pool = BufferPool()  #: memory of blocks and batches, used again over epochs
        self.num_bytes_read = 0

    def index(self, shard: int) -> tuple[ShardIndex, np.ndarray]:
        """Return a shard's index and the int64 ``(num_blocks + 1,)`` rows at which its blocks begin."""
        with self._lock:
            if shard in self._indexes:
                self._indexes.move_to_end(shard)
                return self._indexes[shard]
        index = self.source.load_index(shard, self.fetcher)
        starts = np.zeros(index.num_blocks + 1, np.int64)
        np.cumsum(index.num_samples, out=starts[1:])
        if starts[-1] != self.source.num_samples[shard]:
            raise ShardError(f"the shard's index counts {starts[-1]} samples, the log {self.source.num_samples[shard]}.",
                             shard=self.source.url(shard))  # fmt: skip
        with self._lock:
            self._indexes[shard] = index, starts
            if len(self._indexes) > INDEXES_KEPT:
                self._indexes.popitem(last=False)
        return index, starts

    def estimate_nbytes(self, shard: int, block: int) -> int:
        """Return about how many bytes of memory reading this block will take."""
        index, _ = self.index(shard)
        if self.source.schema is None:
            return int(index.extents[block, :, 1].sum())
        nbytes = 0
        for name in self.fields:
            for c in self._member_numbers(index, shard, name):
                size = int(index.extents[block, c, 1])
                if isinstance(self.source.schema[name], Sparse):
                    size = SPARSE_GROWTH * size + 8 * int(index.num_samples[block])
                nbytes += size * ZSTD_GROWTH if index.columns[c].endswith(".zst") else size
        return nbytes

    def read(self, shard: int, block: int) -> Block:
        """Return one block; every error names shard, block and offset.

        Raises:
            ShardNotFoundError: The shard is gone.
            ChecksumError: Bytes do not match their CRC-32C.
            ShardError, CodecError: They match but are not what the format says.
            StorageError: The store failed for good.
        """
        index, _ = self.index(shard)
        url = self.source.url(shard)
        try:
            return self._read_files(index, url, block) if self.source.schema is None else self._read_columns(index, shard, block)
        except (ShardError, CodecError) as error:
            error.shard, error.block = error.shard or url, block if error.block is None else error.block
            raise

    def _read_files(self, index: ShardIndex, url: str, block: int) -> Block:
        from shardstream.codecs import files

        offset, nbytes = index.extents[block, 0].tolist()
        data = self._fetch(url, offset, offset + nbytes, lambda data: _verify(data, int(index.crc32c[block, 0]), offset))
        num_samples = int(index.num_samples[block])
        samples = files.read_block(data, offset, num_samples, url)
        return Block({"__samples__": samples}, num_samples, len(data))

    def _read_columns(self, index: ShardIndex, shard: int, block: int) -> Block:
        members = {name: self._member_numbers(index, shard, name) for name in self.fields}
        wanted = [c for numbers in members.values() for c in numbers]
        extents = index.extents[block]
        begin = int(extents[wanted, 0].min())

        def verify(data: np.ndarray) -> None:
            for name, numbers in members.items():
                for c in numbers:
                    offset, size = extents[c].tolist()
                    _verify(data[offset - begin : offset - begin + size], int(index.crc32c[block, c]), offset, name)

        data = self._fetch(self.source.url(shard), begin, int(extents[wanted].sum(axis=1).max()), verify)
        num_samples = int(index.num_samples[block])
        decoded, nbytes = {}, 0
        for name, numbers in members.items():
            views = []
            for c in numbers:
                offset, size = extents[c].tolist()
                views.append(data[offset - begin : offset - begin + size])
            compressed = "zstd" if index.columns[numbers[0]].endswith(".zst") else None
            try:
                decoded[name] = columns.decode_column(self.source.schema[name], views, num_samples, compressed)
            except CodecError as error:
                error.field, error.offset = name, int(extents[numbers[0], 0]) + (error.offset or 0)
                raise
            parts = decoded[name] if isinstance(decoded[name], tuple) else (decoded[name],)
            nbytes += sum(part.nbytes for part in parts if part is not None)
        return Block(decoded, num_samples, nbytes)

    def _member_numbers(self, index: ShardIndex, shard: int, name: str) -> list[int]:
        """Return which of the index's columns hold a field."""
        field = self.source.schema[name]
        for compression in (None, "zstd"):
            suffixes = columns.member_suffixes(name, field, compression)
            if set(suffixes) <= set(index.columns):
                return [index.columns.index(suffix) for suffix in suffixes]
        raise ShardError(f"the shard has no column {name!r}.", shard=self.source.url(shard), field=name)

    def _fetch(self, url: str, begin: int, end: int, verify: Callable[[np.ndarray], None]) -> np.ndarray:
        data = self.fetcher.read(url, begin, end, self.pool.take, verify)
        with self._lock:
            self.num_bytes_read += end - begin
        return data


def checked_fields(schema: Schema, fields: list[str] | None) -> list[str]:
    """Return the fields to read, in schema order."""
    if fields is None:
        return list(schema)
    unknown = [name for name in fields if name not in schema]
    if unknown or not fields:
        raise ConfigError(f"fields={list(fields)!r}: the dataset has {list(schema)}.", field=unknown[0] if unknown else None)
    return [name for name in schema if name in fields]


def _verify(data: np.ndarray, expected: int, offset: int, field: str | None = None) -> None:
    found = crc32c(data)
    if found != expected:
        raise ChecksumError(f"stored bytes have CRC-32C {found:08x}, the index says {expected:08x}.", offset=offset, field=field)
