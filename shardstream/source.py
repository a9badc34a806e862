"""What a stream reads from: a version of a dataset, or a list of shards (``open_source``).

Both look the same to the reader: shards with a number of samples each, and an index that is loaded when a
shard is first needed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shardstream._native.crc32c import crc32c
from shardstream.codecs.shard import ShardIndex
from shardstream.config import RetryPolicy
from shardstream.errors import ChecksumError, ConfigError, DatasetNotFoundError, SchemaError, ShardNotFoundError
from shardstream.locks import lazy
from shardstream.log import Log, ShardTable, Snapshot
from shardstream.order.state import list_id
from shardstream.schema import Dense, Schema, Sparse
from shardstream.storage import Fetcher, Store, expand_urls
from shardstream.storage.urls import checked_urls, names_shards

logger = logging.getLogger("shardstream")
SPARSE_GROWTH = 5  # decoded bytes per stored byte of index sets, as long as none is decoded: some 7 bits become 32


@dataclass(frozen=True, eq=False)
class Source:
    """Shards in log order.

    Attributes:
        id: What a state is checked against: the id in the log's entry 0, or a hash of names, sizes and counts.
        version: Number of the newest log entry that is seen; None for a list of shards.
        schema: None in the files layout.
        num_samples: int64 ``(num_shards,)``.
        nbytes: Bytes of all shards together.
        time: When the newest entry was committed, seconds since 1970; None for a list.
    """

    id: str
    version: int | None
    schema: Schema | None
    num_samples: np.ndarray
    nbytes: int
    time: float | None
    _url: Callable[[int], str]
    _load_index: Callable[[int, Fetcher], ShardIndex]
    _sid: Callable[[int], str] | None = None
    _entry: np.ndarray | None = None  # the log entry that each shard came with

    @property
    def num_shards(self) -> int:
        return len(self.num_samples)

    @lazy
    def total_samples(self) -> int:
        return int(self.num_samples.sum())

    @property
    def mean_sample_nbytes(self) -> float:
        return self.nbytes / max(1, self.total_samples)

    @property
    def mean_decoded_nbytes(self) -> float:
        """Mean memory of a sample as far as log and schema tell: exact for dense fields; text under zstd may take more.
        """
        stored = self.mean_sample_nbytes
        fields = [] if self.schema is None else self.schema.values()
        dense = sum(field.num_elements * np.dtype(field.dtype).itemsize for field in fields if isinstance(field, Dense))
        is_sparse = any(isinstance(field, Sparse) for field in fields) and all(isinstance(field, (Dense, Sparse)) for field in fields)
        return max(stored, dense + max(0.0, stored - dense) * (SPARSE_GROWTH if is_sparse else 1))

    @property
    def is_remote(self) -> bool:
        return "://" in self.url(0)

    def count(self, shard: int) -> int:
        """Return the samples of a shard."""
        return int(self.num_samples[shard])

    def url(self, shard: int) -> str:
        return self._url(shard)

    def sid(self, shard: int) -> str:
        """Return a shard's id in the log; a list of shards has no ids."""
        return self._sid(shard)

    def load_index(self, shard: int, fetcher: Fetcher) -> ShardIndex:
        return self._load_index(shard, fetcher)

    def explain_missing(self, shard: int, error: ShardNotFoundError) -> None:
        """Say in an error which log entry has the shard that is missing."""
        if self._entry is not None:
            error.message = (f"the shard is missing, though entry {int(self._entry[shard])} of the log has it: somebody deleted it, or this "
                             "version has expired since it was opened.")  # fmt: skip


def open_source(url_or_urls, version: int | str | None = None, storage_options: dict | None = None,
                progress: Callable | None = None, retry: RetryPolicy = RetryPolicy()) -> Source:  # fmt: skip
    """Return the source at a dataset's URL, or of a list, glob, brace pattern or folder of shards.

    ``version`` is a number, a tag or a time, as :meth:`Log.snapshot` takes it.

    Raises:
        DatasetNotFoundError: Nothing is there.
        ConfigError: These are no URLs, or ``version`` was given for a list of shards.
    """
    url_or_urls = checked_urls(url_or_urls)
    if isinstance(url_or_urls, str):
        url = url_or_urls
        log = Log(Store(url, storage_options, retry)) if not names_shards(url) else None
        if log is not None:
            try:
                return source_of_snapshot(log.snapshot(version))
            except DatasetNotFoundError:  # perhaps a folder of shards, which has no versions
                if version is not None:
                    raise
    if version is not None:
        raise ConfigError(f"version={version!r} needs the URL of a dataset; {url_or_urls!r} is not one.")
    urls = expand_urls(url_or_urls, storage_options, retry)
    if not urls:
        raise DatasetNotFoundError(f"there is no dataset and no shard at {url_or_urls!r}.")
    return source_of_shards(urls, Fetcher(storage_options, retry), progress)


def source_of_snapshot(snapshot: Snapshot) -> Source:
    """Return a version of a dataset as a source."""
    table = snapshot.shards
    return Source(snapshot.dataset_id, snapshot.version, snapshot.schema, table.num_samples, int(table.nbytes.sum()),
                  snapshot.time, table.url, _LoggedIndexes(table), table.sid, table.entry)  # fmt: skip


@dataclass(frozen=True)
class _LoggedIndexes:
    table: ShardTable

    def __call__(self, shard: int, fetcher: Fetcher) -> ShardIndex:
        return logged_index(self.table, shard, fetcher)


def logged_index(table: ShardTable, row: int, fetcher: Fetcher) -> ShardIndex:
    """Return the index of a shard in a log's table, checked against what the log says of it."""
    url, begin = table.index_url(row), int(table.index_offset[row])

    def verify(data: np.ndarray) -> None:
        if crc32c(data) != int(table.index_crc32c[row]):
            raise ChecksumError("the shard's index is not the one that the log names.", shard=url, offset=begin)

    data = fetcher.read(url, begin, begin + int(table.index_nbytes[row]), verify=verify).tobytes()
    return ShardIndex.decode(data, url, int(table.nbytes[row]))


def source_of_shards(urls: list[str], fetcher: Fetcher, progress: Callable | None = None) -> Source:
    """Return shards given one by one as a source: our own, or any WebDataset tar, which is counted once."""
    from shardstream.codecs import foreign

    infos = foreign.open_shards(urls, fetcher, progress)
    schemas = {str(info.schema): info.schema for info in infos}
    if len(schemas) > 1:
        raise SchemaError(f"the shards have {len(schemas)} different schemas, the first two being {list(schemas)[:2]}.")
    counts = np.array([int(info.index.num_samples.sum()) for info in infos], np.int64)
    identity = list_id((url, info.nbytes, count) for url, info, count in zip(urls, infos, counts.tolist(), strict=True))
    return Source(identity, None, next(iter(schemas.values())), counts, sum(info.nbytes for info in infos), None,
                  tuple(urls).__getitem__, _LoadedIndexes(tuple(info.index for info in infos)))  # fmt: skip


@dataclass(frozen=True)
class _LoadedIndexes:
    indexes: tuple[ShardIndex, ...]

    def __call__(self, shard: int, fetcher: Fetcher) -> ShardIndex:
        return self.indexes[shard]
