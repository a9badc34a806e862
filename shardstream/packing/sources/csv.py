"""CSV and its kin, plain or as .gz or .zst, by Python's own reader. The columns are the header's, and ``key``.

Values are text, unless ``types`` names their column; an empty value of such a column is none. Ranges
end where rows do: in stretches with quotes, that is found by reading the rows, so planning reads large files once.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Literal

from shardstream.errors import SampleError, ShardError
from shardstream.packing.document import Document
from shardstream.packing.sources import Chunk, part_nbytes
from shardstream.packing.sources.files import (
    FilesSettings,
    FilesSource,
    compression_of,
    damaged,
    grouped,
    opened,
    printable,
)  # fmt: skip
from shardstream.packing.steps import Column
from shardstream.schema import Dense, Text
from shardstream.storage.find import FoundFile

CHUNK_ROWS = 8192
MAX_ROW_NBYTES = 1 << 30
TYPES = {"int": (int, Dense("int64")), "float": (float, Dense("float32")), "text": (str, Text())}


class CsvSettings(FilesSettings):
    """The keys of ``source`` with ``kind: csv``."""

    key: str | None = None
    delimiter: str = ","
    quote: str | None = '"'
    header: bool = True
    names: list[str] = []
    types: dict[str, Literal["int", "float", "text"]] = {}
    encoding: str = "utf-8"


@dataclass(frozen=True)
class Rows:
    """Some rows of a file: those that begin in ``[begin, end)``, the first at line ``line``. ``end`` None: all."""

    file: FoundFile
    begin: int
    end: int | None
    line: int

    @property
    def nbytes(self) -> int:
        return self.file.nbytes if self.end is None else self.end - self.begin


class CsvSource(FilesSource):
    """The rows of files that all have the same columns."""

    def __init__(self, settings: CsvSettings, document: Document):
        _check(settings, document)
        super().__init__(settings, document)
        names = settings.names or self._header(self.files[0])
        if not names or len(set(names)) < len(names):
            message = f"the names of columns in {self.files[0].url} are not distinct: {', '.join(names)}."
            raise document.error(("source",), message if names else f"{self.files[0].url} has no header; give names.")
        for name in (*settings.types, *([settings.key] if settings.key else [])):
            if name not in names:
                raise document.unknown(("source", "types" if name in settings.types else "key"), name, names, "column")
        self.names = names
        kinds = {name: TYPES[settings.types.get(name, "text")][1] for name in names}
        self.columns = {name: Column(kind, is_source=True) for name, kind in {**kinds, "key": Text()}.items()}

    def parts(self) -> Iterator[list[Rows]]:
        ranges = [piece for file in self.files for piece in self._ranges(file)]
        return grouped(ranges, [piece.nbytes for piece in ranges], self.nbytes)

    def read(self, part: Sequence[Rows]) -> Iterator[Chunk]:
        for piece in part:
            try:
                yield from self._read_rows(piece)
            except ShardError as error:
                yield Chunk.of_records([], 0, [damaged(piece.file, error)])

    # -- planning -----------------------------------------------------------------------------------

    def _header(self, file: FoundFile) -> list[str]:
        with opened(file, self.settings.storage_options) as stream:
            names = next(self._reader(stream), []) if self.settings.header else []
        return [names[0].removeprefix("\ufeff"), *names[1:]] if names else []

    def _ranges(self, file: FoundFile) -> Iterator[Rows]:
        limit = part_nbytes(self.nbytes)
        if compression_of(file) or file.nbytes <= limit:
            yield Rows(file, 0, None, 1)
            return
        with opened(file, self.settings.storage_options) as stream:
            begin, line = 0, 1
            while begin < file.nbytes:
                nbytes, num_lines = self._rows_of(file, stream, begin, limit)
                yield Rows(file, begin, begin + nbytes, line)
                begin, line = begin + nbytes, line + num_lines

    def _rows_of(self, file: FoundFile, stream: BinaryIO, begin: int, limit: int) -> tuple[int, int]:
        """Return how many bytes and lines the rows from ``begin`` on have that reach ``limit`` bytes."""
        stream.seek(begin)
        data = stream.read(limit)
        data += b"" if data.endswith(b"\n") else stream.readline()
        if not self.settings.quote or self.settings.quote.encode() not in data:
            return len(data), data.count(b"\n")
        stream.seek(begin)
        nbytes = 0

        def lines() -> Iterator[str]:
            nonlocal nbytes
            for raw in stream:
                nbytes += len(raw)
                if nbytes > limit + MAX_ROW_NBYTES:
                    raise SampleError(f"no row of {printable(file.place)} ends within {MAX_ROW_NBYTES:,} bytes after "
                                      f"byte {begin + limit}: is a quote not closed?")  # fmt: skip
                yield raw.decode("latin-1")  # quotes and line ends are the same in all encodings that are let in

        reader = csv.reader(lines(), **self._dialect())
        with _large_fields():
            while nbytes < limit:  # the reader takes no line more than a row needs
                try:
                    if next(reader, None) is None:
                        break
                except csv.Error:
                    pass  # reading will say so
        return nbytes, reader.line_num

    # -- reading ------------------------------------------------------------------------------------

    def _reader(self, stream: BinaryIO):
        # Undecodable bytes come through as surrogates, so that they cost their own row only.
        text = io.TextIOWrapper(stream, self.settings.encoding, errors="surrogateescape", newline="")
        return csv.reader(text, **self._dialect())

    def _dialect(self) -> dict:
        quoting = {"quotechar": self.settings.quote} if self.settings.quote else {"quoting": csv.QUOTE_NONE}
        return {"delimiter": self.settings.delimiter, "strict": True, **quoting}

    def _read_rows(self, piece: Rows) -> Iterator[Chunk]:
        with opened(piece.file, self.settings.storage_options) as stream, _large_fields():
            if piece.end is not None:
                stream.seek(piece.begin)
                stream = io.BytesIO(stream.read(piece.end - piece.begin))
            reader = self._reader(stream)
            columns, rejects, lines, before = self._empty(), [], [], piece.line
            left = piece.nbytes
            skip = self.settings.header and piece.begin == 0
            while True:
                line = before
                try:
                    row = next(reader, None)
                except csv.Error as error:
                    rejects.append(self._error(piece, line, f"not CSV: {error}."))
                    before = piece.line + reader.line_num
                    continue
                before = piece.line + reader.line_num
                if row is None:
                    break
                if skip:
                    skip = False
                    row[:1] = [text.removeprefix("\ufeff") for text in row[:1]]
                    if not self.settings.names and row != self.names:
                        rejects.append(self._error(piece, line, f"another header than {self.names}: {row}."))
                        break
                elif row:
                    self._take(piece, line, row, columns, rejects)
                    lines += [line] * (len(columns["key"]) - len(lines))
                if len(columns["key"]) == CHUNK_ROWS:
                    yield Chunk(columns, 0, rejects, partial(_where, piece, lines))
                    columns, rejects, lines = self._empty(), [], []
            yield Chunk(columns, left, rejects, partial(_where, piece, lines))

    def _empty(self) -> dict[str, list]:
        return {name: [] for name in self.columns}

    def _take(self, piece: Rows, line: int, row: list[str], columns: dict, rejects: list) -> None:
        if len(row) != len(self.names):
            rejects.append(self._error(piece, line, f"{len(row)} values for {len(self.names)} columns."))
            return
        values = {}
        for name, text in zip(self.names, row, strict=True):
            try:
                convert = TYPES[self.settings.types.get(name, "text")][0]
                values[name] = text if convert is str else None if not text.strip() else convert(text)
                if convert is str and not text.isascii():
                    text.encode()
            except UnicodeEncodeError:
                rejects.append(self._error(piece, line, f"not {self.settings.encoding} text.", name))
                return
            except ValueError:
                rejects.append(self._error(piece, line, f"{text!r:.80} is not {self.settings.types[name]}.", name))
                return
        if self.settings.key is not None:
            values["key"] = str(values[self.settings.key])
        elif "key" not in values:
            values["key"] = f"{printable(piece.file.name)}:{line}"
        for name, value in values.items():
            columns[name].append(value)

    def _error(self, piece: Rows, line: int, message: str, field: str | None = None) -> SampleError:
        return SampleError(f"{_where(piece, [line], 0)}: {message}", key=f"{printable(piece.file.name)}:{line}",
                           field=field)  # fmt: skip


def _where(piece: Rows, lines: list[int], record: int) -> str:
    return f"line {lines[record]} of {printable(piece.file.place)}"


def _check(settings: CsvSettings, document: Document) -> None:
    for name, sign in (("delimiter", settings.delimiter), ("quote", settings.quote)):
        if sign is not None and (len(sign) != 1 or not sign.isascii() or sign in "\r\n"):
            raise document.error(("source", name), f"must be one ASCII character, not {sign!r}.")
    try:
        plain = '\n"'.encode(settings.encoding) == b'\n"'
    except (LookupError, UnicodeError):
        plain = False
    if not plain:
        message = f"{settings.encoding!r} is not an encoding in which line ends are single bytes, such as utf-8 or latin-1."
        raise document.error(("source", "encoding"), message)
    if not settings.header and not settings.names:
        raise document.error(("source", "header"), "a file without header needs names.")


@contextmanager
def _large_fields() -> Iterator[None]:
    """Let values be as long as they are; the limit is the csv module's, so it is put back."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)
