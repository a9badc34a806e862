"""What of a shard is wanted: where it is in each block, and what it takes in memory (``ShardExtents``).

Worked out once a shard, by columns, so that a block costs a few look-ups.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shardstream._native.read import MEMBER, Members
from shardstream.buffers import array_nbytes
from shardstream.codecs import columns
from shardstream.codecs.shard import ShardIndex
from shardstream.errors import ShardError
from shardstream.schema import Dense, Field, Schema, Sparse


@dataclass(frozen=True, eq=False)
class ShardExtents:
    """Lists have an entry for each block.

    Attributes:
        url: Of the shard.
        index: Its index.
        starts: int64 ``(num_blocks + 1,)``: the rows at which blocks begin, and the shard's number of rows.
        members: The index's columns that hold a field, by field; none if the shard is older than the field. In the
            files layout there is one, of no name.
        is_compressed: Of each field, whether it is decompressed or decoded into memory of its own.
        begins, ends: The bytes of the shard that hold what is wanted.
        checks: The members, to be checked as a block is read.
        stored_nbytes: Memory of the bytes as they are stored.
        is_viewed: Whether a field is decoded as a view of them, so that they stay.
        known_nbytes: Memory of what is decoded besides, as far as it is known: of a fixed size.
        guessed_nbytes: Stored bytes, by field, of which it is not known how large they are decoded.
    """

    url: str
    index: ShardIndex
    starts: np.ndarray
    members: dict[str, list[int]]
    is_compressed: dict[str, bool]
    begins: list[int]
    ends: list[int]
    checks: Members
    stored_nbytes: list[int]
    is_viewed: bool
    known_nbytes: list[int]
    guessed_nbytes: dict[str, list[int]]

    @classmethod
    def of(cls, url: str, index: ShardIndex, schema: Schema | None, fields: list[str] | None) -> ShardExtents:
        """Return what is wanted of a shard; raise :class:`ShardError` if it lacks a field that has no default."""
        starts = np.zeros(index.num_blocks + 1, np.int64)
        np.cumsum(index.num_samples, out=starts[1:])
        members = {"": [0]} if schema is None else {name: _members(index, name, schema[name], url) for name in fields}
        lying = sorted(c for numbers in members.values() for c in numbers)  # as they lie in a block
        wanted = index.extents[:, lying]
        begins = wanted[..., 0].min(axis=1, initial=2**63 - 1) if wanted.shape[1] else np.zeros(index.num_blocks, np.int64)
        ends = wanted.sum(axis=2).max(axis=1, initial=0)
        known, guessed, is_compressed, counts = np.zeros(index.num_blocks, np.int64), {}, {}, index.num_samples
        for name, numbers in members.items() if schema is not None else ():
            field, is_zstd = schema[name], any(index.columns[c].endswith(".zst") for c in numbers)
            is_compressed[name] = is_zstd or isinstance(field, Sparse)
            if not numbers:
                known = known + counts * decoded_nbytes(columns.default_column(field, 1))
            elif is_zstd and isinstance(field, Dense):
                known = known + _arrays(counts * (field.num_elements * np.dtype(field.dtype).itemsize) + columns.HEADER_NBYTES)
            elif is_compressed[name]:
                known = known + (_arrays(8 * (counts + 1) + columns.HEADER_NBYTES) if is_zstd else 0)
                guessed[name] = index.extents[:, numbers[0], 1].tolist()
        stored = ends - begins if "://" in url else _arrays(ends - begins)  # a remote client brings its own memory
        is_viewed = schema is None or any(members[name] and not is_compressed[name] for name in members)
        return cls(url, index, starts, members, is_compressed, begins.tolist(), ends.tolist(),
                   _checks(wanted, index.crc32c[:, lying], begins), stored.tolist(), is_viewed, known.tolist(), guessed)  # fmt: skip


def _arrays(nbytes: np.ndarray) -> np.ndarray:
    """Return the memory that arrays of these numbers of bytes take."""
    return np.array([array_nbytes(size) for size in nbytes.tolist()], np.int64)


def _checks(wanted: np.ndarray, crc32c: np.ndarray, begins: np.ndarray) -> Members:
    checks = np.empty(crc32c.shape, MEMBER)
    checks["begin"], checks["nbytes"], checks["crc32c"] = wanted[..., 0] - begins[:, None], wanted[..., 1], crc32c
    return Members(checks)


def _members(index: ShardIndex, name: str, field: Field, url: str) -> list[int]:
    known = set(index.columns)
    forms = [columns.member_suffixes(name, field, compression) for compression in (None, "zstd")]
    for suffixes in forms:
        if known.issuperset(suffixes):
            return [index.columns.index(suffix) for suffix in suffixes]
    if field.default is not None and known.isdisjoint(suffix for suffixes in forms for suffix in suffixes):
        return []
    raise ShardError(f"the shard has no column {name!r}.", shard=url, field=name)


def decoded_nbytes(column) -> int:
    """Return the memory of a column in its decoded form (``codecs/columns.py``)."""
    parts = column if isinstance(column, tuple) else (column,)
    return sum(part.nbytes for part in parts if part is not None)
