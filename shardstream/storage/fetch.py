"""Exact byte ranges of shards, for many threads at once.

Local files are read by ``pread`` in steps of 1 MiB through a small cache of descriptors: no
mmap, since a mapped file that shrinks is a SIGBUS. Remote ranges cost one GET each.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np

from shardstream.config import RetryPolicy
from shardstream.errors import ShardError, ShardNotFoundError, StorageError
from shardstream.storage.clients import filesystem, run
from shardstream.storage.retry import attempt, status_of
from shardstream.storage.secrets import pickled_options
from shardstream.storage.urls import is_local, normalise, protocol, redact

STEP_NBYTES = 1 << 20
MAX_DESCRIPTORS = 128


class _Descriptors:
    """Open local files, least recently used closed first; a file in use stays open until given back."""

    def __init__(self):
        self.lock = threading.Lock()
        self.files: OrderedDict[str, list] = OrderedDict()  # path -> [descriptor, users]

    def borrow(self, path: str) -> list:
        with self.lock:
            entry = self.files.get(path)
            if entry is None:
                entry = self.files[path] = [os.open(path, os.O_RDONLY | os.O_CLOEXEC), 0]
            self.files.move_to_end(path)
            entry[1] += 1
            return entry

    def give_back(self, entry: list) -> None:
        with self.lock:
            entry[1] -= 1
            if len(self.files) > MAX_DESCRIPTORS:
                idle = [path for path, (_, users) in self.files.items() if users == 0]
                for path in idle[: len(self.files) - MAX_DESCRIPTORS]:
                    os.close(self.files.pop(path)[0])

    def __del__(self):
        for descriptor, _ in self.files.values():
            os.close(descriptor)


def _new(nbytes: int) -> np.ndarray:
    return np.empty(nbytes, np.uint8)


class Fetcher:
    """Reads of absolute URLs; picklable, shared by threads, its clients made when first used."""

    def __init__(self, storage_options: dict | None = None, retry: RetryPolicy = RetryPolicy()):
        self.storage_options = storage_options
        self.retry = retry
        self._files = (os.getpid(), _Descriptors())

    def __getstate__(self) -> dict:
        return {"storage_options": pickled_options(self.storage_options), "retry": self.retry}

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)

    def read(self, url: str, begin: int, end: int, allocate: Callable[[int], np.ndarray] = _new) -> np.ndarray:
        """Return bytes ``[begin, end)`` of an object as a uint8 array of exactly that length.

        ``allocate`` makes the array for local files; a remote client brings its own memory.

        Raises:
            ShardNotFoundError: there is no such object.
            ShardError: it ends before ``end``.
            StorageError: it could not be read.
        """
        if not 0 <= begin <= end:
            raise ShardError(f"range [{begin}, {end}) is not a range of bytes.", shard=redact(url))
        if begin == end:
            return np.empty(0, np.uint8)
        try:
            data = self._read_local(url, begin, end, allocate) if is_local(url) else self._read_remote(url, begin, end)
        except FileNotFoundError as error:
            raise ShardNotFoundError("the shard is missing.", shard=redact(url)) from error
        if len(data) != end - begin:
            raise ShardError(f"the shard is truncated: it ends before byte {end}.", shard=redact(url),
                             offset=begin + len(data))  # fmt: skip
        return data

    def size(self, url: str) -> int:
        """Return an object's size in bytes: one request."""
        return self.identify(url)[0]

    def identify(self, url: str) -> tuple[int, str | None]:
        """Return an object's size, and a text that changes when it is overwritten: one request.

        The text is the store's etag, or its time of change; locally time and inode. None if the store tells neither.
        """
        try:
            if is_local(url):
                status = os.stat(normalise(url))
                return status.st_size, f"{status.st_mtime_ns}-{status.st_ino}"
            client = filesystem(protocol(url), self.storage_options)
            request = lambda timeout_s: run(client, "info", url, timeout_s=timeout_s)  # noqa: E731
            info = attempt(self.retry, f"looking at {redact(url)}", request)
        except FileNotFoundError as error:
            raise ShardNotFoundError("the shard is missing.", shard=redact(url)) from error
        tags = (info.get(name) for name in ("ETag", "etag", "LastModified", "last_modified", "mtime", "updated"))
        return int(info["size"]), next((str(tag) for tag in tags if tag), None)

    def _descriptors(self) -> _Descriptors:
        if self._files[0] != os.getpid():  # forked: another thread may have held the lock
            self._files = (os.getpid(), _Descriptors())
        return self._files[1]

    def _read_local(self, url: str, begin: int, end: int, allocate: Callable[[int], np.ndarray]) -> np.ndarray:
        data = allocate(end - begin)
        view, done = memoryview(data), 0
        try:
            descriptors = self._descriptors()
            entry = descriptors.borrow(normalise(url))
            try:
                while done < len(data):
                    count = os.preadv(entry[0], [view[done : done + STEP_NBYTES]], begin + done)
                    if count == 0:
                        break
                    done += count
            finally:
                descriptors.give_back(entry)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(f"reading {url} failed: {error}", shard=url, offset=begin + done) from error
        return data[:done]

    def _read_remote(self, url: str, begin: int, end: int) -> np.ndarray:
        client = filesystem(protocol(url), self.storage_options)

        def request(timeout_s: float) -> np.ndarray:
            try:
                data = run(client, "cat_file", url, start=begin, end=end, timeout_s=timeout_s)
            except OSError as error:
                if status_of(error) == 416:  # the range begins at or after the object's end
                    return np.empty(0, np.uint8)
                raise
            return np.frombuffer(data, np.uint8)

        return attempt(self.retry, f"reading {redact(url)} at byte {begin}", request)
