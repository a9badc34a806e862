"""Remote blocks kept on local disk, shared by all processes of a host, within a limit.

One sparse file a shard, holding each block at its place in the shard. There is no list of what is
there: a block is present if its bytes match their CRC-32C, which who reads it checks anyway. A hole, a
torn write, a spoilt byte or another object's bytes all fail that check, and the block is fetched and
written again; two processes that write one block write the same bytes. So nothing can be trusted
wrongly, and nothing needs repair.

What is kept beside them is one number, the bytes on disk, in ``.usage``. It is raised before a write, by as
much as the write can take, and set right after it, both under one file lock; who is killed in between
leaves it too high, never too low. Above the limit it is counted anew (``st_blocks``), and the files
used longest ago are unlinked; who is reading one keeps it until it has read.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from shardstream.config import parse_nbytes
from shardstream.errors import ConfigError
from shardstream.locks import ForkSafeLock
from shardstream.storage.urls import local_folder

USAGE = ".usage"
ENDING = ".blocks"
PAGE = 4096  # what a file system allocates by; a write may touch one more page at either end
TOUCH_S = 60.0  # how often a file's time of last use is set
FREED_SHARE = 0.05  # of the limit: how much is freed beyond need, so that not every write must count anew


@dataclass(frozen=True)
class CachedShard:
    """A file of the cache: the end of the shard's URL, bytes on disk, time of last use."""

    name: str
    nbytes: int
    used: float


class Cache:
    """The cache in a folder; picklable, shared by threads, processes and containers that see the same folder."""

    def __init__(self, folder: str | os.PathLike, limit: int | str):
        self.folder = local_folder(folder, "cache_dir", "as cache_dir= must be")
        self.limit_nbytes = parse_nbytes(limit, "cache_limit")
        if self.limit_nbytes < 2 * PAGE:
            raise ConfigError(f"cache_limit={limit!r} is too small to hold anything.")
        self._lock = ForkSafeLock()
        self._touched: dict[str, float] = {}
        self._broken = False

    def __getstate__(self) -> dict:
        return {"folder": self.folder, "limit": self.limit_nbytes}

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)

    def read(self, url: str, begin: int, end: int, allocate: Callable[[int], np.ndarray]) -> np.ndarray | None:
        """Return what the cache has at bytes ``[begin, end)`` of a shard, to be verified; None if that is surely
        nothing.
        """
        path = self._path(url)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            if os.lseek(descriptor, begin, os.SEEK_DATA) >= begin + PAGE:
                return None  # a hole: the block was never written
            data = allocate(end - begin)
            if os.preadv(descriptor, [data], begin) != len(data):
                return None
            self._touch(path, descriptor)
            return data
        except OSError:  # among them ENXIO, for "no data up to the end"
            return None
        finally:
            os.close(descriptor)

    def write(self, url: str, begin: int, data: np.ndarray) -> None:
        """Keep a verified block. Does nothing if it cannot fit; warns once if the folder cannot be written."""
        most = data.nbytes + 2 * PAGE
        if self._broken or most > self.limit_nbytes:
            return
        path = self._path(url)
        try:
            with self._locked() as lock:
                usage = self._usage(lock)
                if usage + most > self.limit_nbytes:
                    usage = self._evict(most, path)
                if usage + most > self.limit_nbytes:
                    return
                _set_usage(lock, usage + most)
                grown = _write_block(path, begin, data)
                _set_usage(lock, usage + grown)
        except OSError as error:
            self._broken = True
            warnings.warn(f"the cache at {self.folder} cannot be written, and is not used: {error}", stacklevel=2)

    def exists(self) -> bool:
        """Return whether the folder has been used as a cache."""
        return os.path.exists(os.path.join(self.folder, USAGE))

    def shards(self) -> list[CachedShard]:
        """Return what is there, the file used longest ago first."""
        return sorted((CachedShard(name.removesuffix(ENDING).partition("-")[2], status.st_blocks * 512, status.st_mtime)
                       for name, status in self._files()), key=lambda shard: shard.used)  # fmt: skip

    def clear(self) -> int:
        """Remove all of it; returns how many bytes that freed."""
        if not os.path.isdir(self.folder):
            return 0
        with self._locked() as lock:
            freed = 0
            for name, status in self._files():
                freed += status.st_blocks * 512
                _unlink(os.path.join(self.folder, name))
            _set_usage(lock, 0)
        return freed

    # -- inside ----------------------------------------------------------------------------

    def _path(self, url: str) -> str:
        tail = re.sub(r"[^A-Za-z0-9._-]", "_", url.partition("?")[0].rpartition("/")[2])[-80:]
        return os.path.join(self.folder, f"{hashlib.sha256(url.encode()).hexdigest()[:32]}-{tail}{ENDING}")

    def _touch(self, path: str, descriptor: int) -> None:
        now = time.time()
        if now - self._touched.get(path, 0.0) > TOUCH_S:
            os.utime(descriptor)  # atime is not kept on most machines; mtime is the time of last use here
            self._touched[path] = now

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Hold the host's lock; yields the descriptor of the usage file."""
        with self._lock:
            os.makedirs(self.folder, exist_ok=True)
            descriptor = os.open(os.path.join(self.folder, USAGE), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                try:
                    yield descriptor
                finally:
                    fcntl.flock(descriptor, fcntl.LOCK_UN)  # a process that was forked meanwhile has the descriptor, too
            finally:
                os.close(descriptor)  # which gives the lock back when we are killed

    def _usage(self, lock: int) -> int:
        data = os.pread(lock, 20, 0)
        return int(data) if data.isdigit() else self._counted()

    def _counted(self) -> int:
        return sum(status.st_blocks * 512 for _, status in self._files())

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        try:
            with os.scandir(self.folder) as found:
                for entry in found:
                    if entry.name.endswith(ENDING):
                        try:
                            yield entry.name, entry.stat(follow_symlinks=False)
                        except FileNotFoundError:
                            continue
        except FileNotFoundError:
            return

    def _evict(self, most: int, kept: str) -> int:
        """Unlink the files used longest ago, but ``kept``, until ``most`` bytes fit; returns the bytes on disk then."""
        files = sorted(self._files(), key=lambda item: item[1].st_mtime)
        usage = sum(status.st_blocks * 512 for _, status in files)
        if usage + most <= self.limit_nbytes:
            return usage
        goal = self.limit_nbytes - most - int(FREED_SHARE * self.limit_nbytes)
        for name, status in files:
            if usage <= max(goal, 0):
                break
            if (path := os.path.join(self.folder, name)) != kept:
                _unlink(path)
                usage -= status.st_blocks * 512
        return usage


def _write_block(path: str, begin: int, data: np.ndarray) -> int:
    """Write a block at its place; returns by how many bytes on disk the file grew."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        before, view, done = os.fstat(descriptor).st_blocks, memoryview(data), 0
        while done < data.nbytes:
            done += os.pwrite(descriptor, view[done:], begin + done)
        return (os.fstat(descriptor).st_blocks - before) * 512
    finally:
        os.close(descriptor)


def _set_usage(lock: int, nbytes: int) -> None:
    os.pwrite(lock, b"%020d" % nbytes, 0)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
