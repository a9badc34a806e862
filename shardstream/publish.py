"""A finished shard into the store, where a commit may name it: what writers and compaction do alike."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass

from shardstream.errors import StorageError
from shardstream.log import ShardRecord
from shardstream.shardfile import FinishedShard
from shardstream.storage import Store
from shardstream.storage.dates import dated, now_s

# gc takes a shard for an orphan, one that no commit will ever name, after this long by the store's clock
KEEP_S = 7 * 86400.0
# so nobody commits an older one; the other half is for clocks that differ, and for late requests
MAX_AGE_S = KEEP_S / 2

MAX_STANDING_S = KEEP_S * 6 / 7  # by the store's clock, which gc goes by, too: a day is left for the commit


@dataclass(frozen=True)
class PutShard:
    """A shard that stands in the store, and when its PUT began (seconds of ``CLOCK_BOOTTIME``, which runs on in sleep).
    """

    record: ShardRecord
    put_at: float

    @property
    def name(self) -> str:
        return f"{self.record.sid}.tar"


def temporary_path(store: Store, sid: str) -> str:
    """Return where a shard is written: beside its place if that is local (a rename then publishes it), else where
    temporary files go.
    """
    if not store.is_local:
        return os.path.join(tempfile.gettempdir(), f"shardstream-{sid}.tar")
    os.makedirs(store.url, exist_ok=True)
    return os.path.join(store.url, f".{sid}.tar.tmp")


def put_shard(store: Store, shard: FinishedShard) -> PutShard:
    """Put a shard under its name and take the local file away."""
    begin = time.clock_gettime(time.CLOCK_BOOTTIME)
    store.put_file(f"{shard.sid}.tar", shard.path)
    if os.path.exists(shard.path):
        os.unlink(shard.path)
    return PutShard(ShardRecord(sid=shard.sid, num_samples=shard.num_samples, nbytes=shard.nbytes, index_offset=shard.index_offset,
                                index_nbytes=shard.index_nbytes, index_crc32c=shard.index_crc32c), begin)  # fmt: skip


def check_age(shards: Iterable[PutShard]) -> None:
    """Raise :class:`StorageError` if gc may soon take one of these shards for an orphan, so that it must not be
    committed.
    """
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    for shard in shards:
        if now - shard.put_at > MAX_AGE_S:
            raise StorageError(
                f"{shard.name} was put {(now - shard.put_at) / 3600:.0f} hours ago, and after {MAX_AGE_S / 3600:.0f} it is not "
                "committed any more, since gc may take it; nothing was committed: write it again, or give max_latency=."
            )


def check_present(store: Store, records: Iterable[ShardRecord], noted_s: float = 0.0) -> None:
    """Raise :class:`StorageError` if a shard that another process put is missing, or so old that gc may be about to
    take it.

    For shards whose writer may be long gone; costs a listing of the dataset. ``noted_s`` is when, by the store's clock,
    a journal that names them was last written: until then gc has left them alone.
    """
    there, limit_s = {each.name: each.modified_s for each in dated(store)}, now_s(store) - MAX_STANDING_S
    for record in records:
        modified_s = there.get(f"{record.sid}.tar")
        if modified_s is None or max(modified_s, noted_s) < limit_s:
            what = "is missing" if modified_s is None else f"was put more than {MAX_STANDING_S / 86400:.0f} days ago"
            raise StorageError(f"{store.join(record.sid)}.tar {what}: gc deletes what nobody commits within {KEEP_S / 86400:.0f} "
                               "days. Nothing was committed; it must be written again.")  # fmt: skip
