"""The names behind a dataset's class numbers, kept beside its shards.

``_pack.json`` in the dataset's folder is what a packing job leaves for those who train:
``{"format": 1, "classes": {field: [name of class 0, name of class 1, ...]}}``.
"""

from __future__ import annotations

import msgspec

from shardstream.errors import DatasetError
from shardstream.storage import Store

NAME = "_pack.json"
FORMAT = 1


class _Record(msgspec.Struct):
    format: int
    classes: dict[str, list[str]]


def write_classes(store: Store, classes: dict[str, list[str]]) -> None:
    """Put the names of all fields with classes; replaces what stood there."""
    store.put_bytes(NAME, msgspec.json.encode(_Record(FORMAT, classes)))


def class_names(url: str, storage_options: dict | None = None) -> dict[str, list[str]]:
    """Return field -> names of its classes, in the order of their numbers; empty if no job left any.

    Raises:
        DatasetError: what stands there is not such a record, or is of a newer format.
        StorageError: it could not be read.
    """
    try:
        data = Store(url, storage_options).read(NAME)
    except FileNotFoundError:
        return {}
    try:
        record = msgspec.json.decode(data, type=_Record)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{NAME} is not a packing job's record: {error}.") from error
    if record.format != FORMAT:
        raise DatasetError(f"{NAME} has format {record.format}; this shardstream reads {FORMAT}: upgrade it.")
    return record.classes
