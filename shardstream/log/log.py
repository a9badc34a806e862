"""A dataset's log in a store: opening it, and appending to it by the commit rule.

Safe for any number of processes and hosts on one dataset, without a coordinator; one ``Log`` may be
shared by threads. What readers see is :class:`Snapshot`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from datetime import datetime
from typing import Any

from shardstream.errors import ChecksumError, Conflict, DatasetError, StorageError, StorageRefused
from shardstream.log import entries, proposals, travel
from shardstream.log.commit import Get, Outcome, Propose, Put, commit, create
from shardstream.log.entries import Entry, ShardRecord
from shardstream.log.feed import EntryFeed
from shardstream.log.ids import new_id
from shardstream.log.opening import HINT_EXPIRED, MAX_READ_NBYTES, Head, Opening, beside
from shardstream.log.proposals import UNCHANGED
from shardstream.log.snapshot import Snapshot
from shardstream.log.state import State
from shardstream.schema import Schema
from shardstream.storage.retry import backoff_s
from shardstream.storage.store import Store


class Log:
    """The log of the dataset in ``store``.

    Args:
        store: The dataset's folder or prefix.
        single_writer: Accept a store that ignores conditional PUTs; the caller vouches that no
            other writer is at work.
    """

    def __init__(self, store: Store, single_writer: bool = False):
        self.store = store
        self.single_writer = single_writer
        self._head: Head | None = None
        self._unsettled: _Commit | None = None
        self._conditional_puts_work = store.is_local or single_writer
        self._lock = threading.RLock()

    def __getstate__(self) -> dict:
        return {"store": self.store, "single_writer": self.single_writer}

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)

    # -- reading -----------------------------------------------------------------------------

    def exists(self) -> bool:
        """Return whether there is a dataset: one request."""
        return self.store.read_many([entries.name(0)], 1) != [None]

    def snapshot(self, version: int | str | datetime | None = None) -> Snapshot:
        """Return the newest version, or exactly ``version``: a number, a tag or a time (:func:`travel.canonical`).

        At most 14 requests in 2 rounds for a log of any length, 5 in one round for one of up to two
        entries; more when the hint or a fold is lost. A number costs 8 in one round.

        Raises:
            DatasetNotFoundError: no dataset here, no such version or tag, or it has expired.
            DatasetError: the log is malformed, or of a newer format.
            ConfigError: ``version`` is not a version, or a time that is still to come.
        """
        opening = Opening(self._read_many, self.store.url)
        if version is None:
            head = opening.newest()
        else:
            wanted = travel.canonical(version)
            head = opening.at(wanted) if isinstance(wanted, int) else opening.named(wanted)
        return Snapshot.of(head.state, self.store.url)

    def entry(self, version: int) -> Entry | None:
        """Return one entry, None while it does not stand yet: one request. What followers poll."""
        (data,) = self._read_many([entries.name(version)])
        return None if data is None else entries.decode(data, version)

    def entries(self, versions: Sequence[int]) -> list[Entry]:
        """Return several entries that stand, in one round of requests."""
        found = self._read_many([entries.name(version) for version in versions])
        return [entries.decode(data or b"", version) for data, version in zip(found, versions, strict=True)]

    def newest_at(self, holds: Callable[[Entry], bool]) -> int:
        """Return the last version whose entry a condition holds of; it holds of early entries and, once not, never
        again.

        The entries are read in rounds of 16, some four rounds for a log of 100,000; 0 if it holds of none.
        """
        opening = Opening(self._read_many, self.store.url)
        return opening.last_version(opening.newest().state, lambda versions: [holds(opening.entry(each)) for each in versions])

    def feed(self, dataset: str, version: int) -> EntryFeed:
        """Return a reader of the entries above ``version`` of this log, which is of ``dataset``."""
        return EntryFeed(self._read_many, dataset, version)

    def _read_many(self, names: Sequence[str]) -> list[bytes | None]:
        try:
            return self.store.read_many(names, MAX_READ_NBYTES, _verify)
        except ChecksumError as error:
            raise DatasetError(f"{self.store.url}: {error.message}") from error

    # -- writing -----------------------------------------------------------------------------

    def create(self, schema: Schema | None) -> Snapshot:
        """Begin a dataset with entry 0; :class:`Conflict` if one stands here."""
        if self.exists():
            raise Conflict(f"there is a dataset at {self.store.url} already.")
        return self._created(schema, own=True)

    def open_or_create(self, schema: Schema | None) -> Snapshot:
        """Return the dataset here, begun now if there is none; of racing creators one wins.

        Raises:
            SchemaError: the dataset has another schema, which ``schema`` does not extend.
        """
        if not self.exists():
            return self._created(schema, own=False)
        with self._lock:
            state = self._newest().state
        proposals.same_schema(state, schema, self.store.url)
        return Snapshot.of(state, self.store.url)

    def _created(self, schema: Schema | None, own: bool) -> Snapshot:
        entry = proposals.first(schema)
        with self._lock:
            head = self._head = self._drive(_Commit(("create", entry.commit), create(entry)))
            if head.state.dataset != entry.dataset:
                if own:
                    raise Conflict(f"another writer created a dataset at {self.store.url} at the same time.")
                head = self._newest()
        proposals.same_schema(head.state, schema, self.store.url)
        return Snapshot.of(head.state, self.store.url)

    def claim(self, producer: str) -> tuple[str, Any]:
        """Become the one instance of ``producer``; older ones are fenced at their next commit.

        Returns:
            ``(incarnation, last_source)``: what to give :meth:`append`, and the ``source`` of the
            producer's newest commit, None if there is none. Exact, since it is read after the claim.
        """
        incarnation = new_id()
        state = self._commit(("claim", incarnation), proposals.claim(producer, incarnation))
        return incarnation, state.producers[producer].source

    def append(self, records: Sequence[ShardRecord], *, producer: str | None = None, incarnation: str | None = None,
               source: Any = None, schema: Schema | None = UNCHANGED) -> int:  # fmt: skip
        """Add shards that stand in the store; returns the version that has them.

        Args:
            records: The shards, in the order readers see them.
            producer: With ``incarnation``, from :meth:`claim`.
            source: Where the producer's input stands after these shards: any JSON value up to 1 kB.
            schema: What the shards were written under: the dataset's, or one that adds fields with
                a default, which then becomes the dataset's. Left out, it is not looked at.

        Raises:
            ProducerFenced: a newer instance has claimed the producer; nothing was committed.
            Conflict: the dataset was ended, or its schema has changed; nothing was committed.
            SchemaError: ``schema`` is not one the dataset's can become; nothing was committed.
            StorageError: not known whether it was committed. Calling again with the same records and source
                finds out, and commits once; another commit by this Log settles it first.
        """
        propose = proposals.append(records, producer, incarnation, source, schema)
        key = ("append", producer, repr(source), *(record.sid for record in records))
        return self._commit(key, propose).version

    def replace(self, remove: Sequence[str], records: Sequence[ShardRecord]) -> int:
        """Put shards in the place of live ones; returns the version. :class:`Conflict` if one is not live."""
        key = ("replace", *remove, *(record.sid for record in records))
        return self._commit(key, proposals.replace(remove, records)).version

    def tag(self, name: str, version: int | None) -> int:
        """Name a version (None takes the name away); returns the version that says so."""
        return self._commit(("tag", name, version), proposals.tag(name, version)).version

    def expire(self, below: int) -> int:
        """Give up the untagged versions below ``below``; returns the version that says so."""
        return self._commit(("expire", below), proposals.expire(below)).version

    def put_expired_hint(self, version: int) -> None:
        """Let readers of versions by number know which ``expire`` entry is the newest; before anything is deleted."""
        self.store.put_bytes(HINT_EXPIRED, b"%d" % version)

    def end(self) -> int:
        """Say that nothing more will be added; returns the version that says so."""
        return self._commit(("end",), proposals.end()).version

    # -- inside ------------------------------------------------------------------------------

    def _newest(self) -> Head:
        """Return the newest head, which becomes where the next commit starts."""
        opening = Opening(self._read_many, self.store.url)
        self._head = opening.newest() if self._head is None else opening.follow(self._head)
        return self._head

    def _commit(self, key: tuple, propose: Propose) -> State:
        """Append one entry; ``key`` says what is committed, to know it again after an unknown outcome."""
        with self._lock:
            unsettled = self._unsettled
            if unsettled is not None:
                try:
                    self._head = self._drive(unsettled)
                except Conflict:
                    if unsettled.key == key:
                        raise
                if unsettled.key == key:
                    return self._head.state
            head = self._newest() if self._head is None else self._head
            self._head = self._drive(_Commit(key, commit(head, propose)))
            return self._head.state

    def _drive(self, task: _Commit) -> Head:
        """Do what a commit generator asks for until it returns; an unknown outcome is kept, to go on later."""
        if task.request is not None and task.steps.gi_frame is None:
            raise StorageError(f"a commit to {self.store.url} was interrupted half-way; open the dataset "
                               "again to go on.")  # fmt: skip
        self._unsettled = task
        begin, num_again = time.monotonic(), 0
        try:
            if task.request is None:
                task.request = next(task.steps)
            while True:
                if isinstance(task.request, Put) and task.request.again:
                    num_again += 1
                    self._wait(task, begin, num_again)
                task.request = task.steps.send(self._answer(task))
        except StopIteration as finished:
            head, task.may_stand = finished.value, False
        finally:
            # What an error or Ctrl-C cut off while a PUT may be under way stays unsettled; what never
            # was sent, or was refused, does not.
            if not task.may_stand:
                self._unsettled = None
        self._put_folds(head)
        self._prove(task.put)
        return head

    def _answer(self, task: _Commit) -> Outcome | bytes | None:
        """Carry out one request of a commit."""
        name = entries.name(task.request.version)
        if isinstance(task.request, Get):
            (found,) = self._read_many([name])
            task.may_stand = task.may_stand and found is None  # where an entry stands, the generator sees whose
            return found
        task.put = task.request
        could_stand, task.may_stand = task.may_stand, True
        try:
            created = self.store.put_if_absent(name, task.request.data)
        except StorageRefused as error:
            task.may_stand = could_stand
            if could_stand:
                raise StorageError(f"{self.store.join(name)}: an earlier try may still create "
                                   f"it, but now: {error}") from error  # fmt: skip
            raise
        except StorageError as error:
            task.error = error
            return Outcome.UNKNOWN
        return Outcome.CREATED if created else Outcome.EXISTS  # what exists may be our own, from a late request

    def _wait(self, task: _Commit, begin: float, num_again: int) -> None:
        policy = self.store.retry
        wait_s = backoff_s(policy, num_again)
        if num_again >= policy.max_attempts or time.monotonic() - begin + wait_s > policy.deadline_s:
            raise StorageError(
                f"{self.store.join(entries.name(task.request.version))} could not be written in {num_again} tries and "
                f"is absent so far, but a late request may still create it; commit again to find out. Last: {task.error}"
            ) from task.error
        time.sleep(wait_s)

    def _put_folds(self, head: Head) -> None:
        """Put the fold that ends at this entry, if one does, and then the hints to it."""
        try:
            for name, data in beside(head):
                self.store.put_bytes(name, data, durable=False)
        except StorageError:
            pass  # the commit stands; a lost fold or hint costs its readers some requests

    def _prove(self, put: Put) -> None:
        """Repeat this Log's first commit: a store that does not refuse it ignores the condition of conditional PUTs."""
        if self._conditional_puts_work:
            return
        try:
            ignored = self.store.put_if_absent(entries.name(put.version), put.data)
        except StorageError:
            return  # says nothing; the next commit asks again
        if ignored:
            raise StorageRefused(
                f"{self.store.url} ignores conditional PUTs (If-None-Match: *), so writers could overwrite each other's "
                f"commits; this one stands, as entry {put.version}. Use a store that honours them, as AWS S3, Ceph and "
                "MinIO do, or make sure that there is one writer and give single_writer=True."
            )
        self._conditional_puts_work = True


def _verify(name: str, data: bytes) -> None:
    """Raise :class:`ChecksumError` on an entry spoilt on its way; folds and hints are checked by who uses them."""
    if name.endswith(".json") and not entries.is_whole(data) and not entries.is_newer(data):
        raise ChecksumError(f"{name} does not match the checksum at its end.")


class _Commit:
    """A commit under way: what is committed, its generator, and the request it waits for."""

    def __init__(self, key: tuple, steps: Generator):
        self.key = key
        self.steps = steps
        self.request: Put | Get | None = None
        self.put: Put | None = None  # the last one sent
        self.may_stand = False  # a PUT was sent whose outcome is not known
        self.error: StorageError | None = None
