"""The same samples in fewer, larger shards (``compact``), and samples taken out (``drop``).

Both write new shards and commit them by a ``replace`` entry that takes the old ones out. Samples keep their ids; older
versions keep their shards until gc gives them up; followers pass over such entries. Killed anywhere, they leave the
dataset as it was or as it was to be; shards that were put and not committed are for gc.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from shardstream.config import parse_nbytes
from shardstream.errors import ConfigError, Conflict, ShardNotFoundError
from shardstream.log import Log, Snapshot
from shardstream.log.table import sid_bytes
from shardstream.progress import byte_bar
from shardstream.publish import check_age
from shardstream.reader import BlockReader
from shardstream.source import source_of_snapshot
from shardstream.storage import Fetcher, Store
from shardstream.upkeep.ids import parsed, runs_of
from shardstream.upkeep.rewrite import Rewriter, read_ahead

MAX_CONFLICTS = 100


@dataclass
class Compacted:
    """What :func:`compact` or :func:`drop` did.

    Attributes:
        version: The newest version they committed, None if there was nothing to do.
        num_shards_removed, num_shards_added, nbytes_removed, nbytes_added: Of live shards and their tars.
        num_samples_dropped: Samples that are no longer in the dataset.
        num_conflicts: How often another writer had replaced a shard first, and the work on it began again.
    """

    version: int | None = None
    num_shards_removed: int = 0
    num_shards_added: int = 0
    nbytes_removed: int = 0
    nbytes_added: int = 0
    num_samples_dropped: int = 0
    num_conflicts: int = 0


def compact(url: str, shard_nbytes: int | str = "64MB", storage_options: dict | None = None) -> Compacted:
    """Merge the shards that are smaller than half of ``shard_nbytes`` into shards of about that size.

    Each merged shard is a commit of its own, so what a kill leaves done stays done. The merged samples stand at the end
    of the log's order, in the order they had. Adopted shards stay as they are. Memory: some blocks; disk: one shard.
    Another process may append, compact or collect at the same time; a shard that it replaced first is planned anew.

    Raises:
        DatasetNotFoundError: There is no dataset at ``url``.
        ShardError: A shard is damaged; nothing that is built on it was committed.

    Example:
        >>> ss.upkeep.compact("s3://bucket/events").num_shards_removed
    """
    target_nbytes, job, done = parse_nbytes(shard_nbytes, "shard_nbytes"), _Job(url, storage_options), Compacted()

    def merge(snapshot: Snapshot) -> None:
        small = [row for row in range(len(snapshot.shards)) if _is_small(snapshot, row, target_nbytes)]
        if len(small) < 2:
            return
        total_nbytes = int(snapshot.shards.nbytes[small].sum())
        with job.rewriter(snapshot, target_nbytes) as rewriter, byte_bar("compacting", total_nbytes) as advance:
            merged: list[int] = []
            for row, number, block in read_ahead(rewriter.reader, small):
                if not rewriter.add(row, number, block):
                    continue
                merged.append(row)
                advance(int(snapshot.shards.nbytes[row]))
                if rewriter.nbytes >= target_nbytes and len(merged) > 1:
                    job.replace(snapshot, merged, rewriter, done)
                    merged = []
            if len(merged) > 1:
                job.replace(snapshot, merged, rewriter, done)

    job.until_undisturbed(merge, done)
    return done


def drop(url: str, ids: Iterable[str], shard_nbytes: int | str = "64MB",
         storage_options: dict | None = None) -> Compacted:  # fmt: skip
    """Take samples out of the dataset, by one commit: the shards that hold them are written again without them.

    Older versions still have them, until :func:`gc` has given those up. Ids are those of :func:`ids`. An id whose shard
    was merged is looked for in the indexes of all shards: a request each.

    Raises:
        ConfigError: Something is no id, or no sample of the newest version has it; nothing was dropped.

    Example:
        >>> ss.upkeep.drop("reviews", ["01890a5d-ac96-774b-bcce-b302099a8057:17"]).num_samples_dropped
        1
    """
    wanted, target_nbytes = parsed(ids), parse_nbytes(shard_nbytes, "shard_nbytes")
    job, done = _Job(url, storage_options), Compacted()
    if not wanted:
        return done

    def rewrite(snapshot: Snapshot) -> None:
        with job.rewriter(snapshot, target_nbytes) as rewriter:
            found = _located(snapshot, rewriter.reader, wanted)
            shards = sorted(found)
            with byte_bar("dropping", int(snapshot.shards.nbytes[shards].sum())) as advance:
                for row, number, block in read_ahead(rewriter.reader, shards):
                    if rewriter.add(row, number, block, found[row]):
                        advance(int(snapshot.shards.nbytes[row]))
            job.replace(snapshot, shards, rewriter, done)
            done.num_samples_dropped = sum(len(rows) for rows in found.values())

    job.until_undisturbed(rewrite, done)
    return done


def _is_small(snapshot: Snapshot, row: int, target_nbytes: int) -> bool:
    return 2 * int(snapshot.shards.nbytes[row]) < target_nbytes and row not in snapshot.shards.adopted


def _located(snapshot: Snapshot, reader: BlockReader, wanted: dict[str, set[int]]) -> dict[int, np.ndarray]:
    """Return the ascending rows to drop of each shard that holds some of the ``wanted``."""
    table, sids = snapshot.shards, list(wanted)
    left = {sid: set(rows) for sid, rows in wanted.items()}
    found: dict[int, np.ndarray] = {}
    direct = [int(row) for row in table.rows_of(sid_bytes(sids)) if row >= 0]
    others = np.setdiff1d(np.arange(len(table)), direct).tolist()
    for position, shard in enumerate([*direct, *others]):
        if position >= len(direct) and not any(left.values()):
            break
        rows, at = [], 0
        for sid, first, count in runs_of(reader.source, shard, reader.index(shard)[0]):
            here = [row for row in left.get(sid, ()) if first <= row < first + count]
            rows += [at + row - first for row in here]
            left.get(sid, set()).difference_update(here)
            at += count
        if rows:
            found[shard] = np.array(sorted(rows), np.int64)
    missing = [f"{sid}:{row}" for sid, rows in left.items() for row in sorted(rows)]
    if missing:
        raise ConfigError(f"no sample of version {snapshot.version} has the id {missing[0]}" + (
            f" (nor have {len(missing) - 1} others of those given)" if len(missing) > 1 else "") + "; nothing was dropped.")  # fmt: skip
    return found


class _Job:
    """A dataset whose shards are being replaced."""

    def __init__(self, url: str, storage_options: dict | None):
        self._store = Store(url, storage_options)
        self._log = Log(self._store)
        self._fetcher = Fetcher(storage_options)

    def rewriter(self, snapshot: Snapshot, shard_nbytes: int) -> Rewriter:
        return Rewriter(self._store, BlockReader(source_of_snapshot(snapshot), None, self._fetcher), shard_nbytes)

    def replace(self, snapshot: Snapshot, rows: Sequence[int], rewriter: Rewriter, done: Compacted) -> None:
        """Commit the rewriter's shards in the place of live ones; :class:`Conflict` if one of those is not live any
        more.
        """
        rewriter.finish()
        check_age(rewriter.shards)
        records = [shard.record for shard in rewriter.shards]
        try:
            done.version = self._log.replace([snapshot.shards.sid(row) for row in rows], records)
        except Conflict:
            raise
        except BaseException:  # perhaps it stands, so its shards must, too
            rewriter.taken()
            raise
        rewriter.taken()
        done.num_shards_removed += len(rows)
        done.num_shards_added += len(records)
        done.nbytes_removed += int(snapshot.shards.nbytes[list(rows)].sum())
        done.nbytes_added += sum(record.nbytes for record in records)

    def until_undisturbed(self, work, done: Compacted) -> None:
        """Do ``work(newest snapshot)``, again if another process replaced, or even deleted, a shard of it first."""
        while True:
            snapshot = self._log.snapshot()
            try:
                return work(snapshot)
            except (Conflict, ShardNotFoundError) as error:
                done.num_conflicts += 1
                is_live = isinstance(error, ShardNotFoundError) and not self._has_replaced(snapshot)
                if is_live or done.num_conflicts > MAX_CONFLICTS:
                    raise

    def _has_replaced(self, snapshot: Snapshot) -> bool:
        """Tell whether a shard of an older snapshot is not live any more."""
        return bool((self._log.snapshot().shards.rows_of(snapshot.shards.sids) < 0).any())

