"""From shards to memory-mapped columns and back: moves between the tiers, in the order of the rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from shardstream.codecs import rows
from shardstream.errors import ConfigError, SchemaError
from shardstream.log import Log
from shardstream.memmap.dataset import MemmapDataset
from shardstream.memmap.writer import WholeWriter
from shardstream.progress import byte_bar
from shardstream.reader import BlockReader
from shardstream.scan import blocks
from shardstream.schema import Schema
from shardstream.source import open_source
from shardstream.storage import Fetcher, Store
from shardstream.storage.urls import is_mapped, redact
from shardstream.writer import ShardWriter

ROWS_AT_ONCE = 8192
PRODUCER = "convert"  # a name that a second conversion takes from the first, whose commit fails then


def to_memmap(url_or_urls: Any, folder: str, fields: list[str] | None = None, part_nbytes: int | str = "1GB", version: int | str | None = None,
              storage_options: dict | None = None) -> int:  # fmt: skip
    """Write the samples of a dataset or of shards to a folder for :class:`MemmapDataset`; return their number.

    All rows appear at the end. A call that was killed leaves a folder that can't be opened; the same call begins anew.

    Args:
        url_or_urls, version, storage_options: As of :class:`ShardStream`.
        folder: Local; holds no dataset yet.
        fields: Names to take; by default all.
        part_nbytes: As of :class:`MemmapWriter`.

    Raises:
        SchemaError: The shards have no schema (the files layout).
        ConfigError: The folder holds a dataset already, or another call is at work there.
    """
    source = open_source(url_or_urls, version, storage_options)
    if source.schema is None:
        raise SchemaError(f"{url_or_urls!r} is in the files layout, whose samples have no columns to map.")
    reader = BlockReader(source, fields, Fetcher(storage_options))
    schema = Schema(**{name: source.schema[name] for name in reader.fields})
    with WholeWriter(folder, schema, part_nbytes) as writer, byte_bar("converting", source.nbytes) as advance:
        for shard, number, block in blocks(reader):
            writer.write_batch({name: _rows(block.columns[name], 0, block.num_samples) for name in schema})
            advance(int(reader.index(shard)[0].extents[number, :, 1].sum()))
    return writer.num_samples


def to_shards(folder: str, url: str, fields: list[str] | None = None, shard_nbytes: int | str = "64MB", compression: str | None = None,
              storage_options: dict | None = None) -> int:  # fmt: skip
    """Write the rows of a :class:`MemmapDataset` to a new dataset at ``url``, by one commit; return their number.

    Raises:
        ConfigError: The dataset at ``url`` has rows already, or ``url`` is a folder of memory-mapped columns.
        ProducerFenced: Another call has begun to commit to it; nothing of this one is visible.
    """
    if is_mapped(url):  # shards beside them would make two datasets of one folder
        raise ConfigError(f"{url!r} holds memory-mapped columns; name another place for the shards.")
    dataset = MemmapDataset(folder, fields)
    schema, parts = dataset.mapped()
    log = Log(Store(url, storage_options))
    if log.exists() and log.snapshot().num_samples:  # twice the same command must not double the rows in silence
        raise ConfigError(f"{url!r} has rows already; name another dataset.")
    with (_FirstWriter(url, schema=schema, shard_nbytes=shard_nbytes, compression=compression, storage_options=storage_options) as writer,
          byte_bar("converting", len(dataset)) as advance):  # fmt: skip
        for part in parts:
            for begin in range(0, part.num_samples, ROWS_AT_ONCE):
                end = min(begin + ROWS_AT_ONCE, part.num_samples)
                writer.write_batch({name: _rows(part.columns[name], begin, end) for name in schema})
                advance(end - begin)
    return writer.num_samples


class _FirstWriter(ShardWriter):
    """A writer that commits to a dataset without rows only: of several at once one does, and the others fail."""

    def _upload(self, job: tuple) -> None:
        if job[2]:  # the commit, after all shards
            self._log.open_or_create(self.schema)
            self._producer, (self._incarnation, _) = PRODUCER, self._log.claim(PRODUCER)
            if self._log.snapshot().num_samples:
                raise ConfigError(f"{redact(self._log.store.url)!r} has rows already; name another dataset.")
        super()._upload(job)


def _rows(column: Any, begin: int, end: int) -> Any:
    """Return some rows of a column in its decoded form as ``write_batch`` takes them."""
    part = rows.rows_of_column(column, begin, end)
    if not isinstance(part, tuple):
        return part
    values, lengths, *weights = part
    return (values, np.concatenate([[0], np.cumsum(lengths)]), *(array for array in weights if array is not None))
