"""IDX files, as MNIST's are, plain or as .gz: several of equal length side by side, a column each.

``arrays: {image: images-idx3-ubyte.gz, label: labels-idx1-ubyte.gz}``: the first axis is the rows, the rest a
row's shape; ``key`` is the row's number. Format: Y. LeCun, C. Cortes, C. Burges, "The MNIST database".
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from shardstream.errors import SampleError, ShardError
from shardstream.packing.config import Settings
from shardstream.packing.document import Document
from shardstream.packing.sources import Chunk, part_nbytes
from shardstream.packing.sources.files import compression_of, opened, printable
from shardstream.packing.steps import Column
from shardstream.schema import Dense, Text
from shardstream.storage.find import FoundFile, find_files

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_AXES = 8


class IdxSettings(Settings):
    """The keys of ``source`` with ``kind: idx``."""

    arrays: dict[str, str]
    storage_options: dict[str, Any] = {}


@dataclass(frozen=True)
class _Array:
    file: FoundFile
    dtype: np.dtype
    shape: tuple[int, ...]
    begin: int  # where the values begin

    @property
    def row_nbytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape[1:])


class IdxSource:
    """Rows of IDX files, in their order."""

    def __init__(self, settings: IdxSettings, document: Document):
        self.settings = settings
        self.arrays: dict[str, _Array] = {}
        if not settings.arrays or "key" in settings.arrays:
            raise document.error(("source", "arrays"), "name at least one column, and none 'key'.")
        for name, path in settings.arrays.items():
            place = ("source", "arrays", name)
            try:
                (file,) = find_files(path, settings.storage_options)
                self.arrays[name] = _header(file, settings.storage_options)
            except (FileNotFoundError, ValueError) as error:
                reason = error if not isinstance(error, FileNotFoundError) else "there is no such file"
                raise document.error(place, f"{path} is no IDX file: {reason}.") from None
        counts = {name: array.shape[0] for name, array in self.arrays.items()}
        if len(set(counts.values())) > 1:
            raise document.error(("source", "arrays"), f"the files differ in their number of rows: {counts}.")
        self.num_rows = next(iter(counts.values()))
        self.nbytes = sum(array.row_nbytes for array in self.arrays.values()) * self.num_rows
        self.identity = [[array.file.url, array.file.nbytes, array.file.stamp] for array in self.arrays.values()]
        kinds = {name: Dense(array.dtype.newbyteorder("=").name, array.shape[1:]) for name, array in self.arrays.items()}
        self.columns = {name: Column(kind, is_source=True) for name, kind in {"key": Text(), **kinds}.items()}

    def parts(self) -> Iterator[tuple[int, int]]:
        row_nbytes = max(1, self.nbytes // max(1, self.num_rows))
        count = max(1, part_nbytes(self.nbytes) // row_nbytes)
        return ((begin, min(begin + count, self.num_rows)) for begin in range(0, self.num_rows, count))

    def read(self, part: tuple[int, int]) -> Iterator[Chunk]:
        begin, end = part
        columns: dict[str, Any] = {"key": [str(row) for row in range(begin, end)]}
        for name, array in self.arrays.items():
            data = _read(array, self.settings.storage_options, begin, end)
            if len(data) != (end - begin) * array.row_nbytes:
                message = f"{printable(array.file.place)} is cut off or damaged: {array.shape[0]:,} rows are announced"
                yield Chunk.of_records([], 0, [SampleError(f"{message}, row {begin:,} and those after are not all there.")])
                return
            values = np.frombuffer(data, array.dtype).reshape(end - begin, *array.shape[1:])
            columns[name] = values.astype(array.dtype.newbyteorder("="))
        names = ", ".join(printable(array.file.place) for array in self.arrays.values())
        nbytes = sum(array.row_nbytes for array in self.arrays.values()) * (end - begin)
        yield Chunk(columns, nbytes, where=lambda record: f"row {begin + record} of {names}")

    def digest(self, part: tuple[int, int], before: int) -> int:
        return 0

    def peek(self, column: str) -> Iterator[Any] | None:
        """Give a column's values by reading all of the input."""
        for part in self.parts():
            for chunk in self.read(part):
                yield from chunk.columns.get(column, ())


def _header(file: FoundFile, storage_options: dict) -> _Array:
    try:
        with opened(file, storage_options) as stream:
            head = stream.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in DTYPES or not 1 <= head[3] <= MAX_AXES:
                raise ValueError("it does not begin with 0, 0, a type and a number of axes")
            sizes = stream.read(4 * head[3])
    except ShardError as error:
        raise ValueError(f"it is cut off or damaged: {error}") from None
    if len(sizes) < 4 * head[3]:
        raise ValueError("it ends within its header")
    return _Array(file, np.dtype(DTYPES[head[2]]), tuple(np.frombuffer(sizes, ">u4").tolist()), 4 + len(sizes))


def _read(array: _Array, storage_options: dict, begin: int, end: int) -> bytes:
    first, last = (array.begin + row * array.row_nbytes for row in (begin, end))
    if compression_of(array.file):
        return _whole(array.file, tuple(sorted(storage_options.items())))[first:last]
    with opened(array.file, storage_options) as stream:
        stream.seek(first)
        return stream.read(last - first)


@functools.lru_cache(maxsize=4)
def _whole(file: FoundFile, storage_options: tuple) -> bytes:
    """Return a compressed file's contents; kept, as the next part of it is likely to be read here, too."""
    try:
        with opened(file, dict(storage_options)) as stream:
            return stream.read()
    except ShardError:
        return b""
