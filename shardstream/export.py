"""Samples as plain WebDataset shards, for readers that know nothing of this library (``export``).

======================  ===============================================  ==============================
field                   member                                           webdataset decodes it to
======================  ===============================================  ==============================
Dense, one integer      ``<key>.<name>.cls``                             int
Dense, anything else    ``<key>.<name>.npy``                             array
Ragged                  ``<key>.<name>.npy``                             1-D array
Sparse                  ``<key>.<name>.npy``, ``<key>.<name>_values.npy``  uint32 indices, and values
Text                    ``<key>.<name>.txt``                             str
Bytes                   ``<key>.<name>``                                 by its name, as ``jpg``
======================  ===============================================  ==============================

A key is the sample's id with a hyphen, ``<sid>-<row>``. Samples of the files layout keep key, fields and bytes.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from shardstream._native.tar import BLOCK_NBYTES, RECORD_NBYTES, header
from shardstream.codecs import files
from shardstream.codecs.columns import decode_strings
from shardstream.config import parse_nbytes
from shardstream.errors import ConfigError, ShardstreamError
from shardstream.progress import byte_bar
from shardstream.reader import Block, BlockReader
from shardstream.scan import blocks
from shardstream.schema import Bytes, Dense, Field, Ragged, Schema, Sparse, Text
from shardstream.source import open_source
from shardstream.storage import Fetcher, Store

NUMBER = re.compile(r"%0?[0-9]*d")
Members = list[tuple[str, bytes]]


@dataclass(frozen=True)
class Exported:
    """What was written: URLs of the shards, and their samples and bytes together."""

    urls: list[str]
    num_samples: int
    nbytes: int


def export(url_or_urls, pattern: str, fields: list[str] | None = None, shard_nbytes: int | str = "1GB", version: int | str | None = None,
           storage_options: dict | None = None) -> Exported:  # fmt: skip
    """Write the samples of a dataset, in its order, as plain WebDataset shards; return what was written.

    Args:
        url_or_urls, version, storage_options: As of :class:`ShardStream`.
        pattern: URL of the shards with one number in it, such as ``"out/train-%06d.tar"``.
        fields: Names to take; by default all.
        shard_nbytes: Size at which a shard is finished.

    Raises:
        ConfigError: The pattern has no number, a shard of it exists, or two fields would be one member.
        SampleError: A key or field of the files layout is no safe name: absolute, with ``..``, ...; names shard and
            key.
    """
    folder, name = _parsed(pattern)
    store, limit = Store(folder, storage_options), parse_nbytes(shard_nbytes, "shard_nbytes")
    source = open_source(url_or_urls, version, storage_options)
    reader = BlockReader(source, fields, Fetcher(storage_options))
    if source.schema is not None:
        _check_members(reader.fields, source.schema)
    out = _Shards(store, name, limit)
    try:
        with byte_bar("exporting", source.nbytes) as advance:
            for shard, number, block in blocks(reader):
                for key, members in _samples(reader, fields, shard, number, block):
                    out.write(key, members)
                advance(int(reader.index(shard)[0].extents[number, :, 1].sum()))
        out.finish()
    finally:
        out.close()
    return Exported(out.urls, out.num_samples, out.nbytes)


def _check_members(names: list[str], schema: Schema) -> None:
    """Raise if a sparse field's values and another field would be one member; nothing else can be, as names have no
    dots.
    """
    for name in names:
        other = f"{name}_values"
        has_values = isinstance(schema[name], Sparse) and schema[name].values is not None
        if has_values and other in names and not isinstance(schema[other], (Text, Bytes)) and not _is_label(schema[other]):
            raise ConfigError(f"the values of {name!r} and the field {other!r} would both be the member {other}.npy; export them apart "
                              "with fields= (--field).")  # fmt: skip


def _parsed(pattern: str) -> tuple[str, str]:
    """Return the folder and the name of a pattern."""
    folder, _, name = str(pattern).rpartition("/")
    if len(NUMBER.findall(name)) != 1 or name.count("%") != 1 or not name.endswith(".tar"):
        raise ConfigError(f"{pattern!r} must end in a file name with one number, such as train-%06d.tar.")
    return folder or ".", name


class _Shards:
    """Numbered tars, each written to a local file and then put whole."""

    def __init__(self, store: Store, name: str, limit_nbytes: int):
        self._store, self._name, self._limit_nbytes = store, name, limit_nbytes
        self._folder = tempfile.TemporaryDirectory(prefix="shardstream-export-")
        self._file: BinaryIO | None = None
        self._keys: set[str] = set()
        self.urls: list[str] = []
        self.num_samples = self.nbytes = 0

    def write(self, key: str, members: Members) -> None:
        # Two samples of one key side by side would be one to WebDataset.
        if self._file is not None and (self._file.tell() >= self._limit_nbytes or key in self._keys):
            self.finish()
        if self._file is None:
            if self._exists(self._name % len(self.urls)):
                raise ConfigError(f"{self._store.join(self._name % len(self.urls))} exists; export to "
                                  "another place, or remove it first.")  # fmt: skip
            self._file = open(os.path.join(self._folder.name, "shard.tar"), "xb")  # closed by finish() or close()
        self._keys.add(key)
        self.num_samples += 1
        for name, payload in members:
            self._file.write(header(name, len(payload)))
            self._file.write(payload)
            self._file.write(bytes(-len(payload) % BLOCK_NBYTES))

    def finish(self) -> None:
        """Put the shard that is being written, if any, under the next number."""
        if self._file is None:
            return
        self._file.write(bytes(2 * BLOCK_NBYTES))
        self._file.write(bytes(-self._file.tell() % RECORD_NBYTES))
        self.nbytes += self._file.tell()
        self._file.close()
        name = self._name % len(self.urls)
        self._store.put_file(name, self._file.name)
        if os.path.exists(self._file.name):
            os.unlink(self._file.name)
        self.urls.append(self._store.join(name))
        self._file = None
        self._keys.clear()

    def _exists(self, name: str) -> bool:
        try:
            return self._store.size(name) >= 0
        except FileNotFoundError:
            return False

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._folder.cleanup()


def _samples(reader: BlockReader, fields: list[str] | None, shard: int, number: int,
             block: Block) -> Iterator[tuple[str, Members]]:  # fmt: skip
    """Yield the key and tar members of each sample of a block."""
    url = reader.source.url(shard)
    index, starts = reader.index(shard)
    try:
        if reader.source.schema is None:
            for key, members in block.columns["__samples__"]:
                wanted = members if fields is None else {field: members[field] for field in fields if field in members}
                yield key, files.encode_sample({"__key__": key, **{field: bytes(data) for field, data in wanted.items()}})
            return
        first = int(starts[number])
        rows = {member: values for name in reader.fields for member, values in _rows(name, reader.source.schema[name], block.columns[name])}
        for row in range(block.num_samples):
            key = f"{index.sid}-{first + row:08d}"
            yield key, files.encode_sample({"__key__": key, **{member: values[row] for member, values in rows.items()}})
    except ShardstreamError as error:
        error.shard, error.block = error.shard or url, number
        raise


def _rows(name: str, field: Field, column: Any) -> Iterator[tuple[str, list]]:
    """Yield the members of a column and the value of each row, as webdataset's writer takes them."""
    if isinstance(field, Dense):
        yield (f"{name}.cls", column.tolist()) if _is_label(field) else (f"{name}.npy", list(column))
    elif isinstance(field, (Text, Bytes)):
        yield (f"{name}.txt" if isinstance(field, Text) else name), decode_strings(field, *column)
    elif isinstance(field, Ragged):
        yield f"{name}.npy", _split(column[0], column[1])
    elif isinstance(field, Sparse):
        indices, indptr, values = column
        yield f"{name}.npy", _split(indices, indptr)
        if values is not None:
            yield f"{name}_values.npy", _split(values, indptr)


def _is_label(field: Field) -> bool:
    return isinstance(field, Dense) and field.shape == () and np.dtype(field.dtype).kind in "iu"


def _split(values: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
    bounds = offsets.tolist()
    return [values[begin:end] for begin, end in zip(bounds, bounds[1:])]
