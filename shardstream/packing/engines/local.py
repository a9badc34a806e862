"""The cores of this machine: parts made by processes, shards written by this one.

Workers are forked, so a step may be any function, also one that does not pickle, and they start in
milliseconds. They leave when the job's process is gone, however it went.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any

from shardstream.errors import Conflict, StorageError, WorkerError
from shardstream.log import ShardRecord, new_id
from shardstream.packing import threads
from shardstream.packing.config import Settings
from shardstream.packing.engines import Task
from shardstream.packing.journal import FOLDER
from shardstream.packing.make import Job, Made, make
from shardstream.shardfile import EncodedBlock, ShardFile
from shardstream.storage import Store
from shardstream.storage.local import TEMPORARY

AHEAD = 2  # parts a worker that are made before they are asked for
UPLOADS = 4  # shards that are put at a time
SMALL_NBYTES = 2 << 20  # inputs below this are made here: starting processes would take longer


class LocalSettings(Settings):
    """The keys of ``engine`` with ``kind: local``."""

    workers: int | None = None


class LocalEngine:
    """Makes parts in ``workers`` processes, by default one a core; one worker, or one part, is this process."""

    def __init__(self, job: Job, settings: LocalSettings, several: bool):
        self._job = job
        workers = settings.workers
        if workers is not None and not 1 <= workers <= 4096:
            raise job.document.error(("engine", "workers"), f"must be from 1 to 4096, not {workers}.")
        if workers is None:
            small = job.source.nbytes is not None and job.source.nbytes < SMALL_NBYTES
            workers = 1 if small else threads.num_cores()
        self._num_workers = workers if several else 1
        self._pool: ProcessPoolExecutor | None = None
        self._dismissed: list[BaseProcess] = []
        self._uploads = ThreadPoolExecutor(UPLOADS, thread_name_prefix="shardstream-upload")
        options = job.top.output.storage_options or None
        self._stores = {split: Store(url, options) for split, url in job.urls.items()}

    def __enter__(self) -> LocalEngine:
        if self._num_workers > 1:
            self._pool = ProcessPoolExecutor(
                self._num_workers, get_context("fork"), initializer=_begin, initargs=(self._job, os.getpid())
            )
            # Now, before this process has threads of its own: a fork keeps the locks that others hold.
            self._pool.submit(os.getpid).result()
        return self

    def __exit__(self, *error) -> None:
        self._dismiss()
        for process in self._dismissed if error[0] is not None else ():
            process.terminate()  # what it makes is of no use any more
        for process in self._dismissed:
            process.join()
        self._uploads.shutdown()

    def _dismiss(self) -> None:
        """Tell the processes that there is no more to do; they end while this one goes on."""
        if self._pool is not None:
            self._dismissed = list(self._pool._processes.values())
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def made(self, tasks: Iterator[Task]) -> Iterator[tuple[int, Made]]:
        if self._pool is None:
            for number, part, wanted in tasks:
                yield number, make(self._job, number, part, wanted)
            return
        waiting: deque[tuple[int, Future]] = deque()
        try:
            for number, part, wanted in tasks:
                waiting.append((number, self._pool.submit(_make, number, part, wanted)))
                if len(waiting) > AHEAD * self._num_workers:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                made = future.result()
                if not waiting:
                    self._dismiss()
                yield first, made
        except BrokenProcessPool as error:
            raise WorkerError(
                "a worker process was killed, perhaps because memory ran out: run the job again to go on where it "
                "stopped, with fewer workers (engine: {kind: local, workers: N}) if it was memory."
            ) from error

    def new_shard(self, split: str) -> LocalShard:
        return LocalShard(self._job, self._stores[split], self._uploads)


class LocalShard:
    """A shard in a local file, put into the store by a thread."""

    def __init__(self, job: Job, store: Store, uploads: ThreadPoolExecutor):
        self._store, self._uploads = store, uploads
        self._file = shard_file(job, store)

    def append(self, block: EncodedBlock) -> None:
        with _as_storage_error():
            self._file.append(block)

    def finish(self) -> Future:
        return self._uploads.submit(put_shard, self._store, self._file)

    def discard(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # another run of the job has cleaned up here
            self._file.discard()


def shard_file(job: Job, store: Store) -> ShardFile:
    """Return a new shard in a local file, from which :func:`put_shard` brings it into the store."""
    sid, folder = new_id(), tempfile.gettempdir()
    with _as_storage_error():
        if store.is_local:  # a rename then publishes it
            folder = store.join(FOLDER)
            os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, f"shardstream-{sid}.tar")
        return ShardFile(path, sid, job.schema, job.top.output.compression)


def put_shard(store: Store, file: ShardFile) -> ShardRecord:
    """Finish a shard's file and move or send it to the store; returns its record."""
    with _as_storage_error():
        done = file.finish()
    try:
        store.put_file(f"{done.sid}.tar", done.path)
    except FileNotFoundError as error:
        raise Conflict(f"another run of this job is at work: it has deleted {done.path}.") from error
    if os.path.exists(done.path):
        os.unlink(done.path)
    return ShardRecord(sid=done.sid, num_samples=done.num_samples, nbytes=done.nbytes, index_offset=done.index_offset,
                       index_nbytes=done.index_nbytes, index_crc32c=done.index_crc32c)  # fmt: skip


class _as_storage_error:
    """Raises a full disk, and what else a local file can fail with, as StorageError."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, traceback) -> None:
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            raise StorageError(f"writing a shard failed: {error}.") from error


def clean(store: Store) -> None:
    """Delete what a killed run has left of unfinished shards beside a local dataset, and its folder if that is empty.
    """
    if not store.is_local or not os.path.isdir(folder := store.join(FOLDER)):
        return
    for name in os.listdir(folder):
        if name.startswith(("shardstream-", TEMPORARY)):
            os.unlink(os.path.join(folder, name))
    try:
        os.rmdir(folder)
    except OSError:
        pass  # a journal stands in it


# -- in a worker ------------------------------------------------------------------------------------

_job: Job | None = None


def _begin(job: Job, parent_pid: int) -> None:
    """Be a worker of ``job`` until the pool ends or the process that made it is gone."""
    global _job
    _job = job
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threads.limit(1)
    gc.freeze()  # what was there before the fork is no garbage, and looking at it would copy its pages
    threading.Thread(target=_leave_with, args=(os.pidfd_open(parent_pid),), daemon=True).start()


def _leave_with(parent: int) -> None:
    # Siblings hold the other end of the pool's pipe, so its closing tells a worker nothing.
    poller = select.poll()
    poller.register(parent, select.POLLIN)
    poller.poll()
    os._exit(1)


def _make(number: int, part: Any, wanted: frozenset[str]) -> Made:
    return make(_job, number, part, wanted)
