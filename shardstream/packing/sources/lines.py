"""Files whose records are lines, cut into ranges of bytes at line ends; compressed ones are read whole.

A line belongs to the range that its first byte is in, so ranges need no look at the file to be planned.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shardstream.errors import SampleError, ShardError
from shardstream.packing.sources import CHUNK_NBYTES, Chunk, part_nbytes
from shardstream.packing.sources.files import (
    FilesSource,
    compression_of,
    damaged,
    grouped,
    opened,
    printable,
)
from shardstream.storage.find import FoundFile

MAX_LINE_NBYTES = 1 << 30


@dataclass(frozen=True)
class Range:
    """The lines of a file whose first byte is in ``[begin, end)``; ``end`` is None for a whole compressed file."""

    file: FoundFile
    begin: int
    end: int | None

    @property
    def nbytes(self) -> int:
        return self.file.nbytes if self.end is None else self.end - self.begin


class BadLine(ValueError):
    """What a line is not; the source adds its file and number."""

    def __init__(self, message: str, field: str | None = None):
        super().__init__(message)
        self.field = field


class LinesSource(FilesSource):
    """Base of the sources of lines: a subclass says what a line holds in :meth:`record`."""

    def record(self, line: bytes) -> dict | None:
        """Return a line's record, its ``key`` None if the line has none; None for no record; raises :class:`BadLine`.
        """
        raise NotImplementedError

    def records(self, data: bytes) -> list[dict] | None:
        """Return the records of whole lines, of which each has one; None if it must be seen line by line which have."""
        return None

    def parts(self) -> Iterator[list[Range]]:
        ranges = ranges_of(self.files, part_nbytes(self.nbytes))
        return grouped(ranges, [piece.nbytes for piece in ranges], self.nbytes)

    def read(self, part: Sequence[Range]) -> Iterator[Chunk]:
        for piece in part:
            yield from self._read_range(piece)

    def _read_range(self, piece: Range) -> Iterator[Chunk]:
        left = piece.nbytes
        try:
            for offset, data in blocks_of_lines(piece, self.settings.storage_options):
                records, rejects, lines = self._records_of(piece, offset, data)
                taken = min(left, len(data) + 1)  # of a compressed file, no more than it has
                left -= taken
                yield Chunk.of_records(records, taken, rejects,
                                       functools.partial(self._where, piece.file, offset, lines))  # fmt: skip
            yield Chunk.of_records([], left)
        except ShardError as error:
            yield Chunk.of_records([], left, [damaged(piece.file, error)])
        except SampleError as error:  # a line that has no end
            yield Chunk.of_records([], left, [error])

    def _records_of(self, piece: Range, offset: int, data: bytes) -> tuple[list, list, Sequence[int]]:
        """Return the records of lines from ``offset`` on, each with its key; those that are none; and which line a
        record is.
        """
        name, record_of, begin = printable(piece.file.name), self.record, offset
        records = self.records(data)
        if records is not None:
            if any(record["key"] is None for record in records):
                for record, line in zip(records, data.split(b"\n"), strict=True):
                    record["key"] = f"{name}:{offset}" if record["key"] is None else record["key"]
                    offset += len(line) + 1
            return records, [], range(len(records))
        records, rejects, lines = [], [], []
        for number, line in enumerate(data.split(b"\n")):
            try:
                record = record_of(line)
            except BadLine as error:
                where = self._where(piece.file, begin, [number], 0)
                rejects.append(SampleError(f"{where}: {error}", key=f"{name}:{offset}", field=error.field))
            else:
                if record is not None:
                    if record["key"] is None:
                        record["key"] = f"{name}:{offset}"
                    records.append(record)
                    lines.append(number)
            offset += len(line) + 1
        return records, rejects, lines

    def _where(self, file: FoundFile, offset: int, lines: Sequence[int], record: int) -> str:
        """Return file and line of a record: that of ``offset``, and so many more."""
        first = _counter(file).line_at(offset, self.settings.storage_options)
        return f"line {first + lines[record]} of {printable(file.place)}"


def ranges_of(files: Sequence[FoundFile], nbytes: int) -> list[Range]:
    """Return the ranges of files, of at most ``nbytes`` each, of equal size within a file."""
    found = []
    for file in files:
        if compression_of(file):
            found.append(Range(file, 0, None))
            continue
        count = max(1, -(-file.nbytes // nbytes))
        ends = [file.nbytes * number // count for number in range(count + 1)]
        found += [Range(file, begin, end) for begin, end in zip(ends, ends[1:], strict=False)]
    return found


def blocks_of_lines(piece: Range, storage_options: dict) -> Iterator[tuple[int, bytes]]:
    """Give ``(offset of the first byte, some whole lines without the end of the last)`` until the range is read."""
    with opened(piece.file, storage_options) as stream:
        offset = piece.begin
        if offset:
            stream.seek(offset - 1)
            offset += len(stream.readline()) - 1  # of the line that began before, or the end of one that just ended
        while piece.end is None or offset < piece.end:
            data = stream.read(CHUNK_NBYTES if piece.end is None else min(CHUNK_NBYTES, piece.end - offset))
            if not data:
                return
            if not data.endswith(b"\n"):
                data += stream.readline(MAX_LINE_NBYTES)
                if len(data) >= MAX_LINE_NBYTES:
                    message = f"{printable(piece.file.place)} has a line of more than {MAX_LINE_NBYTES:,} bytes."
                    raise SampleError(message, key=f"{printable(piece.file.name)}:{offset}", offset=offset)
            yield offset, data.removesuffix(b"\n")
            offset += len(data)


@functools.lru_cache(maxsize=64)
def _counter(file: FoundFile) -> _Counter:
    """Return the counter of a file's lines that all of its ranges share which are read in this process."""
    return _Counter(file)


class _Counter:
    """Numbers of lines by their offsets; goes on from the last one, so that many errors cost one reading."""

    def __init__(self, file: FoundFile):
        self._file = file
        self._offset, self._number = 0, 1
        self._lock = threading.Lock()

    def line_at(self, offset: int, storage_options: dict) -> int:
        """Return the number of the line that begins at ``offset``."""
        with self._lock:
            if offset != self._offset:
                self._count(offset, storage_options)
            return self._number

    def _count(self, offset: int, storage_options: dict) -> None:
        with opened(self._file, storage_options) as stream:
            if compression_of(self._file) is None and self._offset < offset:
                stream.seek(self._offset)
            else:
                self._offset, self._number = 0, 1
            while self._offset < offset:
                data = stream.read(min(CHUNK_NBYTES, offset - self._offset))
                if not data:
                    break
                self._number += data.count(b"\n")
                self._offset += len(data)
