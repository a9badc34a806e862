"""The files of a source: found below its paths, opened whatever their place and compression, grouped into parts.

Files whose names end in .gz, .zst, .bz2 or .xz are decompressed; several streams end to end are one file.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

from shardstream.codecs import compression
from shardstream.errors import SampleError
from shardstream.packing.config import Settings
from shardstream.packing.document import Document
from shardstream.packing.patterns import (
    compile_exclude,
    compile_glob,
    compile_include,
    split_glob,
)
from shardstream.packing.sources import Chunk, part_nbytes
from shardstream.storage.find import FoundFile, find_files, open_file
from shardstream.storage.urls import is_local, redact

PART_FILES = 1024
LOOKS = 16  # remote paths looked at together
BUFFER_NBYTES = 1 << 20
RAW_NBYTES = 1 << 18
COMPRESSED = {".gz": "gz", ".zst": "zst", ".bz2": "bz2", ".xz": "xz"}


class FilesSettings(Settings):
    """The keys of every source of files."""

    paths: str | list[str]
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = (".*",)
    storage_options: dict[str, Any] = {}


def find(settings: FilesSettings, document: Document, key: tuple = ("source", "paths")) -> list[FoundFile]:
    """Return the files of a source: in the order of the paths given, sorted by name in each, none twice.

    Raises:
        ConfigError: a path at which there is nothing, or nothing that may come; names the ``key`` of the paths.
    """
    try:
        include, exclude = compile_include(settings.include), compile_exclude(settings.exclude)
    except re.error as error:
        raise document.error(key[:-1], f"include or exclude holds what is not a pattern: {error}.") from None
    found: dict[str, FoundFile] = {}
    paths = [settings.paths] if isinstance(settings.paths, str) else settings.paths
    for path, files in zip(paths, _looked_at(paths, settings.storage_options, exclude), strict=True):
        folder, pattern = split_glob(path)
        wanted = compile_glob(pattern) if pattern else include
        if files is None:
            is_http = folder.startswith(("http://", "https://"))
            advice = " Over HTTP there is no listing: name each file." if is_http else ""
            raise document.error(key, f"there is nothing at {redact(folder)!r}.{advice}")
        files = [file for file in files if wanted.fullmatch(file.name) and include.fullmatch(file.name)]
        if not files:
            raise document.error(key, f"no file at {redact(path)!r} that include and exclude let pass.")
        for file in files:
            found.setdefault(file.url, file)
    return list(found.values())


def _looked_at(paths: Sequence[str], storage_options: dict, exclude: re.Pattern) -> Iterator[list[FoundFile] | None]:
    """Give the files at each path, None where there is nothing; a remote one costs a request: many go at once."""

    def look(path: str) -> list[FoundFile] | None:
        try:
            return find_files(split_glob(path)[0], storage_options, exclude)
        except FileNotFoundError:
            return None

    if len(paths) == 1 or all(is_local(path) for path in paths):
        yield from map(look, paths)
        return
    with ThreadPoolExecutor(min(LOOKS, len(paths)), thread_name_prefix="shardstream-look") as pool:
        yield from pool.map(look, paths)


def printable(name: str) -> str:
    """Return a file's name or URL as text: names need not be UTF-8 on Linux, what is stored must be."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def grouped(items: Sequence[Any], nbytes: Sequence[int], total_nbytes: int) -> Iterator[list]:
    """Give consecutive items in groups of about the size of a part."""
    limit, group, size = part_nbytes(total_nbytes), [], 0
    for item, item_nbytes in zip(items, nbytes, strict=True):
        if group and (size + item_nbytes > limit or len(group) == PART_FILES):
            yield group
            group, size = [], 0
        group.append(item)
        size += item_nbytes
    if group:
        yield group


def compression_of(file: FoundFile) -> str | None:
    """Return the compression that a file's name tells; the bytes of such a file can be had only from its beginning."""
    return COMPRESSED.get(file.name[file.name.rfind(".") :])


def opened(file: FoundFile, storage_options: dict) -> BinaryIO:
    """Return a file's contents as a binary stream, decompressed if its name says so, and then not seekable.

    Reading raises ShardError where a compressed file is cut off or damaged.
    """
    raw = open_file(file, storage_options)
    kind = compression_of(file)
    return raw if kind is None else io.BufferedReader(_Decompressed(raw, kind), BUFFER_NBYTES)


class _Decompressed(io.RawIOBase):
    def __init__(self, raw: BinaryIO, kind: str):
        self._raw, self._rest = raw, memoryview(b"")
        pieces = iter(lambda: raw.read(RAW_NBYTES), b"")
        # No limit: what comes out is never held whole.
        self._pieces = compression.decompressed(pieces, kind, limit=lambda num_in: 1 << 62)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self._rest and (piece := next(self._pieces, None)) is not None:
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class FilesSource:
    """Base of the sources of files: files that are found, parts of whole files, columns that are read to be known."""

    def __init__(self, settings: FilesSettings, document: Document):
        self.settings = settings
        self.files = self.find(document)
        self.nbytes = sum(file.nbytes for file in self.files)
        self.identity = [[file.url, file.nbytes, file.stamp] for file in self.files]

    def find(self, document: Document) -> list[FoundFile]:
        """Return the input's files in the order of their rows."""
        return find(self.settings, document)

    def parts(self) -> Iterator[Any]:
        return grouped(self.files, [file.nbytes for file in self.files], self.nbytes)

    def digest(self, part: Any, before: int) -> int:
        return 0  # sizes and times of files say it all

    def read(self, part: Any) -> Iterator[Chunk]:
        raise NotImplementedError

    def peek(self, column: str) -> Iterator[Any] | None:
        """Give a column's values by reading all of the input."""
        for part in self.parts():
            for chunk in self.read(part):
                yield from (value for value in chunk.columns.get(column, ()) if value is not None)


def damaged(file: FoundFile, error: Exception) -> SampleError:
    """Return the reject that stands for what cannot be read of a file."""
    return SampleError(f"{printable(file.place)} is cut off or damaged: {error}", key=printable(file.name))
