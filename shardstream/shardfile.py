"""One shard, written to a local file block by block (docs/FORMAT.md, sections 2, 3 and 5).

Nothing here knows datasets or stores: ``writer.py`` decides when a shard ends and where it goes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from shardstream._native.crc32c import crc32c
from shardstream._native.tar import header
from shardstream.codecs import rows
from shardstream.codecs.columns import encode_column, member_suffixes
from shardstream.codecs.shard import (
    FORMAT,
    INDEX_MEMBER,
    MAX_BLOCK_NBYTES,
    MAX_BLOCK_SAMPLES,
    SHARD_MEMBER,
    TAR_RECORD_NBYTES,
    TAR_UNIT_NBYTES,
    ShardIndex,
    ShardInfo,
)
from shardstream.schema import Schema

WRITE_BUFFER_NBYTES = 4 * 2**20  # large writes make large page-cache folios, which are read back twice as fast


@dataclass(frozen=True)
class FinishedShard:
    """A complete shard in a local file, and what the log says of it."""

    path: str
    sid: str
    num_samples: int
    nbytes: int
    index_offset: int
    index_nbytes: int
    index_crc32c: int


@dataclass(frozen=True)
class EncodedBlock:
    """A block of the blocks layout as it goes into a shard, made anywhere: the payloads of its members, in order."""

    num_samples: int
    payloads: list[bytes]
    crcs: list[int]

    @property
    def nbytes(self) -> int:
        """What it takes in a shard, with headers and padding."""
        return sum(TAR_UNIT_NBYTES + len(payload) + -len(payload) % TAR_UNIT_NBYTES for payload in self.payloads)


def encode_block(schema: Schema, columns: dict, num_samples: int, compression: str | None) -> EncodedBlock:
    """Return a block's payloads; ``columns`` maps each field to its decoded form (``codecs/columns.py``)."""
    payloads = [
        payload for name, field in schema.items() for payload in encode_column(field, columns[name], compression)
    ]
    return EncodedBlock(num_samples, payloads, [crc32c(payload) for payload in payloads])


class ShardFile:
    """A shard being written. Call :meth:`finish` or :meth:`discard`, nothing after."""

    def __init__(self, path: str, sid: str, schema: Schema | None, compression: str | None = None):
        self.path, self.sid = path, sid
        self._schema, self._compression = schema, compression
        self._file = open(path, "xb", buffering=WRITE_BUFFER_NBYTES)
        self.nbytes = 0
        layout = "files" if schema is None else "blocks"
        self._columns = ("",) if schema is None else tuple(
            suffix for name, field in schema.items() for suffix in member_suffixes(name, field, compression))  # fmt: skip
        self._layout = layout
        self._num_samples: list[int] = []
        self._extents: list[list[tuple[int, int]]] = []
        self._crcs: list[list[int]] = []
        info = ShardInfo(FORMAT, sid, layout, None if schema is None else schema.to_json(), compression).encode()
        self._info_crc32c = crc32c(info)
        self._member(SHARD_MEMBER, info)

    @property
    def num_samples(self) -> int:
        """Samples in finished blocks."""
        return sum(self._num_samples)

    def write_block(self, columns: dict, num_samples: int) -> None:
        """Append a block; ``columns`` maps each field to its decoded form (``codecs/columns.py``)."""
        self.append(encode_block(self._schema, columns, num_samples, self._compression))

    def append(self, block: EncodedBlock) -> None:
        """Append a block that was encoded under this shard's schema and compression."""
        number = f"{len(self._num_samples):06d}"
        extents = [self._member(f"{number}.{suffix}", data) for suffix, data in zip(self._columns, block.payloads, strict=True)]
        self._block_done(block.num_samples, extents, block.crcs)

    def write_files(self, members: list[tuple[str, bytes]], num_samples: int) -> None:
        """Append a block of whole samples in the files layout: their members, in order."""
        begin, crc = self.nbytes, 0
        for name, payload in members:
            for piece in (header(name, len(payload)), payload, _padding(len(payload))):
                crc = crc32c(piece, crc)
                self._write(piece)
        self._block_done(num_samples, [(begin, self.nbytes - begin)], [crc])

    def finish(self, runs: Sequence[tuple[str, int, int]] = ()) -> FinishedShard:
        """Write the index and the end of the tar, and make the file durable; ``runs`` as in :class:`ShardIndex`."""
        count = len(self._num_samples)
        index = ShardIndex(
            self._layout, self._columns, np.array(self._num_samples, np.int64),
            np.array(self._extents, np.int64).reshape(count, len(self._columns), 2),
            np.array(self._crcs, np.uint32).reshape(count, len(self._columns)), self.sid, self._info_crc32c, tuple(runs),
        ).encode()  # fmt: skip
        index_offset, index_nbytes = self._member(INDEX_MEMBER, index)
        self._write(bytes(2 * TAR_UNIT_NBYTES))
        self._write(bytes(-self.nbytes % TAR_RECORD_NBYTES))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return FinishedShard(self.path, self.sid, self.num_samples, self.nbytes, index_offset, index_nbytes,
                             crc32c(index))  # fmt: skip

    def discard(self) -> None:
        """Close and delete the file."""
        try:
            self._file.close()
        except OSError:  # of a full disk, on which the rest of a buffer finds no room either
            pass
        os.unlink(self.path)

    def _member(self, name: str, payload) -> tuple[int, int]:
        """Write one tar member; return the offset and size of its payload."""
        self._write(header(name, len(payload)))
        offset = self.nbytes
        self._write(payload)
        self._write(_padding(len(payload)))
        return offset, len(payload)

    def _block_done(self, num_samples: int, extents: list[tuple[int, int]], crcs: list[int]) -> None:
        self._num_samples.append(num_samples)
        self._extents.append(extents)
        self._crcs.append(crcs)

    def _write(self, data) -> None:
        self._file.write(data)
        self.nbytes += len(data)


class OpenBlock:
    """The samples of the block that is being filled, and the keys of the shard in the files layout."""

    def __init__(self):
        self.keys: set[str] = set()
        self._reset()

    def _reset(self) -> None:
        self.num_samples, self.nbytes = 0, 0
        self._parts: list[Mapping] = []
        self._members: list[tuple[str, bytes]] = []

    def add(self, parts: Mapping, num_samples: int, nbytes: int) -> None:
        self._parts.append(parts)
        self.num_samples += num_samples
        self.nbytes += nbytes

    def add_files(self, key: str, members: list[tuple[str, bytes]], nbytes: int) -> None:
        self.keys.add(key)
        self._members += members
        self.num_samples += 1
        self.nbytes += nbytes

    def write_to(self, shard: ShardFile, schema: Schema | None) -> None:
        if schema is None:
            shard.write_files(self._members, self.num_samples)
        else:
            columns = {name: rows.concatenate([parts[name] for parts in self._parts]) for name in schema}
            shard.write_block(columns, self.num_samples)
        self._reset()


def _padding(nbytes: int) -> bytes:
    return bytes(-nbytes % TAR_UNIT_NBYTES)


def block_ends(row_nbytes: np.ndarray, open_nbytes: int, open_samples: int,
               max_nbytes: int = MAX_BLOCK_NBYTES) -> list[int]:  # fmt: skip
    """Return after which of these rows a block closes: at ``max_nbytes`` of payload or 8,192 samples, whichever is
    first.

    ``open_nbytes`` and ``open_samples`` are what the block already open holds. Rows after the last end stay open.
    """
    ends, begin = [], 0
    total = np.cumsum(row_nbytes)
    while begin < len(row_nbytes):
        before = int(total[begin - 1]) if begin else 0
        by_nbytes = int(np.searchsorted(total, before + max_nbytes - open_nbytes)) + 1
        end = min(by_nbytes, begin + MAX_BLOCK_SAMPLES - open_samples)
        if end > len(row_nbytes):
            break
        ends.append(end)
        begin, open_nbytes, open_samples = end, 0, 0
    return ends
