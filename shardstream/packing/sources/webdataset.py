"""WebDataset shards, plain or as .gz or .zst: the samples' fields are the columns, and ``key`` is ``__key__``.

A field is named by what follows the first dot of a member's name, lower-cased, as WebDataset does it; columns of
the dataset take it by ``from: jpg``. Values are those of WebDataset's tables that need no code of others:

=====================================  ==========================================
ending                                 value
=====================================  ==========================================
txt, text, transcript                  text
cls, cls2, index, count, inx, id       an integer
json, jsn                              what the JSON says
npy                                    an array
anything else                          bytes
=====================================  ==========================================
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import numpy as np
from braceexpand import UnbalancedBracesError, braceexpand

from shardstream.errors import SampleError, ShardError
from shardstream.packing.document import Document
from shardstream.packing.sources import CHUNK_NBYTES, Chunk
from shardstream.packing.sources.files import (
    FilesSettings,
    FilesSource,
    damaged,
    opened,
    printable,
)
from shardstream.packing.steps import ANY, Column
from shardstream.schema import Text
from shardstream.storage.find import FoundFile

VALUES: dict[str, Callable[[bytes], Any]] = {
    **dict.fromkeys(("txt", "text", "transcript"), lambda data: data.decode()),
    **dict.fromkeys(("cls", "cls2", "index", "count", "inx", "id"), int),
    **dict.fromkeys(("json", "jsn"), msgspec.json.decode),
    "npy": lambda data: np.load(io.BytesIO(data), allow_pickle=False),
}


class WebdatasetSettings(FilesSettings):
    """The keys of ``source`` with ``kind: webdataset``; braces in ``paths`` expand, as in ``train-{000..012}.tar``."""

    include: tuple[str, ...] = ("*.tar", "*.tar.gz", "*.tgz", "*.tar.zst")


class WebdatasetSource(FilesSource):
    """The samples of shards, in their order; a part is some shards."""

    columns = {"key": Column(Text(), is_source=True), ANY: Column(None, is_source=True)}

    def __init__(self, settings: WebdatasetSettings, document: Document):
        paths = [settings.paths] if isinstance(settings.paths, str) else settings.paths
        try:
            expanded = [path for pattern in paths for path in (braceexpand(pattern) if "{" in pattern else [pattern])]
        except UnbalancedBracesError:
            raise document.error(("source", "paths"), "unbalanced braces; write {000..012} or {a,b}.") from None
        super().__init__(msgspec.structs.replace(settings, paths=expanded), document)

    def read(self, part: list[FoundFile]) -> Iterator[Chunk]:
        for file in part:
            yield from self._samples(file)
            yield Chunk.of_records([], file.nbytes)

    def _samples(self, file: FoundFile) -> Iterator[Chunk]:
        records, rejects, nbytes = [], [], 0
        try:
            for key, fields in grouped_members(file, self.settings.storage_options):
                nbytes += sum(len(data) for data in fields.values())
                try:
                    records.append(_record(file, key, fields))
                except SampleError as error:
                    rejects.append(error)
                if nbytes >= CHUNK_NBYTES:
                    yield Chunk.of_records(records, 0, rejects, partial(_where, file, records))
                    records, rejects, nbytes = [], [], 0
        except (ShardError, tarfile.TarError) as error:
            rejects.append(damaged(file, error))
        yield Chunk.of_records(records, 0, rejects, partial(_where, file, records))


def _where(file: FoundFile, records: list[dict], record: int) -> str:
    return f"the member {records[record]['key']} of {printable(file.place)}"


def _record(file: FoundFile, key: str, fields: dict[str, bytes]) -> dict[str, Any]:
    record: dict[str, Any] = {"key": printable(key)}
    for name, data in fields.items():
        try:
            record[name] = VALUES.get(name.rpartition(".")[2], bytes)(data)
        except (ValueError, EOFError, msgspec.MsgspecError) as error:
            message = f"the member {printable(key)}.{name} of {printable(file.place)}: {error}."
            raise SampleError(message, key=printable(key), field=name) from error
    return record


class _Member(tarfile.TarInfo):
    """A member whose header must be sound: by itself tarfile takes a bad one for the archive's end."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(tar)
        except (tarfile.TruncatedHeaderError, tarfile.InvalidHeaderError) as error:
            raise tarfile.ReadError(f"{error} at byte {tar.offset}") from error


def grouped_members(file: FoundFile, storage_options: dict) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Give ``(key, {field: bytes})`` of a shard's samples: runs of members with one name up to its first dot."""
    key, fields = None, {}
    with opened(file, storage_options) as stream, tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar:
        for member in tar:
            folder, slash, base = member.name.rpartition("/")
            stem, dot, field = base.partition(".")
            if not member.isfile() or not dot or not stem or (stem.startswith("__") and stem.endswith("__")):
                continue
            if folder.startswith("__") and folder.endswith("__"):
                continue
            if folder + slash + stem != key or field.lower() in fields:
                if fields:
                    yield key, fields
                key, fields = folder + slash + stem, {}
            fields[field.lower()] = tar.extractfile(member).read()
    if fields:
        yield key, fields
