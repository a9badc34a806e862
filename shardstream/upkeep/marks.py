"""Names for versions, and the end of a dataset."""

from __future__ import annotations

from datetime import datetime

from shardstream.log import Log
from shardstream.storage import Store


def tag(url: str, name: str, version: int | str | datetime | None = None, storage_options: dict | None = None) -> int:
    """Name a version (by default the newest), so that ``version=name`` opens it and gc keeps it; returns its number.

    A tag that another version has moves here. A tag begins with a letter and goes on with letters, digits, ``. _ -``.

    Raises:
        ConfigError: ``name`` is no tag.
        DatasetNotFoundError, Conflict: There is no such version, or it has expired; nothing was changed.

    Example:
        >>> ss.upkeep.tag("s3://bucket/words", "paper")
        17
    """
    log = Log(Store(url, storage_options))
    number = log.snapshot(version).version
    log.tag(name, number)
    return number


def untag(url: str, name: str, storage_options: dict | None = None) -> None:
    """Take a tag away; :class:`Conflict` if there is none of this name."""
    Log(Store(url, storage_options)).tag(name, None)


def end(url: str, storage_options: dict | None = None) -> int:
    """Say that nothing will be added any more, so that followers come to an end; returns the version that says so.

    Writers fail from now on. Compaction, tags and gc go on. It can't be taken back.

    Raises:
        Conflict: The dataset has been ended before.
    """
    return Log(Store(url, storage_options)).end()
