"""What may be appended when: the preconditions of every kind of entry, against a state.

Each function returns a ``propose`` for :func:`shardstream.log.commit.commit`: from a state to the
entry that would follow it, or a typed error, when nothing is written.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from shardstream.errors import ConfigError, Conflict, ProducerFenced, SchemaError
from shardstream.log import entries
from shardstream.log.commit import Propose
from shardstream.log.entries import Entry, ShardRecord
from shardstream.log.ids import new_id
from shardstream.log.state import State
from shardstream.log.table import sid_bytes
from shardstream.schema import Schema

UNCHANGED: Any = object()  # "the schema stays what it is"; None is the files layout


def first(schema: Schema | None) -> Entry:
    """Return an entry 0: a new dataset."""
    return Entry(format=entries.FORMAT, version=0, dataset=new_id(), commit=new_id(), time=_now(), kind="create",
                 schema=None if schema is None else schema.to_json())  # fmt: skip


def _now() -> float:
    return round(time.time(), 6)


def _following(state: State, commit: str, kind: str, **fields: Any) -> Entry:
    """Return the entry of these fields that follows ``state``; time never runs backwards in a log."""
    return Entry(format=entries.FORMAT, version=state.version + 1, dataset=state.dataset, commit=commit,
                 kind=kind, time=max(_now(), state.time), **fields)  # fmt: skip


def _open(state: State) -> None:
    if state.ended is not None:
        raise Conflict(f"the dataset was ended by entry {state.ended}; nothing can be added to it.")


def claim(producer: str, incarnation: str) -> Propose:
    """Make ``incarnation`` the one instance of ``producer`` that may append."""
    if not isinstance(producer, str) or not producer or len(producer) > entries.MAX_NAME_NBYTES:
        raise ConfigError(f"producer {producer!r} must be a text and have 1 to {entries.MAX_NAME_NBYTES} characters.")
    commit = new_id()

    def propose(state: State) -> Entry:
        _open(state)
        return _following(state, commit, "claim", producer=producer, incarnation=incarnation)

    return propose


def append(records: Sequence[ShardRecord], producer: str | None, incarnation: str | None, source: Any,
           schema: Any) -> Propose:  # fmt: skip
    """Add shards, written under ``schema`` (a Schema, None for the files layout, or ``UNCHANGED``).

    Preconditions: the dataset is not ended; the producer's newest entry bears ``incarnation``; the
    schema is the current one, or adds fields with a default to it, and then becomes current.
    """
    if (producer is None) != (incarnation is None):
        raise ConfigError("producer and incarnation go together: both from claim(), or neither.")
    if source is not None and producer is None:
        raise ConfigError("source= belongs to a producer: give producer= to the writer.")
    source = entries.source_json(source)
    records, commit = tuple(records), new_id()

    def propose(state: State) -> Entry:
        _open(state)
        if producer is not None:
            standing = state.producers.get(producer)
            if standing is None or standing.incarnation != incarnation:
                raise ProducerFenced(
                    f"producer {producer!r} has been claimed by a newer instance, or not by this one; this one "
                    "must stop. Nothing was committed."
                )
        changed = None if schema is UNCHANGED else _current(state, schema)
        return _following(state, commit, "append", add=records, producer=producer, incarnation=incarnation,
                          source=source, schema=changed)  # fmt: skip

    return propose


def _current(state: State, schema: Schema | None) -> list[dict] | None:
    """Return :func:`_evolved`; a schema that was current once, and has been added to since, is a conflict."""
    wanted = [] if schema is None else schema.to_json()
    if wanted and wanted != state.schema and all(field in (state.schema or []) for field in wanted):
        raise Conflict("the dataset's schema has gained fields since this writer opened; open it again with them.")
    return _evolved(state, schema)


def _evolved(state: State, schema: Schema | None) -> list[dict] | None:
    """Return the schema to state in the entry: None when it is the current one."""
    wanted = None if schema is None else schema.to_json()
    if wanted == state.schema:
        return None
    if wanted is None or state.schema is None:
        raise SchemaError("one of dataset and writer has the files layout (schema=None), the other a schema.")
    names = {field["name"] for field in state.schema}
    kept = [field for field in wanted if field["name"] in names]
    if kept != state.schema:
        raise SchemaError(
            "the dataset's schema is another: fields may only be added, at the end or between, each with a default. "
            f"Dataset: {Schema.from_json(state.schema)!r}. Writer: {schema!r}."
        )
    for field in wanted:
        if field["name"] not in names and field.get("default") is None:
            raise SchemaError("a field added to a dataset needs default=.", field=field["name"])
    return wanted


def replace(remove: Sequence[str], records: Sequence[ShardRecord]) -> Propose:
    """Put ``records`` in the place of live shards: compaction, or row removal.

    Precondition: each removed shard is live.
    """
    if not remove or len(set(remove)) != len(remove):
        raise ConfigError("replace needs at least one shard to remove, each once.")
    remove, records, commit = tuple(remove), tuple(records), new_id()

    def propose(state: State) -> Entry:
        rows = state.shards.rows_of(sid_bytes(remove))
        if (rows < 0).any():
            raise Conflict(f"shard {remove[int((rows < 0).argmax())]} is no longer live; nothing was replaced.")
        return _following(state, commit, "replace", add=records, remove=remove)

    return propose


def tag(name: str, version: int | None) -> Propose:
    """Name a version, so that gc keeps it; None takes the name away."""
    if not entries.TAG.match(name):
        raise ConfigError(f"tag {name!r} must begin with a letter and go on with letters, digits, '.', '_' or '-'.")
    commit = new_id()

    def propose(state: State) -> Entry:
        if version is None:
            if name not in state.tags:
                raise Conflict(f"there is no tag {name!r}.")
        elif not 0 <= version <= state.version:
            raise Conflict(f"there is no version {version}; the newest is {state.version}.")
        elif state.expired(version):
            raise Conflict(f"version {version} has expired, and its shards may be gone.")
        return _following(state, commit, "tag", tag=name, tagged=version)

    return propose


def expire(below: int) -> Propose:
    """Give up all versions below ``below`` but the tagged ones, before their shards are deleted."""
    commit = new_id()

    def propose(state: State) -> Entry:
        if not state.expired_below <= below <= state.version:
            raise Conflict(f"versions can expire from {state.expired_below} up to {state.version}, not below {below}.")
        keep = tuple(sorted({version for version in state.tags.values() if version < below}))
        return _following(state, commit, "expire", below=below, keep=keep)

    return propose


def end() -> Propose:
    """Say that nothing will be added any more, so that followers stop."""
    commit = new_id()

    def propose(state: State) -> Entry:
        _open(state)
        return _following(state, commit, "end")

    return propose


def same_schema(state: State, schema: Schema | None, where: str) -> None:
    """Raise :class:`SchemaError` unless a dataset found standing has this schema, or one that it extends."""
    try:
        _evolved(state, schema)
    except SchemaError as error:
        raise SchemaError(f"{where}: {error.message}") from error
