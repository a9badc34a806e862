"""Exact byte ranges of shards, for many threads at once.

Local files are read and verified by one call in C, through a small cache of descriptors: no
mmap, since a mapped file that shrinks is a SIGBUS. Remote ranges cost one GET each, repeated
while that can help; neighbouring ones share a GET, long ones are divided. What a caller's ``verify``
refuses counts as a reply gone wrong.
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import numpy as np

from shardstream._native.read import NO_MEMBERS, read_checked
from shardstream.config import RetryPolicy, checked_options
from shardstream.errors import ChecksumError, ShardError, ShardNotFoundError, ShardstreamError, StorageRefused
from shardstream.stats import Stats
from shardstream.storage.cache import Cache
from shardstream.storage.clients import filesystem, run
from shardstream.storage.pace import SLOW_DOWN, Pace, first_of
from shardstream.storage.ranges import start_get
from shardstream.storage.retry import attempt, explained, status_of
from shardstream.storage.secrets import pickled_options
from shardstream.storage.urls import is_local, normalise, protocol, redact

MAX_DESCRIPTORS = 128
MAX_GAP_NBYTES = 64 * 1024  # between two ranges that share a GET: what is read in vain costs less than a request
MIN_VIEWED = 0.75  # of what a GET brings, that is asked for: if it is less the rest is not held along with it
PIECE_NBYTES = 8 << 20  # of a range twice as long or more; each piece is a GET, and only a piece is repeated
MAX_PIECES = 8  # of one range that are in flight together
TAGS = ("ETag", "etag", "LastModified", "Last-Modified", "last_modified", "mtime", "updated")  # as the clients call them
MAX_SHORT = 2  # replies shorter than asked for before the object itself is taken to be short


class _Descriptors:
    """Open local files, least recently used closed first; a file in use stays open until given back."""

    def __init__(self):
        self.lock = threading.Lock()
        self.files: OrderedDict[str, list] = OrderedDict()  # URL -> [descriptor, users]

    def borrow(self, url: str) -> list:
        with self.lock:
            entry = self.files.get(url)
            if entry is None:
                entry = self.files[url] = [os.open(normalise(url), os.O_RDONLY | os.O_CLOEXEC), 0]
            self.files.move_to_end(url)
            entry[1] += 1
            return entry

    def give_back(self, entry: list) -> None:
        with self.lock:
            entry[1] -= 1
            if len(self.files) > MAX_DESCRIPTORS:
                idle = [url for url, (_, users) in self.files.items() if users == 0]
                for url in idle[: len(self.files) - MAX_DESCRIPTORS]:
                    os.close(self.files.pop(url)[0])

    def __del__(self):
        for descriptor, _ in self.files.values():
            os.close(descriptor)


Allocate = Callable[[int], np.ndarray]
Verify = Callable[[np.ndarray], None]


class MembersCheck(ABC):
    """A ``verify`` that compares checksums of members, so that a local file's can be compared as it is read.

    Attributes:
        members: What to compare, as ``_native.read.read_checked`` takes it.
        check_s: Seconds that this has taken.
    """

    members: tuple
    check_s = 0.0

    @abstractmethod
    def __call__(self, data: np.ndarray) -> None:
        """Raise :class:`ChecksumError` if a member of the range is not what it should be."""


def _new(nbytes: int) -> np.ndarray:
    return np.empty(nbytes, np.uint8)


def _trusted(data: np.ndarray) -> None:
    """Accept any bytes."""


class _Process:
    """What a Fetcher has in one process: forked children make their own, since a lock may have been held at the fork."""

    def __init__(self):
        self.pid = os.getpid()
        self.descriptors = _Descriptors()
        self.pace = Pace()


class Fetcher:
    """Reads of absolute URLs; picklable, shared by threads, its clients made when first used."""

    def __init__(self, storage_options: dict | None = None, retry: RetryPolicy = RetryPolicy(), cache: Cache | None = None):
        self.storage_options = checked_options(storage_options)
        self.retry = retry
        self.cache = cache
        self.stats = Stats()
        self._process = _Process()

    def __getstate__(self) -> dict:
        return {"storage_options": pickled_options(self.storage_options), "retry": self.retry, "cache": self.cache}

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)

    def read(self, url: str, begin: int, end: int, allocate: Allocate = _new, verify: Verify = _trusted) -> np.ndarray:
        """Return bytes ``[begin, end)`` of an object as a uint8 array of exactly that length.

        ``allocate`` makes the array for local files; a remote client brings its own memory. ``verify`` raises
        :class:`ChecksumError` on bytes that are not what they should be; remote ones are then asked for again.
        Only what is verified is cached.

        Raises:
            ShardNotFoundError: there is no such object.
            ShardError: it ends before ``end``.
            ChecksumError: ``verify`` refused every reply.
            StorageRefused: the store will not give it: credentials, permission.
            StorageError: it could not be read.
        """
        if not 0 <= begin <= end:
            raise ShardError(f"range [{begin}, {end}) is not a range of bytes.", shard=redact(url))
        if begin == end:
            return np.empty(0, np.uint8)
        if not is_local(url):
            data = self._cached(url, begin, end, allocate, verify)
            return self._fetched(url, begin, end, verify) if data is None else data
        try:
            return self._read_local(url, begin, end, allocate, verify)
        except FileNotFoundError as error:
            raise ShardNotFoundError("the shard is missing.", shard=redact(url)) from error

    def read_spans(self, url: str, spans: Sequence[tuple[int, int]], verify: Sequence[Verify],
                   allocate: Allocate = _new) -> list[np.ndarray | ShardstreamError]:  # fmt: skip
        """Return each of several ascending ranges ``(begin, end)`` as by :meth:`read`, or the error that it would raise.

        Remote neighbours, at most ``MAX_GAP_NBYTES`` apart and not in the cache, come by one GET as views of one array, or as copies if much
        of that is in none of them, for who holds a view holds all.
        """
        found: list[np.ndarray | ShardstreamError | None] = [None] * len(spans)
        is_joined = not is_local(url) and len(spans) > 1
        if self.cache is not None and not is_local(url):
            found = [self._cached(url, *span, allocate, check) for span, check in zip(spans, verify, strict=True)]
            hits = [len(data) for data in found if data is not None]
            self.stats.add(num_bytes_cached=sum(hits), num_cache_hits=len(hits))
        missing = [i for i, data in enumerate(found) if data is None]
        for group in _neighbours(spans, missing) if is_joined else ():
            begin, end = spans[group[0]][0], spans[group[-1]][1]
            data = _or_error(self.read, url, begin, end)
            is_sparse = sum(spans[i][1] - spans[i][0] for i in group) < MIN_VIEWED * (end - begin)
            for i in group:
                if isinstance(data, np.ndarray):
                    part = data[spans[i][0] - begin : spans[i][1] - begin]
                    found[i] = self._checked(url, *spans[i], _copied(part, allocate) if is_sparse else part, verify[i])
                elif not isinstance(data, ShardError):  # else it ends early: some of them may be whole
                    found[i] = data
        for i in missing:
            if found[i] is None and (is_local(url) or spans[i][0] == spans[i][1]):
                found[i] = _or_error(self.read, url, *spans[i], allocate, verify[i])
            elif found[i] is None:  # which the cache does not have
                found[i] = _or_error(self._fetched, url, *spans[i], verify[i])
        return found

    def size(self, url: str) -> int:
        """Return an object's size in bytes: one request."""
        return self.identify(url)[0]

    def identify(self, url: str) -> tuple[int, str | None]:
        """Return an object's size, and a text that changes when it is overwritten: one request.

        The text is the store's etag, or its time of change; locally time and inode. None if the store tells neither.

        Raises:
            ShardNotFoundError: there is no such object.
            StorageRefused, StorageError: the store will not tell, or could not be asked.
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
        if info.get("size") is None:  # HTTP without Content-Length
            raise StorageRefused(f"looking at {redact(url)} failed: the server does not say how many bytes it has.")
        tags = (info.get(name) for name in TAGS)
        return int(info["size"]), next((str(tag) for tag in tags if tag), None)

    def _here(self) -> _Process:
        if self._process.pid != os.getpid():
            self._process = _Process()
        return self._process

    def _read_local(self, url: str, begin: int, end: int, allocate: Allocate, verify: Verify) -> np.ndarray:
        """Return a range of a file, verified while it is read if that can be."""
        data, descriptors, is_by_members = allocate(end - begin), self._here().descriptors, isinstance(verify, MembersCheck)
        try:
            entry = descriptors.borrow(url)
            try:
                found = read_checked(entry[0], begin, data, verify.members if is_by_members else NO_MEMBERS)
            finally:
                descriptors.give_back(entry)
            if found.error:
                raise OSError(found.error, os.strerror(found.error))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise explained(error, f"reading {url} at byte {begin}") from error
        _complete(data[: found.num_bytes], url, begin, end)
        if is_by_members:
            verify.check_s += found.check_s
        if not (is_by_members and found.is_checked):
            verify(data)  # says what is wrong
        return data

    def _fetched(self, url: str, begin: int, end: int, verify: Verify) -> np.ndarray:
        """Return a remote range, and keep it in the cache if it is verified."""
        try:
            data = self._read_remote(url, begin, end, verify)
        except FileNotFoundError as error:
            raise ShardNotFoundError("the shard is missing.", shard=redact(url)) from error
        self._keep(url, begin, data, verify)
        return data

    def _cached(self, url: str, begin: int, end: int, allocate: Allocate, verify: Verify) -> np.ndarray | None:
        """Return what the cache has, if it is what it should be."""
        if self.cache is None or verify is _trusted:
            return None
        data = self.cache.read(url, begin, end, allocate)
        if data is not None:
            try:
                verify(data)
            except ChecksumError:
                return None  # not there, or spoilt: what is fetched now is written over it
        return data

    def _keep(self, url: str, begin: int, data: np.ndarray, verify: Verify) -> None:
        if self.cache is not None and verify is not _trusted:
            self.cache.write(url, begin, data)

    def _checked(self, url: str, begin: int, end: int, data: np.ndarray, verify: Verify) -> np.ndarray | None:
        """Return one range's bytes of a reply that held several, None if they are wrong."""
        try:
            verify(data)
        except ChecksumError:
            return None
        self._keep(url, begin, data, verify)
        return data

    def _read_remote(self, url: str, begin: int, end: int, verify: Verify) -> np.ndarray:
        if end - begin < 2 * PIECE_NBYTES:
            return self._get(url, begin, end, verify)
        data = np.empty(end - begin, np.uint8)

        def read_piece(piece: int) -> None:
            data[piece - begin : piece - begin + PIECE_NBYTES] = self._get(url, piece, min(piece + PIECE_NBYTES, end), _trusted)

        def read_all() -> np.ndarray:
            pieces = range(begin, end, PIECE_NBYTES)
            with ThreadPoolExecutor(min(MAX_PIECES, len(pieces)), thread_name_prefix="shardstream-piece") as pool:
                list(pool.map(read_piece, pieces))
            verify(data)
            return data

        try:
            return read_all()
        except ChecksumError:
            return read_all()  # once: which of the pieces is wrong cannot be told

    def _get(self, url: str, begin: int, end: int, verify: Verify) -> np.ndarray:
        """Return a range by one GET, repeated by the rules of ``retry``."""
        pace, num_short = self._here().pace, 0

        def request(timeout_s: float) -> np.ndarray:
            nonlocal num_short
            timeout_s = min(timeout_s, self.retry.request_s)
            with pace.slot():
                started = monotonic()
                try:
                    data = first_of(lambda: start_get(url, begin, end, self.storage_options, timeout_s), pace,
                                    self.retry.hedge_factor, timeout_s)  # fmt: skip
                except Exception as error:
                    if status_of(error) in SLOW_DOWN:
                        pace.slow_down()
                    if status_of(error) != 416:
                        raise
                    data = None  # the range begins at or after the object's end
                else:
                    pace.succeeded(monotonic() - started, len(data))
            if data is None:  # out here, where the client's error is no context of ours: its text may hold a signed URL
                return _complete(np.empty(0, np.uint8), url, begin, end)
            num_short += len(data) < end - begin
            if len(data) < end - begin and num_short < MAX_SHORT:
                raise ConnectionError(f"{len(data)} bytes came instead of {end - begin}.")
            _complete(data, url, begin, end)
            verify(data)
            return data

        return attempt(self.retry, f"reading {redact(url)} at byte {begin}", request, passing=ChecksumError)


def _complete(data: np.ndarray, url: str, begin: int, end: int) -> np.ndarray:
    """Return ``data`` if it has just the bytes asked for; raise :class:`ShardError` if the object ends before."""
    if len(data) > end - begin:
        raise StorageRefused(f"reading {redact(url)} failed: asked for {end - begin} bytes the server sent {len(data)}, so it "
                             "ignores ranges; use a server that honours the Range header.")  # fmt: skip
    if len(data) < end - begin:
        raise ShardError(f"the shard is truncated: it ends before byte {end}.", shard=redact(url), offset=begin + len(data))
    return data


def _copied(data: np.ndarray, allocate: Allocate) -> np.ndarray:
    out = allocate(len(data))
    out[...] = data
    return out


def _or_error(read: Callable[..., np.ndarray], *arguments) -> np.ndarray | ShardstreamError:
    try:
        return read(*arguments)
    except ShardstreamError as error:
        return error  # from here: a frame that kept the error which names it would be a cycle, and hold all that was read


def _neighbours(spans: Sequence[tuple[int, int]], chosen: Sequence[int]) -> list[list[int]]:
    """Return the chosen ranges' numbers in groups of two and more that one GET can bring."""
    groups: list[list[int]] = []
    for i in chosen:
        if groups and groups[-1][-1] == i - 1 and 0 <= spans[i][0] - spans[i - 1][1] <= MAX_GAP_NBYTES:
            groups[-1].append(i)
        else:
            groups.append([i])
    return [group for group in groups if len(group) > 1]
