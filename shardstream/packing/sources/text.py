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
from collections.abc import Iterator
from functools import partial
from typing import Literal

from shardstream.errors import SampleError
from shardstream.packing.document import Document
from shardstream.packing.sources import CHUNK_NBYTES, Chunk
from shardstream.packing.sources.files import FilesSettings, FilesSource, printable
from shardstream.packing.steps import Column
from shardstream.schema import Text
from shardstream.storage.find import FoundFile, read_files


class TextSettings(FilesSettings):
    """The keys of ``source`` with ``kind: text``."""

    encoding: str = "utf-8"
    decode_errors: Literal["strict", "replace"] = "strict"


class TextSource(FilesSource):
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
        super().__init__(settings, document)

    def read(self, part: list[FoundFile]) -> Iterator[Chunk]:
        records, rejects, nbytes = [], [], 0
        for file, data in zip(part, read_files(part, self.settings.storage_options), strict=True):
            nbytes += len(data)
            try:
                text = data.decode(self.settings.encoding, self.settings.decode_errors)
            except UnicodeDecodeError as error:
                line = data.count(b"\n", 0, error.start) + 1
                message = f"line {line} of {printable(file.place)}: not {self.settings.encoding} text: {error.reason}."
                rejects.append(SampleError(message, key=file.name, offset=error.start))
            else:
                records.append({**names_of(file), "text": text.removeprefix("\ufeff")})
            if nbytes >= CHUNK_NBYTES:
                yield Chunk.of_records(records, nbytes, rejects, partial(path_of, records))
                records, rejects, nbytes = [], [], 0
        yield Chunk.of_records(records, nbytes, rejects, partial(path_of, records))

    def peek(self, column: str) -> Iterator[str] | None:
        return None if column == "text" else (names_of(file)[column] for file in self.files)


def path_of(records: list[dict], record: int) -> str:
    """Return the place of a record that is a file."""
    return records[record]["path"]


def names_of(file: FoundFile) -> dict[str, str]:
    """Return the columns that a file's name and place give."""
    key, path = printable(file.name), printable(file.place)
    first, slash, _ = key.partition("/")
    top = first if slash else os.path.splitext(first)[0]
    return {"key": key, "path": path, "top": top, "folder": key.rpartition("/")[0]}
