"""Parquet files and Hugging Face datasets saved to disk, read by pyarrow. Their columns are the columns, and ``key``.

=========================  =======================================================
Arrow type                 column
=========================  =======================================================
integers, floats, bool     dense, of the same dtype (halves of floats: float16)
string, large_string       text
binary, large_binary       bytes
list of numbers            ragged
fixed-size list of numbers dense, of that shape
dictionary                 what its values are
anything else              values as Python gives them, for steps and functions
=========================  =======================================================

Without nulls numbers and lists never become Python objects. The key is the value of the column that ``key:``
names, else the file's name and the row's number in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from shardstream.errors import SampleError
from shardstream.packing.document import Document
from shardstream.packing.sources import Chunk, part_nbytes
from shardstream.packing.sources.files import (
    FilesSettings,
    FilesSource,
    grouped,
    printable,
)
from shardstream.packing.steps import Column
from shardstream.schema import Bytes, Dense, Field, Ragged, Text
from shardstream.storage.find import FoundFile, find_files, open_file

CHUNK_ROWS = 8192


class TableSettings(FilesSettings):
    """The keys of ``source`` with ``kind: parquet``, and of ``kind: hf``."""

    key: str | None = None
    columns: list[str] | None = None


class ParquetSettings(TableSettings):
    """The keys of ``source`` with ``kind: parquet``."""

    include: tuple[str, ...] = ("*.parquet",)


class HfSettings(TableSettings):
    """The keys of ``source`` with ``kind: hf``; ``paths`` are folders that ``save_to_disk`` has written."""


@dataclass(frozen=True)
class Piece:
    """Row groups, or record batches, ``[begin, end)`` of a file; its first row is row ``row`` of the file."""

    file: FoundFile
    begin: int
    end: int
    row: int
    nbytes: int


class TableSource(FilesSource):
    """Base: a subclass says what pieces a file has, and gives their record batches."""

    def __init__(self, settings: TableSettings, document: Document):
        _need_pyarrow(document)
        super().__init__(settings, document)
        try:
            schema = self._schema(self.files[0])
        except ValueError as error:
            raise document.error(("source", "paths"), f"{self.files[0].url} cannot be read: {error}") from None
        names = settings.columns if settings.columns is not None else schema.names
        for name in (*names, *([settings.key] if settings.key else [])):
            if name not in schema.names:
                where = "key" if name == settings.key else "columns"
                raise document.unknown(("source", where), name, schema.names, "column")
        self.names = list(dict.fromkeys([*names, *([settings.key] if settings.key else [])]))
        kinds = {name: _kind(schema.field(name).type) for name in self.names}
        self.columns = {name: Column(kind, is_source=True) for name, kind in {**kinds, "key": Text()}.items()}

    def _schema(self, file: FoundFile) -> Any:
        raise NotImplementedError

    def _pieces(self, file: FoundFile) -> Iterator[Piece]:
        raise NotImplementedError

    def _batches(self, piece: Piece) -> Iterator[Any]:
        raise NotImplementedError

    def parts(self) -> Iterator[list[Piece]]:
        pieces = [piece for file in self.files for piece in self._pieces(file)]
        return grouped(pieces, [piece.nbytes for piece in pieces], self.nbytes)

    def read(self, part: list[Piece]) -> Iterator[Chunk]:
        for piece in part:
            row, name = piece.row, printable(piece.file.name)
            try:
                for batch in self._batches(piece):
                    columns = {column: to_column(batch.column(column)) for column in self.names}
                    keys = columns[self.settings.key] if self.settings.key else columns.get("key")
                    if keys is None:
                        columns["key"] = [f"{name}:{row + number}" for number in range(batch.num_rows)]
                    else:
                        columns["key"] = [str(key) for key in keys]
                    yield Chunk(columns, 0, where=partial(_where, piece.file, row))
                    row += batch.num_rows
            except ValueError as error:  # pyarrow's own errors are ValueErrors, too
                yield Chunk.of_records([], 0, [SampleError(f"{printable(piece.file.place)}: rows from {row} on: {error}", key=name)])
            yield Chunk({"key": []}, piece.nbytes)


class ParquetSource(TableSource):
    """The rows of Parquet files that all have the same columns; a part is some row groups."""

    def _schema(self, file: FoundFile) -> Any:
        with self._opened(file) as parquet:
            return parquet.schema_arrow

    def _opened(self, file: FoundFile) -> Any:
        import pyarrow.parquet

        return pyarrow.parquet.ParquetFile(open_file(file, self.settings.storage_options))

    def _pieces(self, file: FoundFile) -> Iterator[Piece]:
        with self._opened(file) as parquet:
            row, groups = 0, parquet.metadata
            share = file.nbytes // max(1, groups.num_row_groups)
            for number in range(groups.num_row_groups):
                yield Piece(file, number, number + 1, row, share)
                row += groups.row_group(number).num_rows

    def _batches(self, piece: Piece) -> Iterator[Any]:
        with self._opened(piece.file) as parquet:
            groups = list(range(piece.begin, piece.end))
            yield from parquet.iter_batches(CHUNK_ROWS, row_groups=groups, columns=self.names, use_threads=False)


class HfSource(TableSource):
    """The rows of datasets as Hugging Face's ``save_to_disk`` leaves them, in their order; a part is some record
    batches.
    """

    settings: HfSettings

    def find(self, document: Document) -> list[FoundFile]:
        paths = [self.settings.paths] if isinstance(self.settings.paths, str) else self.settings.paths
        found = []
        for path in paths:
            try:
                files = {file.name: file for file in find_files(path, self.settings.storage_options)}
            except FileNotFoundError:
                raise document.error(("source", "paths"), f"there is nothing at {path!r}.") from None
            if "state.json" not in files:
                splits = sorted(name.partition("/")[0] for name in files if name.endswith("/state.json"))
                hint = f"; it holds {', '.join(splits)}: name one of these" if splits else ""
                raise document.error(("source", "paths"), f"no dataset was saved to {path!r}{hint}.")
            with open_file(files["state.json"], self.settings.storage_options) as stream:
                names = [item["filename"] for item in json.load(stream)["_data_files"]]
            missing = [name for name in names if name not in files]
            if missing:
                raise document.error(("source", "paths"), f"{path!r} lacks {missing[0]}, which its state.json names.")
            found += [files[name] for name in names]
        return found

    def _opened(self, file: FoundFile) -> Any:
        import pyarrow

        stream = pyarrow.memory_map(file.url) if "://" not in file.url else open_file(file, self.settings.storage_options)
        return pyarrow.ipc.open_stream(stream)

    def _schema(self, file: FoundFile) -> Any:
        with self._opened(file) as reader:
            return reader.schema

    def _pieces(self, file: FoundFile) -> Iterator[Piece]:
        if "://" in file.url:  # a stream can be read only from its beginning, so looking for batches would read it all
            yield Piece(file, 0, 2**62, 0, file.nbytes)
            return
        limit = part_nbytes(self.nbytes)
        with self._opened(file) as reader:
            begin = end = row = rows = nbytes = 0
            for batch in reader:
                end, rows, nbytes = end + 1, rows + batch.num_rows, nbytes + batch.nbytes
                if nbytes >= limit:
                    yield Piece(file, begin, end, row, nbytes)
                    begin, row, rows, nbytes = end, row + rows, 0, 0
            if rows:
                yield Piece(file, begin, end, row, nbytes)

    def _batches(self, piece: Piece) -> Iterator[Any]:
        with self._opened(piece.file) as reader:
            for number, batch in enumerate(reader):
                if number >= piece.end:
                    break
                if number >= piece.begin:
                    yield batch.select(self.names)


def _where(file: FoundFile, first: int, record: int) -> str:
    return f"row {first + record} of {printable(file.place)}"


def _need_pyarrow(document: Document) -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise document.error(("source", "kind"), "needs pyarrow: pip install 'shardstream[arrow]'.") from None


def _dtype(kind: Any) -> str | None:
    """Return numpy's name for an Arrow type of numbers, None for another type."""
    import pyarrow

    types = pyarrow.types
    if types.is_boolean(kind):
        return "bool"
    return str(np.dtype(kind.to_pandas_dtype())) if types.is_integer(kind) or types.is_floating(kind) else None


def _kind(kind: Any) -> Field | None:
    """Return what a column of an Arrow type holds; None for what only a step can make use of."""
    import pyarrow

    types = pyarrow.types
    if types.is_dictionary(kind):
        return _kind(kind.value_type)
    if types.is_string(kind) or types.is_large_string(kind):
        return Text()
    if types.is_binary(kind) or types.is_large_binary(kind):
        return Bytes()
    if types.is_fixed_size_list(kind) and (dtype := _dtype(kind.value_type)):
        return Dense(dtype, (kind.list_size,))
    if (types.is_list(kind) or types.is_large_list(kind)) and (dtype := _dtype(kind.value_type)):
        return Ragged(dtype) if dtype != "bool" else None
    return Dense(dtype) if (dtype := _dtype(kind)) else None


def to_column(array: Any) -> Any:
    """Return an Arrow array as a column (``batch.py``); with nulls, or of no such type, as a list of Python values."""
    import pyarrow

    kind = _kind(array.type)
    values = array.flatten() if isinstance(kind, Ragged) or (isinstance(kind, Dense) and kind.shape) else array
    if isinstance(array, pyarrow.DictionaryArray) or kind is None or array.null_count or values.null_count:
        return array.to_pylist()
    if isinstance(kind, Ragged):
        offsets = array.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
        return values.to_numpy(zero_copy_only=False), offsets - offsets[0]
    if isinstance(kind, Dense):
        return values.to_numpy(zero_copy_only=False).reshape(len(array), *kind.shape)
    return array.to_pylist()
