"""One entry of a dataset's log: its fields, its bytes, its name (docs/FORMAT.md, section 1).

Decoding is total: any bytes give an :class:`Entry` or a :class:`DatasetError` that names the
entry and the field.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from shardstream._native.crc32c import crc32c
from shardstream.errors import ConfigError, DatasetError, SchemaError
from shardstream.log.ids import UUID
from shardstream.schema import Schema

FORMAT = 1
FOLDER = "_log"
MAX_ENTRY_NBYTES = 256 << 20  # about 1.5 million shards; a reader takes no more of one entry
MAX_SOURCE_NBYTES = 1024
MAX_NAME_NBYTES = 256

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Crc = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Id = Annotated[str, Meta(pattern=f"^{UUID.pattern}")]
Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_NBYTES)]
Time = Annotated[float, Meta(ge=0, le=1e11)]
Kind = Literal["create", "claim", "append", "replace", "tag", "expire", "end"]


class ShardRecord(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One shard as the log knows it.

    ``index_*`` is where ``__shardstream__/index.json``'s bytes stand in the shard. An adopted
    shard (``url``) is somebody else's tar at that URL; its index is the object
    ``<sid>.index.json`` of the dataset.
    """

    sid: Id
    num_samples: Count
    nbytes: Count
    index_offset: Count
    index_nbytes: Count
    index_crc32c: Crc
    url: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One commit. Fields that a kind does not use are absent (docs/FORMAT.md has the table)."""

    format: Count
    version: Count
    dataset: Id
    commit: Id
    time: Time
    kind: Kind
    producer: Name | None = None
    incarnation: Id | None = None
    source: Any = None
    schema: list[dict[str, Any]] | None = None
    add: tuple[ShardRecord, ...] = ()
    remove: tuple[Id, ...] = ()
    tag: Name | None = None
    tagged: Count | None = None
    below: Count | None = None
    keep: tuple[Count, ...] = ()


class _Head(msgspec.Struct):
    format: Count


SEAL_NBYTES = len(b',"crc32c":"xxxxxxxx"}')
ENCODER = msgspec.json.Encoder()
DECODER = msgspec.json.Decoder(Entry)
HEAD_DECODER = msgspec.json.Decoder(_Head)

# What each kind must and may have, besides format, version, dataset, commit, time and kind.
REQUIRED: dict[str, tuple[str, ...]] = {
    "create": (), "claim": ("producer", "incarnation"), "append": (), "replace": ("remove",),
    "tag": ("tag",), "expire": ("below",), "end": (),
}  # fmt: skip
ALLOWED: dict[str, tuple[str, ...]] = {
    "create": ("schema",), "claim": ("producer", "incarnation"),
    "append": ("add", "producer", "incarnation", "source", "schema"), "replace": ("add", "remove"),
    "tag": ("tag", "tagged"), "expire": ("below", "keep"), "end": (),
}  # fmt: skip
BODY = ("producer", "incarnation", "source", "schema", "add", "remove", "tag", "tagged", "below", "keep")


def name(version: int, ending: str = "json") -> str:
    """Return an entry's or fold's name within the dataset: ``_log/00000000000000000042.json``."""
    return f"{FOLDER}/{version:020d}.{ending}"


def encode(entry: Entry) -> bytes:
    """Return an entry's bytes: JSON in UTF-8 without spaces, absent fields left out, its CRC-32C last.

    Raises:
        DatasetError: it is too large, or holds what :func:`decode` would refuse.
    """
    data = sealed(ENCODER.encode(entry))
    if len(data) > MAX_ENTRY_NBYTES:
        raise DatasetError(
            f"a log entry of {len(data):,} bytes ({len(entry.add):,} shards) is above the limit of "
            f"{MAX_ENTRY_NBYTES:,}; commit fewer shards at once, or write larger ones."
        )
    decode(data, entry.version)  # what is refused after it stands in the log can never be taken back
    return data


def sealed(data: bytes) -> bytes:
    """Return a JSON object's bytes with the CRC-32C of what stands before as its last member."""
    return b'%b,"crc32c":"%08x"}' % (data[:-1], crc32c(data[:-1]))


def is_whole(data: bytes) -> bool:
    """Return whether bytes end with the right checksum, as every entry's do."""
    return data[-SEAL_NBYTES:] == b',"crc32c":"%08x"}' % crc32c(data[:-SEAL_NBYTES])


def decode(data: bytes, version: int) -> Entry:
    """Return the entry that ``data`` holds; ``version`` is the number it stands at.

    Raises:
        DatasetError: malformed, too large, of a newer format, not as it was written, or not entry ``version``.
    """
    where = name(version)
    if len(data) > MAX_ENTRY_NBYTES:
        raise DatasetError(f"{where} is larger than {MAX_ENTRY_NBYTES:,} bytes.")
    try:
        if not is_whole(data):
            raise msgspec.DecodeError("its bytes do not match the checksum at its end")
        entry = DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _undecodable(data, where, error) from error
    check(entry, version, where)
    return entry


def _undecodable(data: bytes, where: str, error: Exception) -> DatasetError:
    """Return the error for bytes that are no entry: perhaps of a format that this library is too old for."""
    number = _format(data)
    return _newer(where, number) if number > FORMAT else DatasetError(f"{where} is not a log entry: {error}.")


def is_newer(data: bytes) -> bool:
    """Return whether bytes say that they are of a newer format, whose rules are not known here."""
    return _format(data) > FORMAT


def _format(data: bytes) -> int:
    try:
        return HEAD_DECODER.decode(data).format
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return FORMAT


def _newer(where: str, number: int) -> DatasetError:
    return DatasetError(f"{where} has format {number}; this shardstream reads up to {FORMAT}: upgrade it.")


def check(entry: Entry, version: int, where: str) -> None:
    """Raise :class:`DatasetError` unless the fields of ``entry`` fit each other and its place."""
    if entry.format > FORMAT:
        raise _newer(where, entry.format)
    if entry.format != FORMAT:
        raise DatasetError(f"{where} has format {entry.format}, which never existed.")
    if entry.version != version:
        raise DatasetError(f"{where} says that it is entry {entry.version}.")
    if (entry.kind == "create") != (version == 0):
        raise DatasetError(f"{where} is of kind {entry.kind!r}; entry 0, and no other, is 'create'.")
    for field in BODY:
        empty = getattr(entry, field) in (None, ())
        if empty and field in REQUIRED[entry.kind]:
            raise DatasetError(f"{where} of kind {entry.kind!r} has no {field!r}.")
        if not empty and field not in ALLOWED[entry.kind]:
            raise DatasetError(f"{where} of kind {entry.kind!r} must not have {field!r}.")
    if entry.schema is not None:
        try:
            Schema.from_json(entry.schema)
        except SchemaError as error:
            raise DatasetError(f"{where}: {error}") from error


def source_json(source: Any) -> Any:
    """Return ``source`` as it reads back from JSON; :class:`ConfigError` if it is none or above 1 kB."""
    try:
        data = json.dumps(source, allow_nan=False, separators=(",", ":"), ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"source of type {type(source).__name__} is not a JSON value: {error}") from error
    if len(data) > MAX_SOURCE_NBYTES:
        raise ConfigError(f"source is {len(data)} bytes of JSON; at most {MAX_SOURCE_NBYTES} are kept.")
    return json.loads(data)


TAG = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,254}\Z")  # never a number, so version= can tell them apart
