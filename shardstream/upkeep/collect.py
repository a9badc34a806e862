"""What a dataset no longer needs (``gc``): shards of versions given up, shards never committed, files of dead writers.

What is kept: the newest version, all that were the newest at some time in the last ``keep``, and those with a tag.
First an ``expire`` entry says which versions are given up; only then is anything deleted. Whatever kills it in between,
the log is right, and the next run deletes the rest.

A shard that no entry names may belong to a writer that is about to commit it. So it counts as an orphan only when it is
older than ``orphans`` by the store's own clock, and no writer commits a shard that it put more than 3.5 days ago. A
packing job commits all of its shards at its end; those that its journal names stay as long as it comes on.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import msgspec

from shardstream.config import parse_seconds
from shardstream.errors import DatasetError, ShardstreamError
from shardstream.log import Log, ShardTable, Snapshot, entries
from shardstream.log.table import sid_bytes
from shardstream.progress import byte_bar
from shardstream.storage import Store
from shardstream.storage.dates import Dated, dated, modified_s, now_s
from shardstream.storage.local import TEMPORARY
from shardstream.storage.urls import redact

OBJECT = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\.tar|\.index\.json)\Z")
UNFINISHED = re.compile(rf"{re.escape(TEMPORARY)}.*|\.[0-9a-f-]{{36}}\.tar\.tmp\Z")
PARALLEL_DELETES = 16
JOURNAL, ELSEWHERE = "_pack", "_pack/elsewhere.json"  # of a packing job (packing/journal.py)
SID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass
class Collected:
    """What :func:`gc` deleted, or with ``dry_run`` would delete.

    Attributes:
        dry_run: Whether nothing was changed.
        version: The ``expire`` entry it wrote, None if no more versions were given up.
        below: Versions below this have expired, except ``kept``.
        kept: Those of them that have tags.
        num_shards, nbytes_shards: Shards that only versions given up have.
        num_orphans, nbytes_orphans: Shards that were never committed.
        num_unfinished, nbytes_unfinished: Files that killed writers left on local disk.
        num_uploads: Uploads in parts that were never completed (S3).
        names: All these objects, relative to the dataset.
    """

    dry_run: bool
    version: int | None = None
    below: int = 0
    kept: tuple[int, ...] = ()
    num_shards: int = 0
    nbytes_shards: int = 0
    num_orphans: int = 0
    nbytes_orphans: int = 0
    num_unfinished: int = 0
    nbytes_unfinished: int = 0
    num_uploads: int = 0
    names: list[str] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Bytes of all these objects."""
        return self.nbytes_shards + self.nbytes_orphans + self.nbytes_unfinished


def gc(url: str, keep: float | str = "7d", dry_run: bool = True, orphans: float | str = "7d",
       storage_options: dict | None = None) -> Collected:  # fmt: skip
    """Delete what no version that is kept needs; with ``dry_run``, the default, only say what that is.

    Writers, readers and other upkeep may go on meanwhile; a reader of a version that is given up fails with an error
    that says so. The log itself stays whole, and shards that were adopted (``index --to``) are never touched.

    Args:
        keep: How long a version stays after another one became the newest, such as ``"7d"``.
        orphans: Age from which uncommitted shards and unfinished files are deleted. Below the default of a week only if
            no writer is at work: it would lose what it has put and not committed yet.

    Raises:
        DatasetNotFoundError: There is no dataset at ``url``.

    Example:
        >>> ss.upkeep.gc("s3://bucket/words", keep="30d", dry_run=False).nbytes
    """
    keep_s, orphans_s = parse_seconds(keep, "keep"), parse_seconds(orphans, "orphans")
    store = Store(url, storage_options)
    log = Log(store)
    snapshot = log.snapshot()
    found, now = Collected(dry_run), now_s(store)
    found.below = max(snapshot.expired_below, _newest_at(log, now - keep_s))
    found.kept = _tagged_below(snapshot, found.below)
    if (found.below, found.kept) != (snapshot.expired_below, snapshot.kept) and not dry_run:
        found.version = log.expire(found.below)
        snapshot = log.snapshot()  # a tag may have come or gone meanwhile
        found.below, found.kept = snapshot.expired_below, snapshot.kept
    before_s = now - orphans_s
    noted = _noted(store, before_s)  # before the log: a job lets go of its journal when the log has its shards
    history = _History(log, snapshot.dataset_id)
    objects, beside = dated(store), dated(store, entries.FOLDER)
    shards, lost = _unneeded(history, found, objects, before_s, noted)
    unfinished = [each for each in objects if UNFINISHED.match(each.name) and each.modified_s < before_s]
    unfinished += [Dated(f"{entries.FOLDER}/{each.name}", each.nbytes, each.modified_s) for each in beside
                   if UNFINISHED.match(each.name) and each.modified_s < before_s]  # fmt: skip
    found.num_shards, found.nbytes_shards = _sums(shards)
    found.num_orphans, found.nbytes_orphans = _sums(lost)
    found.num_unfinished, found.nbytes_unfinished = len(unfinished), sum(each.nbytes for each in unfinished)
    going = shards + lost + unfinished
    found.names = [each.name for each in going]
    if not dry_run:
        if history.newest_expiry:
            log.put_expired_hint(history.newest_expiry)
        _delete(store, going)
    found.num_uploads = store.abort_uploads(orphans_s, dry_run)
    return found


def _newest_at(log: Log, time_s: float) -> int:
    """Return the version that was the newest at a time, by the entries' own times and also by the store's clock.

    The entries' are of their writers' clocks, one of which may have been slow.
    """
    version = log.newest_at(lambda entry: entry.time <= time_s)
    if version and modified_s(log.store, entries.name(version)) > time_s:
        version = log.newest_at(lambda entry: entry.time <= time_s and modified_s(log.store, entries.name(entry.version)) <= time_s)
    return version


def _tagged_below(snapshot: Snapshot, below: int) -> tuple[int, ...]:
    return tuple(sorted({version for version in snapshot.tags.values() if version < below}))


class _History:
    """What happened to every shard that was ever committed: 50 bytes each, and 200 for one that was replaced."""

    def __init__(self, log: Log, dataset: str):
        feed, added = log.feed(dataset, 0), []
        self.removed: dict[str, int] = {}  # sid to the entry that took it out
        self.newest_expiry = 0
        while steps := feed.read():
            for step in steps:
                added.append(step.added)
                self.removed.update((sid, step.entry.version) for sid in step.entry.remove)
                if step.entry.kind == "expire":
                    self.newest_expiry = step.entry.version
        self._added = ShardTable.concatenate(added)
        # URLs, which may be of the dataset's own folder
        self.adopted = {self._added.adopted[row] for row in self._added.adopted}

    def added(self, sids: list[str]) -> list[int]:
        """Return the entry that added each of some shards, -1 for one that none did."""
        rows = self._added.rows_of(sid_bytes(sids)) if sids else []
        return [int(self._added.entry[row]) if row >= 0 else -1 for row in rows]


class _Elsewhere(msgspec.Struct):
    """``ELSEWHERE``: the URL of the dataset whose journal counts here, too."""

    journal: str


def _noted(store: Store, before_s: float) -> set[str]:
    """Return the shards that packing jobs at work have noted.

    A journal is beside the first of a job's datasets, and the others say where; what one job left may stand beside
    another's journal.
    """
    noted, path = _noted_in(store, before_s), store.join(ELSEWHERE)
    elsewhere = store.read_many([ELSEWHERE])[0]
    if elsewhere is None:
        return noted
    try:
        url = msgspec.json.decode(elsewhere, type=_Elsewhere).journal
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(f"{path} does not say where the journal of a packing job is. If none is under way, delete that "
                           "file and run gc again.") from error  # fmt: skip
    try:
        return noted | _noted_in(Store(url, store.storage_options), before_s)
    except ShardstreamError as error:
        raise type(error)(f"{path} says that the journal of a packing job, whose shards gc must spare, is at {redact(url)}, but that can't be "
                          f"read. If there is no such job any more, delete that file and run gc again. ({error})") from error  # fmt: skip


def _noted_in(store: Store, before_s: float) -> set[str]:
    """Return the shards that the journal in ``store`` names, if it has noted one since; whatever its format, it has their sids."""
    steps = dated(store, JOURNAL)
    if max((step.modified_s for step in steps), default=before_s) <= before_s:
        return set()
    found = store.read_many([f"{JOURNAL}/{step.name}" for step in steps])
    return {sid.decode() for data in found if data is not None for sid in SID.findall(data)}


def _unneeded(history: _History, found: Collected, objects: list[Dated], before_s: float,
              noted: set[str]) -> tuple[list[Dated], list[Dated]]:  # fmt: skip
    """Return the objects of shards that only expired versions have, and those of shards never committed, noted or
    young.
    """
    ours = [(match[1], each) for each in objects if (match := OBJECT.match(each.name)) and each.name not in history.adopted]
    unneeded, lost = [], []
    for (sid, each), added in zip(ours, history.added([sid for sid, _ in ours]), strict=True):
        removed = history.removed.get(sid)
        if added < 0:
            if each.modified_s < before_s and sid not in noted:
                lost.append(each)
        elif removed is not None and removed <= found.below and not any(added <= version < removed for version in found.kept):
            unneeded.append(each)
    return unneeded, lost


def _sums(objects: list[Dated]) -> tuple[int, int]:
    """Return how many shards some objects belong to, and their bytes."""
    return len({each.name.partition(".")[0] for each in objects}), sum(each.nbytes for each in objects)


def _delete(store: Store, objects: list[Dated]) -> None:
    def delete(each: Dated) -> int:
        store.delete([each.name])
        return each.nbytes

    with byte_bar("collecting", sum(each.nbytes for each in objects)) as advance, ThreadPoolExecutor(PARALLEL_DELETES) as pool:
        for nbytes in pool.map(delete, objects):
            advance(nbytes)
