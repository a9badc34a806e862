"""Folds: many log entries, or a whole state, as one ``.npz`` of columns (docs/FORMAT.md, section 1).

A fold is a pure function of the log, byte for byte, so writers that race write the same file and
a lost one costs its readers some requests. Three kinds of pieces cover a log up to entry n:

================  ===========  ===================================================
n divisible by    name         covers
================  ===========  ===================================================
1,024             ``<n>.all``  everything: the state after entry n
64, not 1,024     ``<n>.tail`` the entries since the last multiple of 1,024
4, not 64         ``<n>.tail`` the entries since the last multiple of 64
otherwise         ``<n>.json`` the entry itself
================  ===========  ===================================================

So at most 1 + 1 + 1 + 3 pieces make any version, and what a lost fold covers is found in a
handful of others. A fold that does not parse, or is of another dataset, counts as lost.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from shardstream.errors import DatasetError
from shardstream.log import entries
from shardstream.log.entries import Entry
from shardstream.log.state import Producer, State, Step
from shardstream.log.table import COLUMNS, EMPTY, NUMBERS, ShardTable

ALL, COARSE, FINE = 1024, 64, 4
MAX_FOLD_NBYTES = 1 << 30  # about 25 million shards
EPOCH = (1980, 1, 1, 0, 0, 0)  # the zip format's zero: file times would make racing folds differ
MAX_HEADER_NBYTES = 10_000


class Lost(Exception):
    """A fold that is not what its name says; the reader goes on without it."""


def piece(version: int) -> tuple[int, str]:
    """Return ``(begin, name)`` of the best piece that ends at ``version``; it covers entries above ``begin``."""
    if version > 0 and version % ALL == 0:
        return -1, entries.name(version, "all")
    for step, unit in ((ALL, COARSE), (COARSE, FINE)):
        if version > 0 and version % unit == 0:
            return version // step * step, entries.name(version, "tail")
    return version - 1, entries.name(version)


def cover(version: int, lost: frozenset[str] | set[str] = frozenset()) -> list[tuple[int, int, str]]:
    """Return the pieces ``(begin, end, name)`` that make ``version``, oldest first, without the ``lost`` ones."""
    pieces = []
    while version >= 0:
        begin, name = piece(version)
        if name in lost:
            begin, name = version - 1, entries.name(version)
        pieces.append((begin, version, name))
        version = begin
    return pieces[::-1]


# -- encoding ------------------------------------------------------------------------------------


class _Meta(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The JSON member ``meta`` of both kinds of fold."""

    format: int
    dataset: str
    begin: int
    end: int
    time: float = 0.0
    schema: list[dict[str, Any]] | None = None
    producers: dict[str, tuple[str | None, Any, int]] = {}
    tags: dict[str, int] = {}
    expired_below: int = 0
    kept: tuple[int, ...] = ()
    ended: int | None = None
    entries: tuple[Entry, ...] = ()
    num_added: tuple[int, ...] = ()
    adopted: dict[str, str] = {}


META_DECODER = msgspec.json.Decoder(_Meta)


def encode_all(state: State) -> bytes:
    """Return the bytes of ``<version>.all``."""
    producers = {key: (p.incarnation, p.source, p.version) for key, p in sorted(state.producers.items())}
    meta = _Meta(format=entries.FORMAT, dataset=state.dataset, begin=-1, end=state.version, time=state.time,
                 schema=state.schema, producers=producers, tags=dict(sorted(state.tags.items())),
                 expired_below=state.expired_below, kept=state.kept, ended=state.ended)  # fmt: skip
    return _encode(meta, state.shards)


def encode_tail(dataset: str, begin: int, steps: Sequence[Step]) -> bytes:
    """Return the bytes of the tail that covers the entries above ``begin``, which are ``steps``."""
    meta = _Meta(format=entries.FORMAT, dataset=dataset, begin=begin, end=begin + len(steps),
                 entries=tuple(step.entry for step in steps), num_added=tuple(len(step.added) for step in steps))  # fmt: skip
    return _encode(meta, ShardTable.concatenate([step.added for step in steps]))


def _encode(meta: _Meta, table: ShardTable) -> bytes:
    meta.adopted = {str(row): url for row, url in sorted(table.adopted.items())}
    arrays = {"meta": np.frombuffer(entries.ENCODER.encode(meta), np.uint8), "sid": table.sids}
    arrays.update((name, _narrow(table.column(name))) for name in NUMBERS)
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", EPOCH)
            info.create_system = 3  # "Unix", on every system
            archive.writestr(info, member.getvalue())
    return output.getvalue()


def _narrow(column: np.ndarray) -> np.ndarray:
    """Return a column in the smallest unsigned little-endian dtype that holds it."""
    largest = int(column.max()) if len(column) else 0
    dtype = next(dtype for dtype in ("<u1", "<u2", "<u4", "<u8") if largest <= np.iinfo(dtype).max)
    return column.astype(dtype)


# -- decoding ------------------------------------------------------------------------------------


def decode_all(data: bytes, version: int) -> State:
    """Return the state in ``<version>.all``; raises :class:`Lost` on anything else."""
    meta, table = _decode(data, -1, version)
    producers = {key: Producer(*standing) for key, standing in meta.producers.items()}
    return State(meta.dataset, version, meta.time, meta.schema, (table,), (), producers, meta.tags,
                 meta.expired_below, meta.kept, meta.ended)  # fmt: skip


def decode_tail(data: bytes, begin: int, end: int) -> list[Step]:
    """Return the entries ``begin + 1 .. end`` in ``<end>.tail``; raises :class:`Lost` on anything else."""
    meta, table = _decode(data, begin, end)
    if len(meta.entries) != end - begin or len(meta.num_added) != end - begin or min(meta.num_added) < 0:
        raise Lost("entries are missing.")
    steps, row = [], 0
    for version, entry, num_added in zip(range(begin + 1, end + 1), meta.entries, meta.num_added, strict=True):
        try:
            entries.check(entry, version, entries.name(end, "tail"))
        except DatasetError as error:
            raise Lost(str(error)) from error
        if entry.add or entry.dataset != meta.dataset:
            raise Lost("an entry in a tail has shards of its own, or is of another dataset.")
        added = table.take(np.arange(row, row + num_added)) if num_added else EMPTY
        if num_added and not (added.entry == version).all():
            raise Lost("a shard is counted to another entry.")
        steps.append(Step(entry, added))
        row += num_added
    if row != len(table):
        raise Lost("shards belong to no entry.")
    return steps


def _decode(data: bytes, begin: int, end: int) -> tuple[_Meta, ShardTable]:
    if len(data) > MAX_FOLD_NBYTES:
        raise Lost("too large.")
    try:
        arrays = _arrays(data)
        meta = META_DECODER.decode(arrays.pop("meta").tobytes())
        adopted = {int(row): url for row, url in meta.adopted.items()}
    except Exception as error:  # the parsers of zip and npy raise what they like, on any bytes
        raise Lost(str(error)) from error
    if (meta.format, meta.begin, meta.end) != (entries.FORMAT, begin, end):
        raise Lost("it is another fold.")
    columns = {name: _widened(arrays.get(name), name) for name in COLUMNS}
    num_rows = len(columns["sid"])
    if any(len(column) != num_rows for column in columns.values()):
        raise Lost("columns differ in length.")
    if any(not 0 <= row < num_rows for row in adopted):
        raise Lost("an adopted shard is not in the table.")
    return meta, ShardTable(columns, adopted)


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    """Return an uncompressed npz's arrays; only views and sizes that ``data`` itself can hold are made."""
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > len(data):
                raise ValueError("a member is compressed, or larger than its file.")
            member = io.BytesIO(archive.read(info))  # checks the zip's CRC-32
            if np.lib.format.read_magic(member) != (1, 0):
                raise ValueError("a member is not npy 1.0.")
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(member, max_header_size=MAX_HEADER_NBYTES)
            if fortran_order and len(shape) > 1 or dtype.kind != "u" or dtype.byteorder == ">":
                raise ValueError("a member is not an array of little-endian unsigned numbers.")
            body = member.getbuffer()[member.tell() :]
            arrays[info.filename.removesuffix(".npy")] = np.frombuffer(body, dtype).reshape(shape)
    return arrays


def _widened(array: np.ndarray | None, name: str) -> np.ndarray:
    width = (2,) if name == "sid" else ()
    if array is None or array.ndim != 1 + len(width) or array.shape[1:] != width:
        raise Lost(f"column {name} is missing or misshapen.")
    wide = array.astype(COLUMNS[name], copy=False)
    if array.dtype.itemsize == 8 and wide.dtype.kind == "i" and len(wide) and int(wide.min()) < 0:
        raise Lost(f"column {name} overflows.")
    if array.dtype.itemsize > wide.dtype.itemsize:
        raise Lost(f"column {name} overflows.")
    return wide
