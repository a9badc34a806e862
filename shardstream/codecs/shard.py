"""``shard.json`` and ``index.json``: how a shard describes itself (docs/FORMAT.md, section 2).

Both are JSON in UTF-8. A shard begins with the first and ends with the second; the log entry repeats
where the index stands, its size and CRC, so that a reader needs one ranged request to know every block.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec
import numpy as np

from shardstream._native.crc32c import crc32c
from shardstream.errors import ChecksumError, SchemaError, ShardError
from shardstream.schema import Schema

FORMAT = 1
SHARD_MEMBER = "__shardstream__/shard.json"
INDEX_MEMBER = "__shardstream__/index.json"
TAR_UNIT_NBYTES = 512
TAR_RECORD_NBYTES = 10_240  # two zero blocks, then zeros up to a multiple of this
MAX_BLOCK_NBYTES = 2**20
MAX_BLOCK_SAMPLES = 8192
CRC_SUFFIX = b',"crc32c":"%08x"}'  # the last member of index.json; its CRC covers all bytes before the comma
CRC_SUFFIX_NBYTES = len(CRC_SUFFIX % 0)
MAX_NBYTES = 2**62
SID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


class ShardInfo(msgspec.Struct):
    """What ``shard.json`` says. ``schema`` is None in the files layout."""

    format: int
    sid: str
    layout: str
    schema: list[dict] | None = None
    compression: str | None = None

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes, shard: str | None = None) -> ShardInfo:
        """Return the parsed ``shard.json``; :class:`ShardError` unless it is one this version reads."""
        info = _decode(data, cls, SHARD_MEMBER, shard)
        if info.layout not in ("blocks", "files") or (info.schema is None) != (info.layout == "files"):
            raise ShardError(f"{SHARD_MEMBER}: layout {info.layout!r} with schema {info.schema!r} is not legal.",
                             shard=shard)  # fmt: skip
        if info.compression not in (None, "zstd"):
            raise ShardError(f"{SHARD_MEMBER}: unknown compression {info.compression!r}.", shard=shard)
        try:
            info.schema is None or Schema.from_json(info.schema)
        except SchemaError as error:
            raise ShardError(f"{SHARD_MEMBER}: {error}", shard=shard) from error
        return info


class _IndexRecord(msgspec.Struct):
    format: int
    sid: str | None
    layout: str
    block_num_samples: list[int]
    columns: dict[str, list[tuple[int, int, int]]]
    shard_crc32c: int
    crc32c: str
    runs: list[tuple[str, int, int]] = []


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """Where each block's bytes are.

    Attributes:
        layout: ``"blocks"`` (a member per column and block) or ``"files"`` (a run of whole samples per block).
        columns: Member suffixes of a block, such as ``("x.sparse", "y.npy")``; ``("",)`` in the files layout.
        num_samples: int64 ``(num_blocks,)``.
        extents: int64 ``(num_blocks, num_columns, 2)``: offset in the shard and size in bytes.
        crc32c: uint32 ``(num_blocks, num_columns)``.
        sid: The shard's id; None for a foreign shard.
        shard_crc32c: CRC of ``shard.json``; 0 for a foreign shard.
        runs: Of a merged shard, whose samples it holds: ``(sid, first row, number of samples)``, in order; ``()`` of
            others.
    """

    layout: str
    columns: tuple[str, ...]
    num_samples: np.ndarray
    extents: np.ndarray
    crc32c: np.ndarray
    sid: str | None = None
    shard_crc32c: int = 0
    runs: tuple[tuple[str, int, int], ...] = ()

    @property
    def num_blocks(self) -> int:
        return len(self.num_samples)

    def encode(self) -> bytes:
        """Return ``index.json``, its own CRC last."""
        columns = {
            column: np.column_stack([self.extents[:, c], self.crc32c[:, c].astype(np.int64)]).tolist()
            for c, column in enumerate(self.columns)
        }
        body = msgspec.json.encode({
            "format": FORMAT, "sid": self.sid, "layout": self.layout, "block_num_samples": self.num_samples.tolist(),
            "columns": columns, **({"runs": self.runs} if self.runs else {}), "shard_crc32c": int(self.shard_crc32c),
        })[:-1]  # fmt: skip
        return body + CRC_SUFFIX % crc32c(body)

    @classmethod
    def decode(cls, data: bytes, shard: str | None = None, shard_nbytes: int = MAX_NBYTES) -> ShardIndex:
        """Return the parsed ``index.json``.

        Raises:
            ChecksumError: Its own CRC does not match.
            ShardError: It is not an index, of a newer format, or names bytes outside ``shard_nbytes``.
        """
        body, suffix = data[:-CRC_SUFFIX_NBYTES], data[-CRC_SUFFIX_NBYTES:]
        if suffix != CRC_SUFFIX % crc32c(body):
            raise ChecksumError(f"{INDEX_MEMBER} does not match its own CRC-32C.", shard=shard)
        record = _decode(data, _IndexRecord, INDEX_MEMBER, shard)
        num_blocks = len(record.block_num_samples)
        if record.layout not in ("blocks", "files") or any(len(c) != num_blocks for c in record.columns.values()):
            raise ShardError(f"{INDEX_MEMBER}: columns differ in their number of blocks, or the layout is unknown.",
                             shard=shard)  # fmt: skip
        if (record.layout == "files") != (list(record.columns) == [""]):
            raise ShardError(f"{INDEX_MEMBER}: the columns are {list(record.columns)}; the files layout has one, "
                             "without a name.", shard=shard)  # fmt: skip
        try:
            table = np.array(list(record.columns.values()), np.int64).reshape(len(record.columns), num_blocks, 3)
            num_samples = np.array(record.block_num_samples, np.int64)
        except OverflowError as error:
            raise ShardError(f"{INDEX_MEMBER} holds a number beyond 64 bits.", shard=shard) from error
        table = table.transpose(1, 0, 2)
        legal = (num_samples > 0).all() and int(num_samples.sum(dtype=np.float64)) < MAX_NBYTES and table.min(initial=0) >= 0
        if not legal or (table[..., 0] > shard_nbytes - table[..., 1]).any() or table[..., 2].max(initial=0) >= 2**32:
            raise ShardError(f"{INDEX_MEMBER} names an empty block, or bytes outside the shard's {shard_nbytes}.",
                             shard=shard)  # fmt: skip
        if record.runs:
            _check_runs(record.runs, int(num_samples.sum()), shard)
        return cls(record.layout, tuple(record.columns), num_samples, np.ascontiguousarray(table[..., :2]),
                   table[..., 2].astype(np.uint32), record.sid, record.shard_crc32c, tuple(record.runs))  # fmt: skip


def _check_runs(runs: list[tuple[str, int, int]], num_samples: int, shard: str | None) -> None:
    if sum(count for _, _, count in runs) != num_samples:
        raise ShardError(f"{INDEX_MEMBER}: its runs do not add up to its {num_samples} samples.", shard=shard)
    for sid, first, count in runs:
        if not SID.match(sid) or not 0 <= first < MAX_NBYTES or not 0 < count:
            raise ShardError(f"{INDEX_MEMBER}: {[sid, first, count]} is not a run of samples.", shard=shard)


def _decode(data: bytes, kind: type, member: str, shard: str | None):
    """Return ``data`` as a ``kind``, once it is known to be of a format that this version reads."""
    try:
        number = msgspec.json.decode(data, type=_Format).format
        if number > FORMAT:
            raise ShardError(f"{member} has format {number}; this version reads up to {FORMAT}: upgrade shardstream.",
                             shard=shard)  # fmt: skip
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ShardError(f"{member} is not what its format says: {error}", shard=shard) from error


class _Format(msgspec.Struct):
    format: int


def find_index(tail: bytes, tail_offset: int) -> tuple[int, int] | None:
    """Return ``(offset, nbytes)`` of ``index.json`` given a shard's last bytes, or None if it begins before them.

    For shards read without a log. ``tail_offset`` is where ``tail`` begins in the shard, a multiple of 512.
    The index is the last member, so the last header with its name that fits the end is it.
    """
    name = INDEX_MEMBER.encode() + b"\0"
    for begin in range(len(tail) // TAR_UNIT_NBYTES * TAR_UNIT_NBYTES, -1, -TAR_UNIT_NBYTES):
        header = tail[begin : begin + TAR_UNIT_NBYTES]
        if header.startswith(name) and header[257:262] == b"ustar" and header[124:135].strip(b" \0").isdigit():
            nbytes = int(header[124:135], 8) if set(header[124:135]) <= set(b"01234567") else 0
            if 0 < nbytes <= len(tail) - begin - TAR_UNIT_NBYTES:
                return tail_offset + begin + TAR_UNIT_NBYTES, nbytes
    return None
