"""The files of a source: found below its paths, opened whatever their place and compression, grouped into parts."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import zstandard

from shardstream.packing.config import Settings
from shardstream.packing.document import Document
from shardstream.packing.patterns import compile_exclude, compile_glob, compile_include, split_glob
from shardstream.packing.sources import part_nbytes
from shardstream.storage.find import FoundFile, find_files, open_file

PART_FILES = 1024
BUFFER_NBYTES = 1 << 20
# What a decompressor raises on bytes that are cut off or damaged.
DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)


class FilesSettings(Settings):
    """The keys of every source of files."""

    paths: str | list[str]
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = (".*",)
    storage_options: dict[str, Any] = {}


def find(settings: FilesSettings, document: Document) -> list[FoundFile]:
    """Return the files of a source: in the order of the paths given, sorted by name in each, none twice.

    Raises:
        ConfigError: a path at which there is nothing, or nothing that may come; names the key.
    """
    try:
        include, exclude = compile_include(settings.include), compile_exclude(settings.exclude)
    except re.error as error:
        raise document.error(("source",), f"include or exclude holds what is not a pattern: {error}.") from None
    found: dict[str, FoundFile] = {}
    for path in [settings.paths] if isinstance(settings.paths, str) else settings.paths:
        folder, pattern = split_glob(path)
        wanted = compile_glob(pattern) if pattern else include
        try:
            files = find_files(folder, settings.storage_options, exclude)
        except FileNotFoundError:
            raise document.error(("source", "paths"), f"there is nothing at {folder!r}.") from None
        files = [file for file in files if wanted.fullmatch(file.name) and include.fullmatch(file.name)]
        if not files:
            raise document.error(("source", "paths"), f"no file at {path!r} that include and exclude let pass.")
        for file in files:
            found.setdefault(file.url, file)
    return list(found.values())


def identity(files: Sequence[FoundFile]) -> list:
    """Return what changes when one of the files does."""
    return [[file.url, file.nbytes, file.stamp] for file in files]


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


def is_compressed(file: FoundFile) -> bool:
    """Return whether a file's bytes can be had only from its beginning."""
    return file.url.endswith((".gz", ".zst"))


def opened(file: FoundFile, storage_options: dict) -> BinaryIO:
    """Return a file's contents as a binary stream, decompressed if its name ends in .gz or .zst."""
    raw = open_file(file, storage_options)
    if file.url.endswith(".gz"):
        return io.BufferedReader(gzip.GzipFile(fileobj=raw), BUFFER_NBYTES)
    if file.url.endswith(".zst"):
        reader = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
        return io.BufferedReader(reader, BUFFER_NBYTES)
    return raw
