"""Several sources read as one: ``JoinedSource``, ``JoinedReader``, for mixtures.

A shard is known as ``source << SHARD_BITS | its ordinal there`` (``order/mix_rows.py``), which everything above a
reader passes on without looking at it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from shardstream.codecs.shard import ShardIndex
from shardstream.errors import ConfigError, SchemaError, ShardstreamError
from shardstream.following import GrowingSource
from shardstream.order.mix_rows import SHARD_BITS
from shardstream.reader import Block, BlockReader, checked_fields
from shardstream.schema import Schema
from shardstream.source import Source
from shardstream.stats import Stats


def _split(shard: int) -> tuple[int, int]:
    return shard >> SHARD_BITS, shard & (1 << SHARD_BITS) - 1


@dataclass(frozen=True, eq=False)
class JoinedSource:
    """What a mixture reads from: its sources, as a ``Source`` as far as reading goes."""

    sources: tuple[Source | GrowingSource, ...]

    def __post_init__(self):
        for source in self.sources:
            if isinstance(source, Source) and source.num_shards > 1 << SHARD_BITS:  # one that grows is read by itself
                raise ConfigError(f"a source of a mixture has at most {1 << SHARD_BITS} shards, not "
                                  f"{source.num_shards}: compact it.")  # fmt: skip

    @property
    def schema(self) -> Schema | None:
        return self.sources[0].schema

    @property
    def mean_sample_nbytes(self) -> float:
        return sum(source.nbytes for source in self.sources) / max(1, sum(source.total_samples for source in self.sources))

    @property
    def is_remote(self) -> bool:
        return any(source.is_remote for source in self.sources)

    def url(self, shard: int) -> str:
        source, ordinal = _split(shard)
        return self.sources[source].url(ordinal)


class JoinedReader:
    """Reads blocks of a JoinedSource through a reader of each source; threads may share one."""

    def __init__(self, readers: list[BlockReader]):
        self._readers = readers
        self.source = JoinedSource(tuple(reader.source for reader in readers))
        self.fields, self.pool, self.batches, self.outside = readers[0].fields, readers[0].pool, readers[0].batches, readers[0].outside
        for reader in readers:  # one memory limit counts the buffers of all
            reader.pool = self.pool
        self.kept: dict = {}
        self.count_in(Stats())

    def count_in(self, stats: Stats) -> None:
        """See :meth:`BlockReader.count_in`."""
        self.stats = stats
        for reader in self._readers:
            reader.count_in(stats)

    def index(self, shard: int) -> tuple[ShardIndex, object]:
        """See :meth:`BlockReader.index`."""
        source, ordinal = _split(shard)
        return self._readers[source].index(ordinal)

    def has_index(self, shard: int) -> bool:
        """See :meth:`BlockReader.has_index`."""
        source, ordinal = _split(shard)
        return self._readers[source].has_index(ordinal)

    def knows_growth(self, shard: int) -> bool:
        """See :meth:`BlockReader.knows_growth`."""
        source, ordinal = _split(shard)
        return self._readers[source].knows_growth(ordinal)

    @property
    def sample_nbytes(self) -> float | None:
        """The largest mean memory of a source's samples; None before the first is read."""
        return max((reader.sample_nbytes for reader in self._readers if reader.sample_nbytes is not None), default=None)

    def least_nbytes(self, shard: int, block: int) -> int:
        """See :meth:`BlockReader.least_nbytes`."""
        source, ordinal = _split(shard)
        return self._readers[source].least_nbytes(ordinal, block)

    def estimate_nbytes(self, shard: int, block: int) -> int:
        """See :meth:`BlockReader.estimate_nbytes`."""
        source, ordinal = _split(shard)
        return self._readers[source].estimate_nbytes(ordinal, block)

    def passing_nbytes(self, shard: int, block: int) -> int:
        """See :meth:`BlockReader.passing_nbytes`."""
        source, ordinal = _split(shard)
        return self._readers[source].passing_nbytes(ordinal, block)

    def read_many(self, shard: int, blocks: list[int]) -> list[Block | ShardstreamError]:
        """See :meth:`BlockReader.read_many`."""
        source, ordinal = _split(shard)
        return self._readers[source].read_many(ordinal, blocks)


def check_columns(schemas: list[Schema | None], fields: list[str] | None) -> None:
    """Raise SchemaError unless rows of all schemas make one batch: the same columns, of equal kinds, dtypes and shapes.
    """
    if all(schema is None for schema in schemas):
        return  # the files layout: every row says for itself what it has
    if any(schema is None for schema in schemas):
        raise SchemaError("a mixture is of sources in one layout: datasets with a schema, or shards of "
                          "the files layout.")  # fmt: skip
    columns = [{name: replace(schema[name], default=None) for name in checked_fields(schema, fields)} for schema in schemas]
    for number, other in enumerate(columns):
        if other != columns[0]:
            differing = sorted(name for name in {*columns[0], *other} if columns[0].get(name) != other.get(name))
            first, second = ([f"{name}: {of.get(name, 'no such column')}" for name in differing] for of in (columns[0], other))
            raise SchemaError(f"the sources of a mixture must have the same columns, but source 0 has {', '.join(first)} and source {number} "
                              f"{', '.join(second)}; fields= names those that all have.", field=differing[0])  # fmt: skip
