"""Stored bytes to columns: one block read, verified and decoded (``BlockReader``).

This is the only place where a shard's bytes become data. A block is one ranged read of exactly the
members that are wanted, every one of them checked against its CRC-32C before it is decoded.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from shardstream._native.crc32c import crc32c
from shardstream.buffers import BufferPool, array_nbytes, block_nbytes, held_nbytes
from shardstream.codecs import columns
from shardstream.codecs.shard import MAX_BLOCK_NBYTES, ShardIndex
from shardstream.errors import (
    ChecksumError,
    CodecError,
    ConfigError,
    ShardError,
    ShardNotFoundError,
    ShardstreamError,
)
from shardstream.extents import ShardExtents, decoded_nbytes
from shardstream.locks import ForkSafeLock
from shardstream.schema import Schema, Sparse
from shardstream.source import SPARSE_GROWTH, Source
from shardstream.stats import Stats
from shardstream.storage import Fetcher
from shardstream.storage.fetch import MembersCheck

INDEXES_KEPT = 4096  # parsed shard indexes of one reader; a window touches far fewer shards


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
        self._shards: OrderedDict[int, ShardExtents] = OrderedDict()
        self._lock = ForkSafeLock()
        self.pool = BufferPool(block_nbytes)  #: memory of blocks, used again over epochs
        self.batches = BufferPool()  #: memory of batches
        self.outside: dict[str, int] = {}  #: by what they are, bytes that batches take outside of pools
        self.stats = fetcher.stats
        self.kept: dict = {}  #: what ``window.WindowReader`` leaves for the next one
        self._grown: dict[str, _Growth] = {}  # by field
        self._num_decoded = self._decoded_nbytes = 0  # samples, and the memory that they took

    def count_in(self, stats: Stats) -> None:
        """Count what is read from now on in ``stats``."""
        self.stats = self.fetcher.stats = stats

    def has_index(self, shard: int) -> bool:
        """Return whether :meth:`index` will answer at once."""
        return shard in self._shards

    def index(self, shard: int) -> tuple[ShardIndex, np.ndarray]:
        """Return a shard's index and the int64 ``(num_blocks + 1,)`` rows at which its blocks begin."""
        extents = self._extents(shard)
        return extents.index, extents.starts

    def _extents(self, shard: int) -> ShardExtents:
        with self._lock:
            if shard in self._shards:
                self._shards.move_to_end(shard)
                return self._shards[shard]
        url = self.source.url(shard)
        try:
            index = self.source.load_index(shard, self.fetcher)
        except ShardNotFoundError as error:
            self.source.explain_missing(shard, error)
            raise
        extents = ShardExtents.of(url, index, self.source.schema, self.fields)
        if extents.starts[-1] != self.source.count(shard):
            raise ShardError(f"the shard's index counts {extents.starts[-1]} samples, the log {self.source.count(shard)}.", shard=url)
        with self._lock:
            self._shards[shard] = extents
            if len(self._shards) > INDEXES_KEPT:
                self._shards.popitem(last=False)
        return extents

    def estimate_nbytes(self, shard: int, block: int) -> int:
        """Return about how many bytes of memory this block will take, with its stored bytes if these stay or come by the part.

        Exact, but for what is compressed or sparse and of no fixed size: that is taken to grow as what was read grew most.
        """
        extents = self._extents(shard)
        nbytes = extents.known_nbytes[block] + (0 if self._passes(extents) else extents.stored_nbytes[block])
        for name, sizes in extents.guessed_nbytes.items():
            if name in self._grown:
                guess = self._grown[name].estimate(sizes[block], int(extents.index.num_samples[block]))
            else:  # a sparse one, or what a writer that makes full blocks has compressed
                guess = SPARSE_GROWTH * sizes[block] if isinstance(self.source.schema[name], Sparse) else MAX_BLOCK_NBYTES
            nbytes += array_nbytes(guess)
        return nbytes

    def passing_nbytes(self, shard: int, block: int) -> int:
        """Return how many more bytes are needed only while it is read: the stored ones, if a thread takes a block at a time."""
        extents = self._extents(shard)
        return extents.stored_nbytes[block] if self._passes(extents) else 0

    def _passes(self, extents: ShardExtents) -> bool:
        return not extents.is_viewed and "://" not in extents.url

    def least_nbytes(self, shard: int, block: int) -> int:
        """Return how many bytes of memory this block takes at least."""
        extents = self._extents(shard)
        guessed = sum(sizes[block] for sizes in extents.guessed_nbytes.values())
        return extents.known_nbytes[block] + guessed + (extents.stored_nbytes[block] if extents.is_viewed else 0)

    def knows_growth(self, shard: int) -> bool:
        """Return whether there is nothing in this shard whose decoded size can only be guessed."""
        return self._grown.keys() >= self._extents(shard).guessed_nbytes.keys()

    @property
    def sample_nbytes(self) -> float | None:
        """Mean memory of the samples read so far; None before the first."""
        return self._decoded_nbytes / self._num_decoded if self._num_decoded else None

    def span(self, shard: int, block: int) -> tuple[int, int]:
        """Return the bytes ``[begin, end)`` of the shard that hold what is wanted of a block; none if all of it is defaults."""
        extents = self._extents(shard)
        return extents.begins[block], extents.ends[block]

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
        extents = self._extents(shard)
        spans = [(extents.begins[block], extents.ends[block]) for block in blocks]
        checks = [_BlockCheck(extents, block) for block in blocks]
        begun = time.perf_counter()
        if all(begin == end for begin, end in spans):  # the shard is older than all wanted fields
            found = [np.empty(0, np.uint8) for _ in spans]
        else:
            found = self.fetcher.read_spans(extents.url, spans, checks, self._allocate)
        fetched = time.perf_counter()
        num_bytes = sum(len(data) for data in found if isinstance(data, np.ndarray))
        for i, block in enumerate(blocks):
            if isinstance(found[i], np.ndarray):
                found[i] = self._decoded_or_error(extents, block, found[i])
            if isinstance(found[i], ShardNotFoundError):
                self.source.explain_missing(shard, found[i])
            if isinstance(found[i], (ShardError, CodecError)):
                found[i].shard, found[i].block = found[i].shard or extents.url, block if found[i].block is None else found[i].block
        verify_s = sum(check.check_s for check in checks)
        self.stats.add(fetch=max(0.0, fetched - begun - verify_s), verify=verify_s, decode=time.perf_counter() - fetched, num_blocks=len(found), num_bytes_read=num_bytes)  # fmt: skip
        decoded = [block for block in found if isinstance(block, Block)]
        with self._lock:
            self._num_decoded += sum(block.num_samples for block in decoded)
            self._decoded_nbytes += sum(block.nbytes for block in decoded)
        return found

    def _allocate(self, nbytes: int) -> np.ndarray:
        return self.pool.empty((nbytes,), np.uint8)

    def _decoded_or_error(self, *block) -> Block | ShardstreamError:
        try:
            return self._decoded(*block)
        except (ShardError, CodecError) as error:
            return error  # from here: a frame that kept the error which names it would be a cycle, and hold all that was read

    def _decoded(self, extents: ShardExtents, block: int, data: np.ndarray) -> Block:
        begin, num_samples = extents.begins[block], int(extents.index.num_samples[block])
        if self.source.schema is None:
            from shardstream.codecs import files

            return Block({"__samples__": files.read_block(data, begin, num_samples, extents.url)}, num_samples, held_nbytes(data))
        decoded, nbytes, of_block = {}, held_nbytes(data) if extents.is_viewed else 0, extents.index.extents[block].tolist()
        for name, numbers in extents.members.items():
            field = self.source.schema[name]
            if not numbers:
                decoded[name] = columns.default_column(field, num_samples)
                nbytes += decoded_nbytes(decoded[name])
                continue
            views = [data[offset - begin : offset - begin + size] for offset, size in (of_block[c] for c in numbers)]
            compressed = "zstd" if extents.index.columns[numbers[0]].endswith(".zst") else None
            try:
                decoded[name] = columns.decode_column(field, views, num_samples, compressed, self._allocate)
            except CodecError as error:
                error.field, error.offset = name, of_block[numbers[0]][0] + (error.offset or 0)
                raise
            if extents.is_compressed[name]:
                parts = decoded[name] if isinstance(decoded[name], tuple) else (decoded[name],)
                nbytes += sum(map(held_nbytes, parts[:1] if isinstance(field, Sparse) else parts))  # a sparse one's share a buffer
                if name in extents.guessed_nbytes:
                    with self._lock:
                        grown = self._grown.get(name, _Growth())
                        self._grown[name] = grown.and_of(len(views[0]), num_samples, decoded_nbytes(decoded[name]))
        return Block(decoded, num_samples, nbytes)


class _Growth(NamedTuple):
    """What a field's blocks became, decoded: at most so many bytes for a stored byte, for a sample, and in all.

    By each of these a block is estimated that is larger than those before, or compressed better.
    """

    of_byte: float = 0.0
    of_sample: float = 0.0
    of_block: int = MAX_BLOCK_NBYTES  # that a writer closes blocks at, if no sample is large

    def and_of(self, stored_nbytes: int, num_samples: int, nbytes: int) -> _Growth:
        """Return the same with one more block."""
        return _Growth(max(self.of_byte, nbytes / max(1, stored_nbytes)), max(self.of_sample, nbytes / max(1, num_samples)),
                       max(self.of_block, nbytes))  # fmt: skip

    def estimate(self, stored_nbytes: int, num_samples: int) -> int:
        """Return how large a block may be, decoded."""
        return int(min(self.of_block, max(self.of_byte * stored_nbytes, self.of_sample * num_samples)))


def checked_fields(schema: Schema, fields: list[str] | None) -> list[str]:
    """Return the fields to read, in schema order."""
    if fields is None:
        return list(schema)
    if isinstance(fields, str) or not isinstance(fields, Iterable):
        raise ConfigError(f"fields={fields!r} is not a list of names; the dataset has {list(schema)}.")
    unknown = [name for name in fields if name not in schema]
    if unknown or not fields:
        raise ConfigError(f"fields={list(fields)!r}: the dataset has {list(schema)}.", field=unknown[0] if unknown else None)
    return [name for name in schema if name in fields]


class _BlockCheck(MembersCheck):
    """Checks the wanted members of a block."""

    def __init__(self, extents: ShardExtents, block: int):
        self._extents, self._block, self.members = extents, block, extents.checks.of(block)

    def __call__(self, data: np.ndarray) -> None:
        begun, index, begin = time.perf_counter(), self._extents.index, self._extents.begins[self._block]
        try:
            of_block, crcs = index.extents[self._block].tolist(), index.crc32c[self._block].tolist()
            for name, numbers in self._extents.members.items():
                for c in numbers:
                    offset, size = of_block[c]
                    _verify(data[offset - begin : offset - begin + size], crcs[c], offset, name or None)
        finally:
            self.check_s += time.perf_counter() - begun


def _verify(data: np.ndarray, expected: int, offset: int, field: str | None = None) -> None:
    found = crc32c(data)
    if found != expected:
        raise ChecksumError(f"stored bytes have CRC-32C {found:08x}, the index says {expected:08x}.", offset=offset, field=field)
