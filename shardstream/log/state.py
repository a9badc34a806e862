"""What a dataset is after entry n: a pure fold of the log.

``fold(state, entries)`` is the one place that says what an entry means; readers, writers, fold
files and tests all use it. Tables are kept as the chunks they came in and joined when asked for,
so that an append costs no more than its own shards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from shardstream.errors import DatasetError
from shardstream.locks import lazy
from shardstream.log.entries import Entry, name
from shardstream.log.table import EMPTY, ShardTable, sid_bytes


@dataclass(frozen=True)
class Producer:
    """A producer's standing: its newest claim, and the last source it committed."""

    incarnation: str | None = None
    source: Any = None
    version: int = 0


@dataclass(frozen=True)
class Step:
    """An entry with its shards as a table: what logs, tails and writers hand to :func:`fold`."""

    entry: Entry  # its 'add' is empty
    added: ShardTable = EMPTY

    @classmethod
    def of(cls, entry: Entry) -> Step:
        return cls(_without_add(entry), ShardTable.from_records(entry.add, entry.version)) if entry.add else cls(entry)


@dataclass(frozen=True)
class State:
    """A dataset after entry ``version``. ``schema`` is as entries store it; None is the files layout."""

    dataset: str
    version: int
    time: float
    schema: list[dict] | None
    chunks: tuple[ShardTable, ...] = ()
    removed: tuple[str, ...] = ()  # sids still in chunks
    producers: Mapping[str, Producer] = field(default_factory=dict)
    tags: Mapping[str, int] = field(default_factory=dict)
    expired_below: int = 0
    kept: tuple[int, ...] = ()  # versions below expired_below that were kept, for their tags
    ended: int | None = None

    @lazy
    def shards(self) -> ShardTable:
        """The live shards, in log order."""
        table = ShardTable.concatenate(self.chunks)
        return table.without(sid_bytes(self.removed)) if self.removed else table

    def compacted(self) -> State:
        """Return the same state with its table in one chunk."""
        return replace(self, chunks=(self.shards,), removed=())

    def expired(self, version: int) -> bool:
        """Return whether gc has given up a version, so that its shards may be gone."""
        return version < self.expired_below and version not in self.kept


def fold(state: State | None, steps: Iterable[Step]) -> State:
    """Return the state after ``steps``, which follow ``state`` (None before entry 0) without a gap.

    Raises:
        DatasetError: an entry of another dataset, a gap, or no entry 0.
    """
    steps = list(steps)
    if state is None:
        if not steps or steps[0].entry.version != 0:
            raise DatasetError("a log begins with entry 0.")
        first = steps.pop(0).entry
        state = State(first.dataset, 0, first.time, first.schema)
    if not steps:
        return state
    chunks, removed = list(state.chunks), list(state.removed)
    producers, tags = dict(state.producers), dict(state.tags)
    version, schema, time = state.version, state.schema, state.time
    expired_below, kept, ended = state.expired_below, state.kept, state.ended
    for step in steps:
        entry = step.entry
        version += 1
        _check_follows(entry, state.dataset, version)
        time = max(time, entry.time)
        if len(step.added):
            chunks.append(step.added)
        removed.extend(entry.remove)
        if entry.schema is not None:
            schema = entry.schema
        if entry.producer is not None:
            producers[entry.producer] = _produced(producers.get(entry.producer, Producer()), entry)
        if entry.kind == "tag":
            _tag(tags, entry)
        elif entry.kind == "expire":
            expired_below, kept = max(expired_below, entry.below or 0), entry.keep
        elif entry.kind == "end":
            ended = version
    return State(state.dataset, version, time, schema, tuple(chunks), tuple(removed), producers, tags,
                 expired_below, kept, ended)  # fmt: skip


def apply(state: State | None, entry: Entry) -> State:
    """Return the state after one more entry."""
    return fold(state, [Step.of(entry)])


def _check_follows(entry: Entry, dataset: str, version: int) -> None:
    if entry.dataset != dataset:
        raise DatasetError(f"{name(entry.version)} belongs to dataset {entry.dataset}, not {dataset}.")
    if entry.version != version:
        raise DatasetError(f"{name(entry.version)} stands where entry {version} must.")


def _produced(before: Producer, entry: Entry) -> Producer:
    source = before.source if entry.source is None else entry.source
    return Producer(entry.incarnation, source, entry.version)


def _tag(tags: dict[str, int], entry: Entry) -> None:
    if entry.tagged is None:
        tags.pop(entry.tag, None)
    else:
        tags[entry.tag] = entry.tagged


def _without_add(entry: Entry) -> Entry:
    fields = {key: getattr(entry, key) for key in entry.__struct_fields__ if key != "add"}
    return Entry(**fields)


