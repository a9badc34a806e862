"""``ShardDataset``: one shard, held in memory, as a map-style dataset."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from shardstream.access import RowAccess
from shardstream.config import checked_options
from shardstream.errors import ConfigError
from shardstream.forms import Forms, Padded
from shardstream.reader import Block, BlockReader
from shardstream.schema import Schema
from shardstream.source import open_source
from shardstream.storage import Fetcher
from shardstream.storage.urls import normalise, redact

THREADS = 8  # blocks asked for at once


class ShardDataset(RowAccess):
    """The samples of one shard by number: a map-style dataset, for training shard by shard.

    The shard, our own or any WebDataset tar, is read whole, verified and decoded at the first use, and
    held until the dataset is let go: its decoded bytes are the memory it takes. Samples and batches are those of a
    :class:`ShardStream` over the shard.

    Args:
        shard_url: URL of a shard, local or remote, such as one of ``ss.Dataset(url).shards``.
        fields: Names to deliver; no other column is read.
        sparse: Form of sparse fields, or a dict by field: "dense", "csr", "jagged" or "indices".
        dtypes: Dict of field to dtype; uint16, uint32 and uint64 come as int64 by default.
        transform: Function of one sample; or, marked ``@ss.batched``, of the columns of any number of rows. It is
            called at each access and can't drop rows.
        allow_unsafe: Decode fields of WebDataset shards that execute code (pickle).
        storage_options: For fsspec.
        ragged, keyed: Forms of ragged fields, and fields that come as one column, as of :class:`ShardStream`.

    Raises:
        ConfigError: ``shard_url`` is no URL, or another argument not legal.
        ShardNotFoundError, ShardError, ChecksumError: At the first use: the shard is missing or damaged.

    Example:
        >>> for url in ss.Dataset("words").shards:
        ...     for batch in DataLoader(ss.ShardDataset(url), batch_size=256, shuffle=True):
        ...         train(batch)
    """

    def __init__(self, shard_url: str, fields: list[str] | None = None, sparse: str | dict[str, str] = "dense",
                 dtypes: dict[str, Any] | None = None, transform: Callable | None = None, allow_unsafe: bool = False,
                 storage_options: dict | None = None,
                 *, ragged: str | Padded | dict[str, str | Padded] = "jagged", keyed: dict[str, list[str]] | None = None):  # fmt: skip
        super().__init__(Forms(sparse, ragged, keyed, dtypes), transform, allow_unsafe)
        normalise(shard_url)  # checks it
        self.shard_url, self._wanted, self._storage_options = os.fspath(shard_url), fields, checked_options(storage_options)

    def _open(self) -> tuple[Schema | None, list[str] | None, list[Block]]:
        source = open_source([self.shard_url], None, self._storage_options)
        if source.num_shards != 1:
            raise ConfigError(f"{self.shard_url!r} names {source.num_shards} shards; a ShardDataset has one.")
        reader = BlockReader(source, self._wanted, Fetcher(self._storage_options))
        index, _ = reader.index(0)
        with ThreadPoolExecutor(THREADS, thread_name_prefix="shardstream-shard") as pool:
            blocks = list(pool.map(lambda block: reader.read(0, block), range(index.num_blocks)))
        return source.schema, self._wanted if source.schema is None else reader.fields, blocks

    def __repr__(self) -> str:
        return f"ShardDataset({redact(self.shard_url)!r})"
