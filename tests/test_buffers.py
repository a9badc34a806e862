"""The pool's promise: a buffer is used again only when nobody can see it any more."""

import gc
import os
import pickle
import platform
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shardstream as ss
from shardstream.buffers import (
    ARENA_NBYTES,
    SMALL_NBYTES,
    BufferPool,
    TransformPool,
    block_nbytes,
    buffer_nbytes,
    held_nbytes,
    keep_freed_memory,
)


def test_a_dropped_buffer_is_used_again():
    """The last buffer that was let go is the next one of its size, so a loop needs one."""
    pool = BufferPool()
    first = pool.take(100_000)
    address = first.ctypes.data
    del first
    assert pool.take(99_000).ctypes.data == address


def test_the_last_buffer_that_was_let_go_of_is_the_first_to_be_used_again():
    """It is the one that is still in the processor's cache."""
    pool = BufferPool()
    first, second = pool.take(100_000), pool.take(100_000)
    addresses = [second.ctypes.data, first.ctypes.data]
    del first, second
    kept = [pool.take(100_000), pool.take(100_000)]
    assert [array.ctypes.data for array in kept] == addresses


def test_any_view_keeps_a_buffer():
    """A slice, a reshaped view or a tensor of a buffer keeps it from being used again."""
    import torch

    pool = BufferPool()
    for view in (lambda a: a[5:6], lambda a: a.view(np.int64).reshape(-1, 2)[1], lambda a: torch.from_numpy(a)[3:4]):
        kept = view(pool.take(64_000))
        address = kept.ctypes.data if isinstance(kept, np.ndarray) else kept.data_ptr()
        for _ in range(300):
            other = pool.take(64_000)
            assert not other.ctypes.data <= address < other.ctypes.data + 64_000
        del kept, other
    gc.collect()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300_000), st.booleans()), max_size=60))
def test_live_buffers_never_overlap(steps):
    """Under any order of taking and dropping, live buffers are disjoint, aligned, and of the size asked for."""
    pool, live = BufferPool(), []
    for nbytes, drop in steps:
        if drop and live:
            live.pop(nbytes % len(live))
        array = pool.take(nbytes)
        assert array.nbytes == nbytes and (nbytes == 0 or array.ctypes.data % 64 == 0)
        live.append(array)
    spans = sorted((a.ctypes.data, a.ctypes.data + a.nbytes) for a in live if a.nbytes)
    assert all(end <= begin for (_, end), (begin, _) in zip(spans, spans[1:]))


def test_small_arrays_hold_no_buffer():
    """A loop that keeps every batch's labels keeps their bytes, not a grain of a buffer for each; larger ones come from
    the pool.
    """
    pool = BufferPool()
    kept = [pool.empty((64,), "float32") for _ in range(1000)] + [pool.empty((SMALL_NBYTES,), "uint8"),
                                                                  pool.empty((0, 3), "int64")]  # fmt: skip
    assert pool.num_bytes == 0 and [array.shape for array in kept[-2:]] == [(SMALL_NBYTES,), (0, 3)]
    large = pool.empty((SMALL_NBYTES + 1,), "uint8")
    assert pool.num_bytes == buffer_nbytes(SMALL_NBYTES + 1) and pool.num_idle_bytes == 0
    del large
    assert pool.num_idle_bytes == buffer_nbytes(SMALL_NBYTES + 1)


def test_free_buffers_are_counted_and_given_up():
    """Bytes of free buffers are known exactly; what is trimmed takes no memory, and can be lent again."""
    pool = BufferPool()
    arrays = [pool.take(2**20) for _ in range(20)] + [pool.take(300_000)]
    for array in arrays:
        array[:] = 1
    assert pool.num_idle_bytes == 0 and pool.num_bytes == 20 * 2**20 + buffer_nbytes(300_000)
    del array, arrays
    assert pool.num_idle_bytes == pool.num_bytes == 20 * 2**20 + buffer_nbytes(300_000)
    assert pool.take(2**20 - 5)[:].max() == 1  # of the same size, as it was left
    pool.trim(7 * 2**20)
    assert 6 * 2**20 < pool.num_idle_bytes <= 7 * 2**20
    pool.trim(0)
    assert pool.num_idle_bytes == pool.num_bytes == 0
    assert not pool.take(2**20).any()  # its pages are new


def test_of_one_size_no_more_than_a_limit_stays_free(monkeypatch):
    """A burst of buffers leaves what such a burst needs, up to the limit, and gives the rest back to the system."""
    monkeypatch.setattr("shardstream.buffers.IDLE_NBYTES", 3 * 2**20)
    pool = BufferPool()
    burst = [pool.take(2**20) for _ in range(8)] + [pool.take(300_000)]
    del burst
    assert pool.num_bytes == pool.num_idle_bytes == 3 * 2**20 + buffer_nbytes(300_000)


def test_an_odd_size_takes_a_free_buffer_that_is_larger():
    """A last block's buffer is cut from one that is there, not from new memory; one above twice the size is left alone.
    """
    pool = BufferPool()
    large = pool.take(2**20)
    address = large.ctypes.data
    del large
    taken = pool.take(700_000)
    assert taken.ctypes.data == address and held_nbytes(taken) == 2**20
    del taken
    less = pool.take(400_000)
    address, other = less.ctypes.data, pool.take(350_000)
    assert held_nbytes(less) == buffer_nbytes(400_000) and pool.num_bytes == 2**20 + held_nbytes(less) + held_nbytes(other)
    del less, other
    assert pool.take(390_000).ctypes.data == address  # the least that is large enough


@given(st.integers(1, 2**33))
def test_a_buffer_is_at_most_an_eighth_larger(nbytes):
    """Of what takes more than a few pages; and it is whole pages."""
    for size in (buffer_nbytes(nbytes), block_nbytes(nbytes)):
        assert nbytes <= size < nbytes + max(4096, nbytes / 8 + 1) and size % 4096 == 0


def test_buffers_of_all_sizes_share_arenas():
    """Fifty odd sizes take the memory that they are counted with, and no part of a huge page each."""
    pool = BufferPool()
    kept = [pool.take(size) for size in range(70_000, 3_000_000, 60_000)]
    assert len({id(buffer._arena) for buffers in pool._all.values() for buffer in buffers}) <= 1 + 1.1 * sum(map(held_nbytes, kept)) // ARENA_NBYTES
    assert pool.num_bytes == sum(map(held_nbytes, kept))


def test_pools_of_transforms_are_known_while_they_live():
    """Also that of one that came by pickle, as a worker's does; others are nobody's but their owner's."""
    before = TransformPool.living()
    pool = pickle.loads(pickle.dumps(TransformPool()))
    other = BufferPool()
    assert [one for one in TransformPool.living() if one not in before] == [pool] and other not in TransformPool.living()
    del pool
    gc.collect()
    assert TransformPool.living() == before


def test_collecting_a_stream_of_batches_does_not_alias(tmp_path):
    """list(stream) holds every batch at once: none was overwritten by a later one."""

    with ss.ShardWriter(str(tmp_path / "d"),
                        schema=ss.Schema(a=ss.Dense("uint16", (64,)), t=ss.Ragged("uint16"))) as writer:  # fmt: skip
        rows = np.repeat(np.arange(5000, dtype=np.uint16), 64).reshape(-1, 64)
        writer.write_batch({"a": rows, "t": (rows.ravel(), np.arange(5001) * 64)})
    for epoch in range(2):
        batches = list(ss.ShardStream(str(tmp_path / "d"), batch_size=100))
        assert [int(b["a"][i, -1]) for b in batches for i in range(100)] == list(range(5000))
        assert [int(v) for b in batches for v in b["t"].values[::64]] == list(range(5000))


@pytest.mark.parametrize("is_loader", [False, True])
def test_a_batch_that_was_let_go_of_gives_its_memory_to_the_next(tmp_path, is_loader):
    """Nothing but the loop keeps a batch while the next one is made: without one all are made in the same memory, and a loop that has a
    name for its batch sees two take turns.
    """
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(x=ss.Sparse(1000))) as writer:
        writer.write_batch({"x": (np.arange(1000), np.arange(1001))})
    stream = ss.ShardStream(str(tmp_path / "d"), batch_size=50)
    iterator = iter(ss.StreamLoader(stream) if is_loader else stream)
    assert len({next(iterator)["x"].data_ptr() for _ in range(20)}) == 1
    assert next(iterator, None) is None
    iterator, seen = iter(ss.StreamLoader(stream) if is_loader else stream), set()
    for number, batch in enumerate(iterator):
        seen.add(batch["x"].data_ptr())
        assert batch["x"].nonzero()[:, 1].tolist() == list(range(50 * number, 50 * number + 50))
    assert len(seen) == 2


def test_the_memory_that_a_view_keeps():
    """Of a pool's buffer all of it, whatever part is asked about; of numpy's own arrays their bytes."""
    pool = BufferPool()
    array = pool.empty((100_000,), np.uint8)
    for view in (array, array[8:40].view(np.int64), array[:64].view(np.uint32).reshape(2, -1)[1:]):
        assert held_nbytes(view) == buffer_nbytes(100_000)
    small = pool.empty((1000,), np.uint8)
    assert held_nbytes(small) == held_nbytes(small[8:16]) == 1000


LEARNT = """
import ctypes

from shardstream.buffers import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.mallinfo2.restype = type("mallinfo2", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in
    ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]})


def takes_a_map(nbytes):
    begun = libc.mallinfo2().hblks
    libc.malloc(ctypes.c_size_t(nbytes))
    return libc.mallinfo2().hblks - begun


print(takes_a_map(20_000_000))
keep_freed_memory()
print(takes_a_map(20_000_000))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries of C have other rules")
def test_malloc_keeps_what_is_freed_once_told_so():
    """What it takes from its heap, no longer by a map of its own, is kept up to twice the size; in a fresh process, since malloc
    may have learnt from other tests.
    """
    # Whoever sets a limit by the environment keeps it, as dask's nannies do, in the process that starts them, too.
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    run = subprocess.run([sys.executable, "-c", LEARNT], stdout=subprocess.PIPE, text=True, check=True, env=plain)
    assert run.stdout.split() == ["1", "0"]


def test_streams_of_strings_tell_malloc(tmp_path):
    with ss.ShardWriter(str(tmp_path), schema=ss.Schema(x=ss.Bytes())) as writer:
        writer.write({"x": b"some"})
    keep_freed_memory.cache_clear()
    assert len(list(ss.ShardStream(str(tmp_path), batch_size=1))) == 1
    assert keep_freed_memory.cache_info().misses == 1
