"""What a stream holds in memory, against its limit (``MemoryBudget``)."""

from __future__ import annotations

import threading

from shardstream.buffers import TransformPool
from shardstream.joined import JoinedReader
from shardstream.reader import BlockReader


class MemoryBudget:
    """Bytes held by blocks, by batches and by free buffers, against a limit; waits in the planner until there is room."""

    def __init__(self, limit_nbytes: int, reader: BlockReader | JoinedReader):
        self.limit_nbytes = limit_nbytes
        self._pool, self._batches, self._outside = reader.pool, reader.batches, reader.outside
        self.held_nbytes = 0  # by blocks that are here or on their way
        self.peak_nbytes = 0
        self._coming_nbytes = 0  # of those on their way, which will take free buffers first
        self._lock = threading.RLock()  # to be taken itself, for Ctrl-C in the middle of the condition's __enter__ would leave it held
        self._changed = threading.Condition(self._lock)
        self._awaited, self.planned = -1, 0  # numbers of the plan that the consumer waits for, and of the one that is being made
        self._is_waiting = self._closed = False

    def reserve(self, nbytes: int) -> bool:
        """Wait until ``nbytes`` more fit and count them as coming; False if waiting can't make room, or the reader was closed."""
        with self._lock:
            self._is_waiting = True
            self._changed.wait_for(lambda: self._closed or self._awaited == self.planned or self._fits(nbytes))
            self._is_waiting = False
            if self._closed or not self._fits(nbytes):
                return False
        self.expect(nbytes)
        return True

    @property
    def batch_nbytes(self) -> int:
        """Bytes of batches that are not let go of, and of what transforms made of them."""
        pools = self._batches, *TransformPool.living()
        return sum(pool.num_bytes - pool.num_idle_bytes for pool in pools) + sum(list(self._outside.values()))

    def _fits(self, nbytes: int) -> bool:
        return self.held_nbytes + self.batch_nbytes + nbytes <= self.limit_nbytes

    def has_room(self, nbytes: int) -> bool:
        """Return whether ``nbytes`` that are not needed yet may be held: half of the limit is for those that are."""
        return 2 * (self.held_nbytes + self.batch_nbytes + nbytes) <= self.limit_nbytes

    def wait_for_plan(self, number: int) -> None:
        """Say that the consumer waits for a plan: it lets go of nothing before that is there.

        By its number, for the planner may be at the next one before the consumer has woken up.
        """
        with self._lock:
            self._awaited = number
            self._changed.notify_all()

    def look(self) -> None:
        """Look whether batches that were let go of have made room; buffers come back without a word."""
        if self._is_waiting:
            with self._lock:
                self._changed.notify_all()

    def expect(self, nbytes: int) -> None:
        """Count ``nbytes`` more as held, by blocks on their way."""
        with self._lock:
            self._coming_nbytes += nbytes
            self._add(nbytes)
        self._trim()

    def arrive(self, expected_nbytes: int, nbytes: int) -> None:
        """Note that blocks on their way are here, and how large they are."""
        with self._lock:
            self._coming_nbytes -= expected_nbytes
        self.adjust(nbytes - expected_nbytes)
        self._trim()

    def _trim(self) -> None:
        """Give back what free buffers take beyond the limit: those of blocks first, for a batch needs its own at once."""
        pools = self._batches, *TransformPool.living()
        batch_nbytes = sum(pool.num_bytes for pool in pools) + sum(list(self._outside.values()))
        if self.held_nbytes + batch_nbytes + self._pool.num_idle_bytes > self.limit_nbytes:
            free_nbytes = max(0, self.limit_nbytes - self.held_nbytes - self.batch_nbytes) + self._coming_nbytes
            for pool in (*pools, self._pool):
                idle_nbytes = pool.num_idle_bytes
                if idle_nbytes > free_nbytes:
                    pool.trim(free_nbytes)
                free_nbytes -= min(idle_nbytes, free_nbytes)
        # Of what is coming, some may be of other sizes than what is free. A batch's buffers that went are found the next time.
        self._pool.max_nbytes = self.limit_nbytes - batch_nbytes

    def adjust(self, nbytes: int) -> None:
        """Count ``nbytes`` more (or, negative, less) as held."""
        with self._lock:
            self._add(nbytes)
            self._changed.notify_all()

    def _add(self, nbytes: int) -> None:
        self.held_nbytes += nbytes
        self.peak_nbytes = max(self.peak_nbytes, self.held_nbytes)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._changed.notify_all()
