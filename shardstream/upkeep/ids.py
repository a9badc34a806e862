"""What samples are called: ``<sid of the shard that a sample was first written to>:<row there>``.

A merged shard says in its index whose samples it holds, as runs of rows (docs/FORMAT.md, section 2), so an id outlives
every compaction.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime

from shardstream.codecs.shard import ShardIndex
from shardstream.errors import ConfigError
from shardstream.log import Log
from shardstream.source import Source, source_of_snapshot
from shardstream.storage import Fetcher, Store

ID = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}):([0-9]{1,18})\Z")
Runs = list[tuple[str, int, int]]


def ids(url: str, version: int | str | datetime | None = None, storage_options: dict | None = None) -> Iterator[str]:
    """Yield the id of each sample in log order: the order in which ``ShardStream(url, version=version)`` yields
    samples.

    Costs a request a shard, for its index.

    Example:
        >>> for id, sample in zip(ss.upkeep.ids(url), ss.ShardStream(url)):
        ...     print(id, sample["y"])
    """
    source = source_of_snapshot(Log(Store(url, storage_options)).snapshot(version))
    fetcher = Fetcher(storage_options)
    for shard in range(source.num_shards):
        for sid, first, count in runs_of(source, shard, source.load_index(shard, fetcher)):
            for row in range(first, first + count):
                yield f"{sid}:{row}"


def runs_of(source: Source, shard: int, index: ShardIndex) -> Runs:
    """Return whose samples a shard holds, ``(sid, first row, number)`` in order: of one that was never merged, its own.

    None for a shard of others that is in no dataset, and so has no sid.
    """
    if index.runs:
        return list(index.runs)
    sid = index.sid if source.version is None else source.sid(shard)
    return [] if sid is None else [(sid, 0, int(source.num_samples[shard]))]


def id_of(runs: Runs, row: int) -> str | None:
    """Return the id of a row of a shard that holds ``runs``; None if it has none."""
    for sid, first, count in runs:
        if row < count:
            return f"{sid}:{first + row}"
        row -= count
    return None


def place_of(runs: Runs, sid: str, row: int) -> int | None:
    """Return the row of a shard that holds ``runs`` at which the sample ``<sid>:<row>`` stands; None if it is not
    there.
    """
    at = 0
    for other, first, count in runs:
        if other == sid and first <= row < first + count:
            return at + row - first
        at += count
    return None


def cut_runs(runs: Runs, begin: int, end: int) -> Runs:
    """Return the runs of rows ``begin`` to ``end`` (exclusive) of a shard that holds ``runs``."""
    cut, at = [], 0
    for sid, first, count in runs:
        low, high = max(begin, at), min(end, at + count)
        if low < high:
            cut.append((sid, first + low - at, high - low))
        at += count
    return cut


def joined(runs: Iterable[tuple[str, int, int]]) -> Runs:
    """Return runs with those that go on where the one before ends made one."""
    out: Runs = []
    for sid, first, count in runs:
        if out and out[-1][0] == sid and out[-1][1] + out[-1][2] == first:
            out[-1] = (sid, out[-1][1], out[-1][2] + count)
        else:
            out.append((sid, first, count))
    return out


def parsed(ids: Iterable[str]) -> dict[str, set[int]]:
    """Return rows by sid; :class:`ConfigError` names what is no id."""
    rows: dict[str, set[int]] = {}
    for id in ids:
        match = ID.match(id) if isinstance(id, str) else None
        if match is None:
            raise ConfigError(f"{id!r:.100} is not a sample's id, <sid>:<row>, as ss.upkeep.ids() gives them.")
        rows.setdefault(match[1], set()).add(int(match[2]))
    return rows
