"""Who makes the parts of a job, by name.

An engine makes parts anywhere and in any order, hands them over in the order of their numbers, and
puts finished shards into the store. The rest, what is in which shard, is the same for all (``assembly.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from shardstream.packing.assembly import ShardPlace
from shardstream.packing.make import Job, Made

Task = tuple[int, Any, frozenset[str]]  # number of a part, the part, splits wanted of it


class Engine(ShardPlace, Protocol):
    """What a running job asks of its engine: a context manager whose end leaves no process behind."""

    def __enter__(self) -> Engine: ...

    def __exit__(self, *error) -> None: ...

    def made(self, tasks: Iterator[Task]) -> Iterator[tuple[int, Made]]:
        """Give ``(number, what the part became)`` in the order of tasks."""


def build_engine(job: Job, several: bool) -> Engine:
    """Return the engine that the configuration names; raises ConfigError with the place.

    ``several`` says whether there is more than one part to make.
    """
    from shardstream.packing.config import section
    from shardstream.packing.engines.dask import DaskEngine, DaskSettings
    from shardstream.packing.engines.local import LocalEngine, LocalSettings

    given = job.top.engine
    kinds = {"local": (LocalEngine, LocalSettings), "dask": (DaskEngine, DaskSettings)}
    value = {"kind": given} if isinstance(given, str) else given
    path = ("engine",)
    if isinstance(given, str) and given not in kinds:
        raise job.document.unknown(path, given, list(kinds), "engine")
    settings = section(job.document, path, value, {name: kind for name, (_, kind) in kinds.items()}, "engine")
    return kinds[value["kind"]][0](job, settings, several)
