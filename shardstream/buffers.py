"""Memory that is used again: ``BufferPool`` hands out byte arrays and takes them back when nobody holds them.

A fresh large array costs a page fault for every 4 kB (2.6 GB/s on the machines measured, against 20 GB/s of
copying), so blocks read and batches made take their memory from here. An array comes back by itself when the
last view of it is gone, whoever holds it and for however long; nothing waits for that.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections import deque

import numpy as np

GRAIN_NBYTES = 64 * 1024  # sizes are rounded up to a multiple of this, so that nearly equal sizes share buffers
ALIGN_NBYTES = 64
ARENA_NBYTES = 8 * 2**20  # numpy asks for huge pages from 4 MiB on; smaller buffers are cut from such arenas
BYTES = np.dtype(np.uint8)
IDLE_NBYTES = 512 * 2**20  # free buffers beyond this are given back to the system


class BufferPool:
    """Free buffers by size, the last one returned first, while it is still in the processor's cache.

    Threads may share one without a lock: a buffer is returned from whichever thread drops the last view,
    possibly in the middle of a collection, so only atomic operations of ``deque``, ``dict`` and ``set`` are used.
    """

    def __init__(self):
        self._free: dict[int, deque[_Buffer]] = {}
        self._lent: set[_Buffer] = set()  # keeps the callbacks alive
        self.num_idle_bytes = 0

    def take(self, nbytes: int) -> np.ndarray:
        """Return a uint8 array of ``nbytes``, aligned to 64 bytes, with arbitrary content."""
        return self._lend(nbytes, nbytes, BYTES)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype | str) -> np.ndarray:
        """Return an uninitialised C-contiguous array from the pool."""
        dtype = np.dtype(dtype)
        return self._lend(math.prod(shape) * dtype.itemsize, shape, dtype)

    def _lend(self, nbytes: int, shape: int | tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        size = -(-nbytes // GRAIN_NBYTES) * GRAIN_NBYTES or GRAIN_NBYTES
        free = self._free.get(size)
        if free is None:
            free = self._free.setdefault(size, deque())
        try:
            buffer = free.pop()
            self.num_idle_bytes -= size
        except IndexError:
            buffer = self._new(size, free)
        # Over memory that is no array: numpy has views of what is lent keep that object alive, not what is below it.
        lent = np.ndarray(shape, dtype, buffer.memory)
        buffer.watch = weakref.ref(lent, buffer.give_back)
        self._lent.add(buffer)
        return lent

    def _new(self, size: int, free: deque[_Buffer]) -> _Buffer:
        count = max(1, ARENA_NBYTES // size)
        arena = np.empty(count * size + ALIGN_NBYTES, np.uint8)
        begin = -arena.ctypes.data % ALIGN_NBYTES
        piece = ctypes.c_ubyte * size
        first, *others = [_Buffer(piece.from_buffer(arena, begin + i * size), self, free) for i in range(count)]
        free.extend(others)
        self.num_idle_bytes += size * len(others)
        return first


class _Buffer:
    """A piece of memory that is free or lent."""

    __slots__ = ("_free", "_pool", "memory", "watch")

    def __init__(self, memory: ctypes.Array, pool: BufferPool, free: deque[_Buffer]):
        self.memory, self._pool, self._free = memory, pool, free
        self.watch: weakref.ref | None = None

    def give_back(self, _: weakref.ref) -> None:
        """Be free again; called when the array that was lent is gone."""
        self.watch = None
        pool = self._pool
        pool._lent.discard(self)
        if pool.num_idle_bytes + len(self.memory) <= IDLE_NBYTES:
            pool.num_idle_bytes += len(self.memory)
            self._free.append(self)
