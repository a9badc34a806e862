"""Stored bytes to columns: one block read, verified and decoded (``BlockReader``).

This is the only place where a shard's bytes become data. A block is one ranged read of exactly the
members that are wanted, every one of them checked against its CRC-32C before it is decoded.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from shardstream._native.crc32c import crc32c
from shardstream.buffers import BufferPool
from shardstream.codecs import columns
from shardstream.codecs.shard import ShardIndex
from shardstream.errors import ChecksumError, CodecError, ConfigError, ShardError, ShardNotFoundError, ShardstreamError
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
        self.stats = fetcher.stats

    def index(self, shard: int) -> tuple[ShardIndex, np.ndarray]:
        """Return a shard's index and the int64 ``(num_blocks + 1,)`` rows at which its blocks begin."""
        with self._lock:
            if shard in self._indexes:
                self._indexes.move_to_end(shard)
                return self._indexes[shard]
        try:
            index = self.source.load_index(shard, self.fetcher)
        except ShardNotFoundError as error:
            self.source.explain_missing(shard, error)
            raise
        starts = np.zeros(index.num_blocks + 1, np.int64)
        np.cumsum(index.num_samples, out=starts[1:])
        if starts[-1] != self.source.count(shard):
            raise ShardError(f"the shard's index counts {starts[-1]} samples, the log {self.source.count(shard)}.",
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
            numbers = self._member_numbers(index, shard, name)
            if not numbers:
                nbytes += int(index.num_samples[block]) * _nbytes(columns.default_column(self.source.schema[name], 1))
            for c in numbers:
                size = int(index.extents[block, c, 1])
                if isinstance(self.source.schema[name], Sparse):
                    size = SPARSE_GROWTH * size + 8 * int(index.num_samples[block])
                nbytes += size * ZSTD_GROWTH if index.columns[c].endswith(".zst") else size
        return nbytes

    def span(self, shard: int, block: int) -> tuple[int, int]:
        """Return the bytes ``[begin, end)`` of the shard that hold what is wanted of a block; none if all of it is defaults."""
        index, _ = self.index(shard)
        extents = index.extents[block]
        if self.source.schema is not None:
            extents = extents[[c for name in self.fields for c in self._member_numbers(index, shard, name)]]
        if not len(extents):
            return 0, 0
        return int(extents[:, 0].min()), int(extents.sum(axis=1).max())

    def read(self, shard: int, block: int) -> Block:
        """Return one block; every error names shard, block and offset.

        Raises:
            ShardNotFoundError: The shard is gone.
            ChecksumError: Bytes do not match their CRC-32C.
            ShardError, CodecError: They match but are not what the format says.
            StorageError: The store failed for good.
        """
        [block] = self.read_many(shard, [block])
        if not isinstance(block, Block):
            raise block
        return block

    def read_many(self, shard: int, blocks: Sequence[int]) -> list[Block | ShardstreamError]:
        """Return each of several ascending blocks, or the error that :meth:`read` would raise; neighbours come by one request."""
        index, _ = self.index(shard)
        url, spans = self.source.url(shard), [self.span(shard, block) for block in blocks]
        verify = [self._verifier(index, shard, block, begin) for block, (begin, _) in zip(blocks, spans)]
        begun, verify_s = time.perf_counter(), []
        if all(begin == end for begin, end in spans):  # the shard is older than all wanted fields
            found = [np.empty(0, np.uint8) for _ in spans]
        else:
            found = self.fetcher.read_spans(url, spans, [_timed(check, verify_s) for check in verify], self.pool.take)
        fetched = time.perf_counter()
        num_bytes = sum(len(data) for data in found if isinstance(data, np.ndarray))
        for i, (block, (begin, _)) in enumerate(zip(blocks, spans)):
            try:
                if isinstance(found[i], np.ndarray):
                    found[i] = self._decoded(index, shard, block, found[i], begin)
            except (ShardError, CodecError) as error:
                found[i] = error
            if isinstance(found[i], ShardNotFoundError):
                self.source.explain_missing(shard, found[i])
            if isinstance(found[i], (ShardError, CodecError)):
                found[i].shard, found[i].block = found[i].shard or url, block if found[i].block is None else found[i].block
        self.stats.add(fetch=max(0.0, fetched - begun - sum(verify_s)), verify=sum(verify_s), decode=time.perf_counter() - fetched,
                       num_blocks=len(found), num_bytes_read=num_bytes)  # fmt: skip
        return found

    def _verifier(self, index: ShardIndex, shard: int, block: int, begin: int) -> Callable[[np.ndarray], None]:
        """Return a function that checks the wanted members of a block, given its bytes from ``begin`` on."""
        if self.source.schema is None:
            return lambda data: _verify(data, int(index.crc32c[block, 0]), begin)
        members = [(name, c) for name in self.fields for c in self._member_numbers(index, shard, name)]

        def verify(data: np.ndarray) -> None:
            for name, c in members:
                offset, size = index.extents[block, c].tolist()
                _verify(data[offset - begin : offset - begin + size], int(index.crc32c[block, c]), offset, name)

        return verify

    def _decoded(self, index: ShardIndex, shard: int, block: int, data: np.ndarray, begin: int) -> Block:
        num_samples = int(index.num_samples[block])
        if self.source.schema is None:
            from shardstream.codecs import files

            samples = files.read_block(data, begin, num_samples, self.source.url(shard))
            return Block({"__samples__": samples}, num_samples, len(data))
        decoded, nbytes = {}, 0
        for name in self.fields:
            views, numbers = [], self._member_numbers(index, shard, name)
            if not numbers:
                decoded[name] = columns.default_column(self.source.schema[name], num_samples)
                nbytes += _nbytes(decoded[name])
                continue
            for c in numbers:
                offset, size = index.extents[block, c].tolist()
                views.append(data[offset - begin : offset - begin + size])
            compressed = "zstd" if index.columns[numbers[0]].endswith(".zst") else None
            try:
                decoded[name] = columns.decode_column(self.source.schema[name], views, num_samples, compressed)
            except CodecError as error:
                error.field, error.offset = name, int(index.extents[block, numbers[0], 0]) + (error.offset or 0)
                raise
            nbytes += _nbytes(decoded[name])
        return Block(decoded, num_samples, nbytes)

    def _member_numbers(self, index: ShardIndex, shard: int, name: str) -> list[int]:
        """Return which of the index's columns hold a field; none if the shard was written before there was the field."""
        field, known = self.source.schema[name], set(index.columns)
        forms = [columns.member_suffixes(name, field, compression) for compression in (None, "zstd")]
        for suffixes in forms:
            if known.issuperset(suffixes):
                return [index.columns.index(suffix) for suffix in suffixes]
        if field.default is not None and known.isdisjoint(suffix for suffixes in forms for suffix in suffixes):
            return []
        raise ShardError(f"the shard has no column {name!r}.", shard=self.source.url(shard), field=name)


def _nbytes(column) -> int:
    parts = column if isinstance(column, tuple) else (column,)
    return sum(part.nbytes for part in parts if part is not None)


def checked_fields(schema: Schema, fields: list[str] | None) -> list[str]:
    """Return the fields to read, in schema order."""
    if fields is None:
        return list(schema)
    unknown = [name for name in fields if name not in schema]
    if unknown or not fields:
        raise ConfigError(f"fields={list(fields)!r}: the dataset has {list(schema)}.", field=unknown[0] if unknown else None)
    return [name for name in schema if name in fields]


def _timed(verify: Callable[[np.ndarray], None], seconds: list[float]) -> Callable[[np.ndarray], None]:
    """Return ``verify``, which also appends how long it took to ``seconds``."""

    def timed(data: np.ndarray) -> None:
        begun = time.perf_counter()
        try:
            verify(data)
        finally:
            seconds.append(time.perf_counter() - begun)

    return timed


def _verify(data: np.ndarray, expected: int, offset: int, field: str | None = None) -> None:
    found = crc32c(data)
    if found != expected:
        raise ChecksumError(f"stored bytes have CRC-32C {found:08x}, the index says {expected:08x}.", offset=offset, field=field)
