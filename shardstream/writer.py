"""Samples in, committed shards out: ``ShardWriter``.

The way of a sample: ``codecs/rows.py`` checks it, it waits in the open block, the block is encoded into
``shardfile.ShardFile`` (a local file), a full shard goes to the uploading thread, which puts it into the store
whole and then, if this writer commits as it goes, appends a log entry. Nothing unfinished is ever visible.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from typing import Any

import numpy as np

from shardstream.codecs import rows
from shardstream.codecs.shard import MAX_BLOCK_NBYTES, MAX_BLOCK_SAMPLES
from shardstream.config import RetryPolicy, check_retry, parse_nbytes, parse_seconds
from shardstream.errors import ConfigError, EmptyDatasetError, SampleError, SchemaError, ShardstreamError, StorageError
from shardstream.log import Log, new_id
from shardstream.log.entries import source_json
from shardstream.publish import PutShard, check_age, put_shard, temporary_path
from shardstream.schema import Schema
from shardstream.shardfile import FinishedShard, OpenBlock, ShardFile, block_ends
from shardstream.storage import Store
from shardstream.storage.urls import names_shards

logger = logging.getLogger("shardstream")

QUEUED_SHARDS = 2  # finished shards that may wait for the store; then write() waits


class ShardWriter:
    """Writes samples into shards of the dataset at ``url`` and commits them to its log.

    Without ``producer`` and ``max_latency`` all shards become visible together, by ONE log entry at a clean
    close; an exception inside the ``with`` block, Ctrl-C or a kill publishes nothing. With either, each full
    shard (or tick of ``max_latency``) is a commit of its own.

    Args:
        url: Folder or prefix of the dataset, local or of any fsspec store; created at the first commit.
        schema: Fields of the samples (blocks layout), or None for the files layout, whose samples are
            ``{"__key__": "0001", "jpg": bytes, "cls": 3}`` with values as WebDataset's writer takes them. It may add
            fields with a ``default=`` to those of a dataset that stands: the first commit makes them the dataset's, and
            older samples are read with the default.
        shard_nbytes: Size at which a shard is finished.
        max_latency: Longest time a sample waits for its commit, such as ``"5s"``; also while the caller is idle.
        compression: None or ``"zstd"``.
        producer: Name under which this writer claims the dataset; an older instance of it fails at its next commit.
        storage_options: For fsspec, such as ``{"endpoint_url": ...}``; AWS environment variables work without.
        single_writer: Accept a store that ignores conditional PUTs (``If-None-Match: *``): nobody else writes to the
            dataset while this writer does, you say. By default such a store is found at the first commit, and refused.
        retry: How requests that fail are repeated, and when they are given up: a store that does not answer is an error
            after ``deadline_s``, by default two minutes.

    Raises:
        SchemaError: The dataset exists and has another schema, which this one does not only add to.
        Conflict: At a commit: the dataset was ended, or gained fields that this writer's samples lack.
        SampleError: At ``write`` or ``write_batch``: a sample does not fit; nothing of that call is written.
        ProducerFenced: A newer instance of ``producer`` has claimed the dataset.
        StorageError: The store failed; raised at the next call after it happened, or at the close.

    Example:
        >>> with ss.ShardWriter("/tmp/words", schema=ss.Schema(x=ss.Sparse(1024), y=ss.Dense("int64"))) as writer:
        ...     writer.write({"x": [3, 17, 600], "y": 1})
    """

    def __init__(self, url: str, schema: Schema | None = None, shard_nbytes: int | str = "64MB",
                 max_latency: float | str | None = None, compression: str | None = None, producer: str | None = None,
                 storage_options: dict | None = None, single_writer: bool = False, retry: RetryPolicy = RetryPolicy()):  # fmt: skip
        if schema is not None and not isinstance(schema, Schema):
            raise SchemaError(f"schema must be an ss.Schema or None, not {type(schema).__name__}.")
        if compression not in (None, "zstd"):
            raise ConfigError(f"compression={compression!r} must be None or 'zstd'.")
        self.schema, self._compression, self._producer = schema, compression, producer
        self._shard_nbytes = parse_nbytes(shard_nbytes, "shard_nbytes")
        self._block_nbytes = min(MAX_BLOCK_NBYTES, self._shard_nbytes)  # a shard ends where a block does
        self._max_latency_s = None if max_latency is None else parse_seconds(max_latency, "max_latency")
        if names_shards(str(url)):
            raise ConfigError(f"{url!r} would be read as shards, not as a dataset; name a folder without "
                              f"* ? {{ [ and not .tar.")  # fmt: skip
        check_retry(retry)
        self._store = Store(url, storage_options, retry)
        self._log = Log(self._store, single_writer)
        self._commits = producer is not None or max_latency is not None
        self._finished_nbytes = 0
        self.num_samples = 0  #: samples taken by write() and write_batch()
        self.num_samples_committed = 0  #: samples visible to readers
        self.version: int | None = None  #: number of the newest log entry written here
        self.last_source: Any = None  #: source of this producer's newest commit, read after the claim
        self._incarnation: str | None = None
        self._open_dataset()
        self._lock = threading.RLock()
        self._shard: ShardFile | None = None
        self._block: OpenBlock = OpenBlock()
        self._waiting: list[FinishedShard] = []  # shards of the next commit
        self._source: Any = None
        self._oldest_uncommitted: float | None = None
        self._closed = False
        self._step = _Step()
        self._uploads = _Uploads(self._upload)
        self._uploaded: list[PutShard] = []  # put but not committed; the uploading thread's
        self._tick = threading.Condition(self._lock)
        if self._max_latency_s is not None:
            threading.Thread(target=self._commit_in_time, name="shardstream-latency", daemon=True).start()

    @staticmethod
    def last_source(url: str, producer: str, storage_options: dict | None = None) -> Any:
        """Return the source of ``producer``'s newest commit without claiming the dataset; None if it has none."""
        known = Log(Store(url, storage_options)).snapshot().producers.get(producer)
        return None if known is None else known.source

    @property
    def nbytes(self) -> int:
        """Bytes of the shards written so far, the unfinished one included; the open block is not in it yet."""
        with self._lock:
            return self._finished_nbytes + (self._shard.nbytes if self._shard is not None else 0)

    def write(self, sample: dict, source: Any = None) -> None:
        """Write one sample; ``source`` (any JSON value up to 1 kB) is committed with it, and needs ``producer``."""
        if self.schema is None:
            self._take_files(sample, source)
        else:
            self._take(rows.check_sample(self.schema, sample), 1, source)

    def write_batch(self, batch: dict, source: Any = None) -> None:
        """Write many samples given as columns; the rows of one call commit together, with ``source``."""
        if self.schema is None:
            raise ConfigError("write_batch() needs a schema; in the files layout write samples one by one.")
        parts, num_samples = rows.check_batch(self.schema, batch)
        if num_samples:
            self._take(parts, num_samples, source)

    def flush(self) -> None:
        """Commit what has been written (only with ``producer`` or ``max_latency``) and wait until it is visible."""
        with self._lock:
            self._check_usable()
            if not self._commits:
                raise ConfigError("flush() needs producer= or max_latency=; without them all commits at the close.")
            with self._step:
                self._commit()
            self._uploads.wait()

    def close(self) -> None:
        """Finish, put and commit everything; after it all samples are visible. A second call does nothing."""
        with self._lock:
            if self._closed:
                return
            try:
                self._check_usable()
                if self.num_samples == 0 and not self._commits and not self._log.exists():
                    raise EmptyDatasetError("no samples were written, so there is no dataset to commit.",
                                            shard=self._store.url)  # fmt: skip
                with self._step:
                    self._commit()
                self._uploads.wait()
            except BaseException:
                self._abandon()
                raise
            self._shut()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None:
            self.close()
            return
        with self._lock:
            if not self._closed:
                self._abandon()
        logger.error("%s", self._abandoned_message(kind))

    # -- taking samples ---------------------------------------------------------------------------

    def _take(self, parts: dict, num_samples: int, source: Any) -> None:
        source = self._checked_source(source)
        if self._compression:
            rows.check_compressible(parts)
        nbytes = np.sum([rows.row_nbytes(part) for part in parts.values()], axis=0)
        with self._lock:
            self._check_usable()
            with self._step:
                begin = 0
                for end in block_ends(nbytes, self._block.nbytes, self._block.num_samples, self._block_nbytes):
                    self._block.add({name: rows.slice_part(part, begin, end) for name, part in parts.items()},
                                    end - begin, 0)  # fmt: skip
                    self._close_block()
                    begin = end
                    self._roll(mid_call=end < num_samples)
                if begin < num_samples:  # these wait, and the caller may use its arrays again meanwhile
                    rest = {name: rows.copy_part(rows.slice_part(part, begin, num_samples)) for name, part in parts.items()}
                    self._block.add(rest, num_samples - begin, int(nbytes[begin:].sum()))
                self._taken(num_samples, source)

    def _take_files(self, sample: dict, source: Any) -> None:
        source = self._checked_source(source)
        from shardstream.codecs import files

        members = files.encode_sample(sample)
        key = sample["__key__"]
        with self._lock:
            self._check_usable()
            if key in self._block.keys:
                raise SampleError("this key was written before; a key may come once in a shard.", key=key)
            with self._step:
                # What the member costs in the tar: its header, and its payload padded to 512.
                self._block.add_files(key, members, sum(512 + -(-len(data) // 512) * 512 for _, data in members))
                if self._block.nbytes >= self._block_nbytes or self._block.num_samples >= MAX_BLOCK_SAMPLES:
                    self._close_block()
                    self._roll(mid_call=False)
                self._taken(1, source)

    def _checked_source(self, source: Any) -> Any:
        """Return ``source`` as the log will give it back, apart from the caller's object."""
        if source is not None and self._producer is None:
            raise SampleError("a source is a producer's: give the writer producer=, or leave source out.",
                              field="source")  # fmt: skip
        try:
            return source_json(source)
        except ConfigError as error:
            raise SampleError(error.message, field="source") from error

    def _taken(self, num_samples: int, source: Any) -> None:
        """Note that a call's samples are in; a writer that commits as it goes does so here, if a shard is full."""
        self.num_samples += num_samples
        if source is not None:  # rows without one don't take back what those before them said
            self._source = source
        if self._oldest_uncommitted is None:
            self._oldest_uncommitted = time.monotonic()
            self._tick.notify()
        full = self._shard is not None and self._shard.nbytes >= self._shard_nbytes
        if self._commits and (self._waiting or full):
            self._commit()

    def _roll(self, mid_call: bool) -> None:
        """Finish the shard if it is full.

        Rows of one call commit together, so a writer that commits as it goes ends a shard where a call ends
        (``_taken``); within a call it lets the shard grow to twice its size first, rather than leave a stump.
        """
        limit = self._shard_nbytes * (2 if self._commits and mid_call else 1)
        if self._shard is not None and self._shard.nbytes >= limit:
            self._finish_shard()

    def _close_block(self) -> None:
        if self._shard is None:
            sid = new_id()
            self._shard = ShardFile(temporary_path(self._store, sid), sid, self.schema, self._compression)
        self._block.write_to(self._shard, self.schema)

    def _finish_shard(self) -> None:
        self._waiting.append(self._shard.finish())
        self._finished_nbytes += self._waiting[-1].nbytes
        self._shard = None
        self._block.keys.clear()
        if not self._commits:  # put now, commit at the close
            self._uploads.put((self._waiting.pop(), None, False))
            self._uploads.raise_error()

    # -- committing -------------------------------------------------------------------------------

    def _open_dataset(self) -> None:
        if self._commits:
            self._log.open_or_create(self.schema)
            if self._producer is not None:
                self._incarnation, self.last_source = self._log.claim(self._producer)
        elif self._log.exists():
            self._log.open_or_create(self.schema)  # only compares the schema

    def _commit(self) -> None:
        """Finish the open block and shard and hand all waiting shards to the uploading thread as one commit."""
        if self._block.num_samples:
            self._close_block()
        if self._shard is not None:
            self._finish_shard()
        if self._commits and self._waiting:
            *others, last = self._waiting
            for shard in others:
                self._uploads.put((shard, None, False))
            self._uploads.put((last, self._source, True))
        elif not self._commits and self.num_samples:
            self._uploads.put((None, self._source, True))
        self._waiting, self._source = [], None
        self._oldest_uncommitted = None

    def _upload(self, job: tuple[FinishedShard | None, Any, bool]) -> None:
        """Put one shard and, if it is the last of a commit, append the entry (in the uploading thread)."""
        shard, source, commit = job
        if shard is not None:
            self._uploaded.append(put_shard(self._store, shard))
        if commit:
            check_age(self._uploaded)
            if self.version is None:
                self._log.open_or_create(self.schema)
            self.version = self._log.append([shard.record for shard in self._uploaded], producer=self._producer, incarnation=self._incarnation,
                                            source=source, schema=self.schema)  # fmt: skip
            self.num_samples_committed += sum(shard.record.num_samples for shard in self._uploaded)
            self._uploaded = []

    def _commit_in_time(self) -> None:
        """Commit whatever has waited for ``max_latency`` (the timer's thread)."""
        with self._tick:
            while not self._closed:
                if self._oldest_uncommitted is None:
                    self._tick.wait()
                    continue
                left = self._oldest_uncommitted + self._max_latency_s - time.monotonic()
                if left > 0:
                    self._tick.wait(left)
                    continue
                try:
                    with self._step:
                        self._commit()
                except Exception as error:  # raised at the caller's next call, by _check_usable
                    self._uploads.error = self._uploads.error or error
                    self._oldest_uncommitted = None

    # -- ending -----------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._closed:
            raise ConfigError("this writer is closed.")
        self._uploads.raise_error()
        if self._step.failure is not None:
            raise self._step.failure

    def _abandon(self) -> None:
        """Drop what is not committed: local files, and best-effort the shards that were put."""
        self._uploads.stop()
        for shard in self._waiting:
            _unlink_quietly(shard.path)
        for shard, _, _ in self._uploads.dropped:
            if shard is not None:
                _unlink_quietly(shard.path)
        if self._shard is not None:
            self._shard.discard()
        try:
            # Unless an append's outcome is unknown, an entry may name them.
            if self._uploaded and not isinstance(self._uploads.error, StorageError):
                self._store.delete([shard.name for shard in self._uploaded])
        except Exception as error:
            logger.warning("could not delete uncommitted shards: %s", error)
        self._shut()

    def _shut(self) -> None:
        self._closed = True
        self._uploads.stop()
        self._tick.notify_all()

    def _abandoned_message(self, kind: type) -> str:
        lost = self.num_samples - self.num_samples_committed
        if self.num_samples_committed == 0:
            return f"{self._store.url}: writing stopped by {kind.__name__}: nothing was committed, {lost} samples dropped."
        return (f"{self._store.url}: writing stopped by {kind.__name__}: {self.num_samples_committed} samples are committed "
                f"(version {self.version}), the {lost} after them dropped.")  # fmt: skip


class _Step:
    """What a writer must do whole: after a failure or Ctrl-C in the middle, what it holds is no shard any more.

    A full disk comes out as StorageError.
    """

    def __init__(self):
        self.failure: StorageError | None = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, traceback) -> None:
        if error is None:
            return
        self.failure = StorageError(f"this writer failed while it wrote a shard, and can't go on: {error!r}.")
        if isinstance(error, OSError) and not isinstance(error, ShardstreamError):
            raise StorageError(f"writing a shard failed: {error}.") from error


class _Uploads:
    """A thread that does jobs in order, with a bounded queue; the first error ends it and is kept."""

    def __init__(self, work):
        self._work = work
        self._queue: queue.Queue = queue.Queue(QUEUED_SHARDS)
        self._thread: threading.Thread | None = None
        self.error: BaseException | None = None
        self.dropped: list = []  # jobs not done because of an error or a stop
        self._stopped = False

    def put(self, job) -> None:
        """Queue a job; waits while the queue is full. After an error jobs are dropped, not done."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="shardstream-upload", daemon=True)
            self._thread.start()
        self._queue.put(job)

    def wait(self) -> None:
        """Wait until all jobs are done; raise the error if one failed."""
        self._queue.join()
        self.raise_error()

    def stop(self) -> None:
        """End the thread after the job it is at."""
        self._stopped = True
        if self._thread is not None:
            self._queue.join()
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def raise_error(self) -> None:
        if self.error is None:
            return
        if isinstance(self.error, ShardstreamError):
            raise self.error
        raise StorageError(f"writing to the store failed: {self.error}") from self.error

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            try:
                if self.error is None and not self._stopped:
                    self._work(job)
                else:
                    self.dropped.append(job)
            except Exception as error:
                self.error = error
                self.dropped.append(job)
            finally:
                self._queue.task_done()


def _unlink_quietly(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
