"""``Dataset``: what is in a dataset, without reading samples."""

from __future__ import annotations

from datetime import datetime

from shardstream.log import Log, Snapshot
from shardstream.schema import Schema
from shardstream.storage import Store
from shardstream.storage.urls import redact


class Dataset:
    """A version of a dataset: its schema, shards and sizes, read from the log alone.

    Args:
        url: Folder or prefix of the dataset.
        version: A version's number, a tag, or a time: a ``datetime``, or ISO 8601 as ``"2026-11-27T14:03:00Z"`` (UTC
            if it has no offset), for what was the newest then. By default the newest. What it is is in ``.version``.
        storage_options: For fsspec.

    Raises:
        DatasetNotFoundError: There is no dataset at ``url``, or no such version (any more).

    Example:
        >>> for url in ss.Dataset("s3://bucket/words").shards:
        ...     print(url)
    """

    def __init__(self, url: str, version: int | str | datetime | None = None,
                 storage_options: dict | None = None):  # fmt: skip
        self._store = Store(url, storage_options)
        self.snapshot: Snapshot = Log(self._store).snapshot(version)

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def version(self) -> int:
        """Number of the newest log entry that is seen."""
        return self.snapshot.version

    @property
    def schema(self) -> Schema | None:
        """Fields of the samples; None in the files layout."""
        return self.snapshot.schema

    @property
    def num_samples(self) -> int:
        return self.snapshot.num_samples

    @property
    def nbytes(self) -> int:
        """Bytes of all shards together."""
        return self.snapshot.nbytes

    @property
    def shards(self) -> list[str]:
        """URLs of the shards, in log order."""
        return self.snapshot.shards.urls

    def __len__(self) -> int:
        return self.num_samples

    def __repr__(self) -> str:
        return f"Dataset({redact(self.url)!r}, version={self.version}, {self.num_samples} samples, {len(self.snapshot.shards)} shards)"
