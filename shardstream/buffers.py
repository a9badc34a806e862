"""Memory that is used again: ``BufferPool`` hands out byte arrays and takes them back when nobody holds them.

A fresh large array costs a page fault for every 4 kB (2.6 GB/s on the machines measured, against 20 GB/s of
copying), so blocks read and batches made take their memory from here, and new memory comes in huge pages. An array comes
back by itself when the last view of it is gone, whoever holds it and for however long; nothing waits for that.
"""

from __future__ import annotations

import ctypes
import functools
import math
import mmap
import sys
import weakref
from collections import deque
from collections.abc import Callable

import numpy as np

PAGE_NBYTES = 4096
BLOCK_GRAIN_NBYTES = 16 * 1024
HUGE_NBYTES = 2 * 2**20  # a huge page: one page fault instead of 512, where memory begins at a multiple of it
ARENA_NBYTES = 32 * 2**20  # smaller buffers are cut from such arenas; what is not used of one takes no memory
SMALL_NBYTES = 16 * 1024  # arrays up to this are numpy's own: kept by the thousand, as labels are, each would hold a grain
BYTES = np.dtype(np.uint8)
IDLE_NBYTES = 512 * 2**20  # free buffers of one size beyond this are given back to the system
MALLOC_NBYTES = 32 * 2**20 - 64 * 1024  # just below the largest size that glibc's malloc learns from


@functools.lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Let malloc keep up to 64 MiB that is freed, for objects that can't come from a pool, as ``bytes`` can't.

    By default glibc gives the end of its heap back whenever 128 kB of it are free, so each batch of long strings would
    fault all its pages in anew. Freeing a large block raises that to twice the block (mallopt(3), M_MMAP_THRESHOLD),
    unless the environment or the program sets a limit of its own. The block is never touched.
    """
    np.empty(MALLOC_NBYTES, np.uint8)


class BufferPool:
    """Free buffers by size, the last one returned first, while it is still in the processor's cache.

    Threads may share one without a lock: a buffer is returned from whichever thread drops the last view,
    possibly in the middle of a collection, so only atomic operations of ``deque`` and ``dict`` are used.

    Args:
        size_of: Says how large a buffer is for some bytes: of few sizes, so that nearly equal ones share buffers.

    Attributes:
        max_nbytes: If all buffers would take more, free ones of other sizes are given back to the system before one is made.
    """

    def __init__(self, size_of: Callable[[int], int] | None = None):
        self._size_of, self.max_nbytes = size_of or buffer_nbytes, sys.maxsize
        self._all: dict[int, deque[_Buffer]] = {}  # by size; keeps the callbacks of what is lent alive
        self._idle: dict[int, deque[_Buffer]] = {}  # those that have been lent, and take memory
        self._fresh: dict[int, deque[_Buffer]] = {}  # those that take none
        self._open: deque[tuple[_Arena, int]] = deque()  # arenas of which there is more, and from where on

    def __reduce__(self) -> tuple:
        return BufferPool, (self._size_of,)  # what has one travels without its memory

    @property
    def num_idle_bytes(self) -> int:
        """Bytes of memory that free buffers take."""
        return sum(size * len(idle) for size, idle in list(self._idle.items()))

    @property
    def num_bytes(self) -> int:
        """Bytes of memory that all buffers take, lent or free."""
        return sum(size * (len(buffers) - len(self._fresh[size])) for size, buffers in list(self._all.items()))

    def take(self, nbytes: int) -> np.ndarray:
        """Return a uint8 array of ``nbytes``, aligned to 64 bytes, with arbitrary content."""
        return self._lend(nbytes, nbytes, BYTES)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype | str) -> np.ndarray:
        """Return an uninitialised C-contiguous array from the pool, or from numpy if it is small."""
        dtype = np.dtype(dtype)
        nbytes = math.prod(shape) * dtype.itemsize
        return np.empty(shape, dtype) if nbytes <= SMALL_NBYTES else self._lend(nbytes, shape, dtype)

    def trim(self, nbytes: int) -> None:
        """Give memory of free buffers back to the system until they take at most ``nbytes``."""
        excess = self.num_idle_bytes - nbytes
        for size, idle in list(self._idle.items()):
            while excess > 0:
                try:
                    buffer = idle.popleft()
                except IndexError:
                    break
                buffer.give_up_memory()
                excess -= size

    def _lend(self, nbytes: int, shape: int | tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        size = self._size_of(nbytes)
        try:
            buffer = self._idle[size].pop()
        except (KeyError, IndexError):
            buffer = self._other(size)
        # Over memory that is no array: numpy has views of what is lent keep that object alive, not what is below it.
        lent = np.ndarray(shape, dtype, buffer.memory)
        buffer.watch = weakref.ref(lent, buffer.give_back)
        return lent

    def _other(self, size: int) -> _Buffer:
        """Return the least free buffer that is larger, up to twice, or a new one: odd sizes, as of last blocks, come and go."""
        for other in sorted(other for other, idle in list(self._idle.items()) if size < other <= 2 * size and idle):
            try:
                return self._idle[other].pop()
            except IndexError:
                pass
        excess = self.num_bytes + size - self.max_nbytes
        if excess > 0:
            self.trim(max(0, self.num_idle_bytes - excess))
        fresh = self._fresh.setdefault(size, deque())
        try:
            return fresh.pop()
        except IndexError:
            return self._cut(size)

    def _cut(self, size: int) -> _Buffer:
        """Return a buffer that was none before. All sizes share arenas, or of each size's a part of a huge page would lie idle."""
        try:
            arena, begin = self._open.pop()  # until it is put back, other threads cut from another
        except IndexError:
            arena, begin = None, 0
        if arena is None or begin + size > arena.nbytes:
            arena, begin = _Arena(max(size, ARENA_NBYTES)), 0
        self._open.append((arena, begin + size))
        buffer = _Buffer(arena, begin, size, self, self._idle.setdefault(size, deque()))
        self._all.setdefault(size, deque()).append(buffer)
        return buffer


class TransformPool(BufferPool):
    """A pool that belongs to no stream, as a transform may be used by several: all streams of the process count it."""

    _living: weakref.WeakValueDictionary[int, TransformPool] = weakref.WeakValueDictionary()

    def __init__(self):
        super().__init__()
        self._living[id(self)] = self

    def __reduce__(self) -> tuple:
        return TransformPool, ()

    @classmethod
    def living(cls) -> list[TransformPool]:
        """Return all there are."""
        return [pool for ref in cls._living.valuerefs() if (pool := ref()) is not None]


@functools.lru_cache(maxsize=1024)
def buffer_nbytes(nbytes: int) -> int:
    """Return the size of a buffer for ``nbytes``: whole pages, at most an eighth more, and eight sizes from each power of two."""
    grain = max(PAGE_NBYTES, 1 << nbytes.bit_length() >> 4)
    return -(-nbytes // grain) * grain or grain


@functools.lru_cache(maxsize=1024)
def block_nbytes(nbytes: int) -> int:
    """Return the same for blocks: of these memory is full, and most are a little larger than 1 MiB."""
    return buffer_nbytes(nbytes) if nbytes < 2**20 else -(-nbytes // BLOCK_GRAIN_NBYTES) * BLOCK_GRAIN_NBYTES


def array_nbytes(nbytes: int) -> int:
    """Return the memory of an array of ``nbytes`` that a pool of blocks makes."""
    return nbytes if nbytes <= SMALL_NBYTES else block_nbytes(nbytes)


def held_nbytes(view: np.ndarray) -> int:
    """Return the memory that a view of an array keeps: of numpy's own all, and of a pool's buffer; of others' what it shows."""
    array = view.base if isinstance(view.base, np.ndarray) else view
    if array.base is None:
        return array.nbytes
    return len(array.base) if isinstance(array.base, ctypes.Array) else view.nbytes


class _Arena:
    """Memory of the system that begins at a huge page."""

    def __init__(self, nbytes: int):
        self.nbytes = nbytes
        self.map = mmap.mmap(-1, nbytes + HUGE_NBYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # of the slack nothing is touched
        self.begin = -ctypes.addressof(ctypes.c_ubyte.from_buffer(self.map)) % HUGE_NBYTES
        try:
            self.map.madvise(mmap.MADV_HUGEPAGE)
        except OSError:  # a kernel without
            pass


class _Buffer:
    """A piece of memory that is free or lent."""

    __slots__ = ("_arena", "_begin", "_idle", "_max_idle", "_pool", "memory", "watch")

    def __init__(self, arena: _Arena, begin: int, size: int, pool: BufferPool, idle: deque[_Buffer]):
        self._arena, self._begin = arena.map, arena.begin + begin
        self.memory = (ctypes.c_ubyte * size).from_buffer(arena.map, self._begin)
        self._pool, self._idle, self._max_idle = pool, idle, -(-IDLE_NBYTES // size)
        self.watch: weakref.ref | None = None

    def give_back(self, _: weakref.ref) -> None:
        """Be free again; called when the array that was lent is gone."""
        self.watch = None
        if len(self._idle) < self._max_idle:
            self._idle.append(self)
        else:
            self.give_up_memory()

    def give_up_memory(self) -> None:
        """Let the system have the memory until it is written to again."""
        self._arena.madvise(mmap.MADV_DONTNEED, self._begin, len(self.memory))
        self._pool._fresh[len(self.memory)].append(self)
