"""Shards that others wrote, as shards of a dataset: read through once, and never touched.

The log entry names such a shard by its URL; its index, which our own shards carry inside, is the
object ``<sid>.index.json`` of the dataset (docs/FORMAT.md, section 6).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from shardstream._native.crc32c import crc32c
from shardstream.codecs.foreign import OpenShard, open_shards
from shardstream.errors import ConfigError, SchemaError
from shardstream.log import Log, ShardRecord, ShardTable, new_id
from shardstream.storage import Fetcher, Store, expand_urls
from shardstream.storage.secrets import in_url
from shardstream.storage.urls import redact


@dataclass(frozen=True)
class Adopted:
    """What was found, and the dataset's version that has it (``None``: nothing was new)."""

    shards: list[OpenShard]
    num_new: int
    version: int | None


def index_shards(urls: str | os.PathLike | Iterable, storage_options: dict | None = None) -> list[OpenShard]:
    """Return the shards at a URL, pattern, folder or list of these with their indexes; foreign ones are remembered.

    Costs and errors are those of :func:`shardstream.codecs.foreign.open_shards`.
    """
    return open_shards(expand_urls(urls, storage_options), Fetcher(storage_options))


def adopt(urls: str | os.PathLike | Iterable, dataset: str, storage_options: dict | None = None) -> Adopted:
    """Add shards where they are to a dataset, by one commit; those that it has already are passed over.

    The dataset is created if there is none. Shards must keep their bytes: a reader checks them.

    Raises:
        ConfigError: A shard's URL has credentials in it, which would stand in the log.
        SchemaError: The shards' fields differ from each other's, or from the dataset's.
        ShardError, ShardNotFoundError: A shard cannot be used; nothing was committed.
    """
    urls = expand_urls(urls, storage_options)
    if (bare := next(filter(in_url, urls), None)) is not None:
        raise ConfigError(f"the URL of {redact(bare)} has credentials in it, which the log would give to all who read the dataset; "
                          "give them by the environment or as storage_options.")  # fmt: skip
    shards = index_shards(urls, storage_options)
    schema = shards[0].schema
    for shard in shards:
        if shard.schema != schema:
            raise SchemaError(f"its fields are not those of {redact(shards[0].url)}.", shard=redact(shard.url))
    store = Store(dataset, storage_options)
    log = Log(store)
    standing = set(_adopted_urls(log.snapshot().shards)) if log.exists() else set()
    records = [_adopt(store, shard) for shard in shards if shard.url not in standing]
    if not records:
        return Adopted(shards, 0, None)
    log.open_or_create(schema)
    return Adopted(shards, len(records), log.append(records, schema=schema))


def _adopted_urls(table: ShardTable) -> list[str]:
    return [table.url(row) for row in table.adopted]


def _adopt(store: Store, shard: OpenShard) -> ShardRecord:
    """Put a shard's index into the dataset and return what the log is to say of it."""
    sid, data = new_id(), shard.index.encode()
    store.put_bytes(f"{sid}.index.json", data)
    below = f"{store.url}/"
    url = shard.url.removeprefix(below)  # relative where it can be, so that a dataset can move with its shards
    return ShardRecord(sid=sid, num_samples=int(shard.index.num_samples.sum()), nbytes=shard.nbytes, index_offset=0,
                       index_nbytes=len(data), index_crc32c=crc32c(data), url=url)  # fmt: skip
