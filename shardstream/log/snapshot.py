"""One version of a dataset, as readers see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shardstream.log.state import Producer, State
from shardstream.log.table import ShardTable
from shardstream.schema import Schema


@dataclass(frozen=True)
class Snapshot:
    """A dataset after entry ``version`` of its log.

    Attributes:
        url: Where it stands.
        dataset_id: The id that entry 0 gave it.
        version: Number of the newest entry.
        schema: Its schema; None is the files layout.
        shards: The live shards, in log order.
        time: When the newest entry was committed, in seconds since 1970 UTC.
        producers: By name, each with ``incarnation``, ``source`` and the ``version`` of its newest entry.
        tags: Versions by name.
        ended: The entry that ended the dataset, or None.
        expired_below, kept: The versions below have expired, except those kept.
    """

    url: str
    dataset_id: str
    version: int
    schema: Schema | None
    shards: ShardTable
    time: float
    producers: Mapping[str, Producer]
    tags: Mapping[str, int]
    ended: int | None
    expired_below: int
    kept: tuple[int, ...]

    @classmethod
    def of(cls, state: State, url: str) -> Snapshot:
        """Return the snapshot of a folded log."""
        schema = None if state.schema is None else Schema.from_json(state.schema)
        return cls(url, state.dataset, state.version, schema, state.shards.based(url), state.time, state.producers,
                   state.tags, state.ended, state.expired_below, state.kept)  # fmt: skip

    @property
    def num_samples(self) -> int:
        """Samples in all live shards."""
        return int(self.shards.num_samples.sum())

    @property
    def nbytes(self) -> int:
        """Bytes of all live shards' tars."""
        return int(self.shards.nbytes.sum())
