"""Text files: one record a file.

=======  =========================================================================================
column   meaning
=======  =========================================================================================
key      the file's path below its folder, parts joined by ``/``
path     the file's URL
top      the first part of ``key`` without its suffix: the package or module in a tree of sources,
         the class in a tree with a folder a class
folder   the folder part of ``key``; empty for a file right in the folder
text     the decoded text, without a byte order mark; line ends are kept
=======  =========================================================================================
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any, Literal

from shardstream.errors import SampleError
from shardstream.packing.config import Settings
from shardstream.packing.document import Document
from shardstream.packing.patterns import compile_exclude, compile_glob, compile_include, split_glob
from shardstream.packing.sources import Chunk
from shardstream.packing.steps import Column
from shardstream.schema import Text
from shardstream.storage.find import FoundFile, find_files, read_files

PART_NBYTES = 4 << 20  # of files: enough to keep C busy for milliseconds, few enough for a live progress bar
PART_FILES = 1024


class TextSettings(Settings):
    """The keys of ``source`` with ``kind: text``."""

    paths: str | list[str]
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = (".*",)
    encoding: str = "utf-8"
    decode_errors: Literal["strict", "replace"] = "strict"
    storage_options: dict[str, Any] = {}


class TextSource:
    """Files of folders and globs, local or remote: in the order of the paths given, sorted by key in each."""

    columns = {name: Column(Text(), is_source=True) for name in ("key", "path", "top", "folder", "text")}

    def __init__(self, settings: TextSettings, document: Document):
        self.settings = settings
        try:
            b"a".decode(settings.encoding)
        except UnicodeDecodeError:
            pass  # a text encoding, of more than one byte a character
        except LookupError:
            message = f"{settings.encoding!r} is not a text encoding that Python knows."
            raise document.error(("source", "encoding"), message) from None
        self.files = self._find(document)
        self.nbytes = sum(file.nbytes for file in self.files)

    def parts(self) -> Iterator[list[FoundFile]]:
        part, nbytes = [], 0
        for file in self.files:
            if part and (nbytes + file.nbytes > PART_NBYTES or len(part) == PART_FILES):
                yield part
                part, nbytes = [], 0
            part.append(file)
            nbytes += file.nbytes
        if part:
            yield part

    def read(self, part: list[FoundFile]) -> Chunk:
        chunk = Chunk([], sum(file.nbytes for file in part))
        for file, data in zip(part, read_files(part, self.settings.storage_options), strict=True):
            try:
                text = data.decode(self.settings.encoding, self.settings.decode_errors)
            except UnicodeDecodeError as error:
                message = f"not {self.settings.encoding} text: {error.reason} in {file.url}"
                chunk.rejects.append(SampleError(message, key=file.name, offset=error.start))
                continue
            chunk.records.append({**_names(file), "text": text.removeprefix("\ufeff")})
        return chunk

    def peek(self, column: str) -> Iterator[str] | None:
        return None if column == "text" else (_names(file)[column] for file in self.files)

    def _find(self, document: Document) -> list[FoundFile]:
        try:
            include, exclude = compile_include(self.settings.include), compile_exclude(self.settings.exclude)
        except re.error as error:
            raise document.error(("source",), f"include or exclude holds what is not a pattern: {error}.") from None
        found: dict[str, FoundFile] = {}
        paths = [self.settings.paths] if isinstance(self.settings.paths, str) else self.settings.paths
        for path in paths:
            folder, pattern = split_glob(path)
            wanted = compile_glob(pattern) if pattern else include
            try:
                files = find_files(folder, self.settings.storage_options, exclude)
            except FileNotFoundError:
                raise document.error(("source", "paths"), f"there is nothing at {folder!r}.") from None
            files = [file for file in files if wanted.fullmatch(file.name) and include.fullmatch(file.name)]
            if not files:
                raise document.error(("source", "paths"), f"no file at {path!r} that include and exclude let pass.")
            for file in files:
                found.setdefault(file.url, file)
        return list(found.values())


def _names(file: FoundFile) -> dict[str, str]:
    # Names of files need not be UTF-8 on Linux; what is stored must be.
    key, path = (name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for name in (file.name, file.url))
    first, slash, _ = key.partition("/")
    top = first if slash else os.path.splitext(first)[0]
    return {"key": key, "path": path, "top": top, "folder": key.rpartition("/")[0]}
