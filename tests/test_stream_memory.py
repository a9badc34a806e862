"""memory_limit: what a stream holds is counted before it is taken, and stays within it."""

import gc
import io
import threading
import time
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

import shardstream as ss
from shardstream.budget import MemoryBudget
from shardstream.buffers import BufferPool, TransformPool
from shardstream.codecs.shard import MAX_BLOCK_NBYTES
from shardstream.collate import column_length
from shardstream.reader import BlockReader, _Growth
from shardstream.rowmaker import RowMaker, Task
from shardstream.source import SPARSE_GROWTH, open_source
from shardstream.storage import Fetcher
from shardstream.transforms import DecodeImages, Images
from shardstream.window import WindowReader


def test_free_buffers_count_towards_the_limit(tmp_path):
    """Blocks held and buffers that wait to be used again stay within memory_limit together, also when sizes of blocks
    change.
    """
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(b=ss.Bytes())) as writer:
        for i in range(60):
            writer.write({"b": bytes((600_000, 1_500_000, 3_500_000)[i // 20])})
    limit, totals = 30_000_000, []

    class Watched(MemoryBudget):
        def arrive(self, expected_nbytes, nbytes):
            super().arrive(expected_nbytes, nbytes)
            totals.append(self._pool.num_bytes + self._batches.num_idle_bytes + self.batch_nbytes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shardstream.window.MemoryBudget", Watched)
        stream = ss.ShardStream(str(tmp_path / "d"), batch_size=1, epochs=2, read=ss.ReadPolicy(memory_limit=limit))
        assert sum(len(batch["b"]) for batch in stream) == 120
    assert limit / 2 < max(totals) <= 1.1 * limit, max(totals)


@pytest.mark.parametrize("holder", ["blocks", "a batch", "a transform", "strings"])
def test_whoever_holds_memory_it_counts(holder):
    """Of a limit of 1 MB, 600 kB leave room for 300 kB and not for 500, and for nothing that is not needed yet; once let go of, for all."""
    reader = SimpleNamespace(pool=BufferPool(), batches=BufferPool(), outside={})
    budget, transforms = MemoryBudget(1_000_000, reader), TransformPool()
    budget.wait_for_plan(0)  # nobody will let go of anything: reserve() does not wait
    held = {"a batch": reader.batches, "a transform": transforms}[holder].take(600_000) if holder.startswith("a ") else None
    if holder == "blocks":
        budget.expect(600_000)
    if holder == "strings":
        reader.outside["x"] = 600_000
    assert not budget.reserve(500_000) and not budget.has_room(1) and budget.held_nbytes == (600_000 if holder == "blocks" else 0)
    assert budget.reserve(300_000)
    del held
    reader.outside.clear()
    budget.adjust(-budget.held_nbytes)
    assert budget.has_room(500_000) and not budget.has_room(500_001) and budget.reserve(1_000_000)


@pytest.mark.parametrize("holder", ["pool", "batches", "a transform"])
def test_free_buffers_make_room_for_blocks_that_have_come(holder):
    """Of a limit of 1 MB, a free buffer of 600 kB stays beside blocks of 200 kB, and goes when there are 500."""
    reader = SimpleNamespace(pool=BufferPool(), batches=BufferPool(), outside={})
    pool = TransformPool() if holder == "a transform" else getattr(reader, holder)
    budget = MemoryBudget(1_000_000, reader)
    pool.take(600_000)
    for nbytes, is_left in ((200_000, True), (300_000, False)):
        budget.expect(nbytes)
        budget.arrive(nbytes, nbytes)
        assert bool(pool.num_bytes) == bool(pool.num_idle_bytes) == is_left


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_the_default_window_counts_decoded_bytes(tmp_path, layout):
    """Samples that are small only as stored don't get a window that memory_limit, a GB, could not hold."""
    schema = ss.Schema(x=ss.Dense("uint8", (400_000,))) if layout == "dense" else ss.Schema(x=ss.Sparse(2**20))
    with ss.ShardWriter(str(tmp_path / "d"), schema=schema, compression="zstd") as writer:
        for i in range(8):
            indices = np.flatnonzero(np.random.default_rng(i).random(2**20) < 0.01)
            writer.write({"x": np.zeros(400_000, np.uint8) if layout == "dense" else indices})
    state = ss.ShardStream(str(tmp_path / "d"), batch_size=4, shuffle=True).state_dict()
    assert 96 <= state["window"] <= 2**28 // (400_000 if layout == "dense" else 40_000)


@pytest.mark.parametrize("compression, memory_limit", [(None, 1_300_000), ("zstd", 1_700_000)])
def test_a_tight_memory_limit_is_no_deadlock(tmp_path, monkeypatch, compression, memory_limit):
    """A batch that ends one chunk and begins the next never waits for memory for ever, nor is the limit passed."""
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(a=ss.Dense("uint8", (4096,))),
                        compression=compression) as writer:  # fmt: skip
        for i in range(320):
            writer.write({"a": np.full(4096, i % 251)})
            if i % 16 == 15:
                writer._close_block()
    reserve, peaks = MemoryBudget.reserve, []

    def slow_reserve(self, nbytes):
        time.sleep(0.005)  # blocks come in between
        found = reserve(self, nbytes)
        peaks.append(self.peak_nbytes)
        return found

    monkeypatch.setattr(MemoryBudget, "reserve", slow_reserve)
    read = ss.ReadPolicy(memory_limit=memory_limit)
    stream = ss.ShardStream(str(tmp_path / "d"), batch_size=24, shuffle=True, lanes=8, window=128, read=read)
    got: list[int] = []
    reading = threading.Thread(target=lambda: got.extend(len(batch["a"]) for batch in stream), daemon=True)
    reading.start()
    reading.join(30)
    assert sum(got) == 320
    assert 400_000 < max(peaks) <= memory_limit


def test_kept_blocks_go_once_the_rest_will_not_fit(tmp_path, monkeypatch):
    """An epoch that begins with samples so small that all of it would be kept holds none but what it needs when large ones come."""
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(b=ss.Bytes())) as writer:
        for number in range(1000):
            writer.write({"b": bytes(100 if number < 500 else 50_000)})
            if number % 50 == 49:
                writer._close_block()
    idle, take = [], WindowReader.take

    def watched(self, num_rows):
        taken = take(self, num_rows)
        with self._lock:
            if not self._keeps:
                idle.append(sum(shared.num_plans == 0 for shared in self._shared.values()))
        return taken

    monkeypatch.setattr(WindowReader, "take", watched)
    monkeypatch.setattr("shardstream.window.CHUNK_SAMPLES", 100)
    stream = ss.ShardStream(str(tmp_path / "d"), batch_size=50, read=ss.ReadPolicy(memory_limit="16MB"))
    assert sum(len(batch["b"]) for batch in stream) == 1000
    assert 5 < len(idle) < 20 and not any(idle)


def test_blocks_kept_from_the_epoch_before_count(tmp_path, monkeypatch):
    """What nobody has to read again takes as much of the limit as when it was read."""
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(a=ss.Dense("uint8", (1000,)))) as writer:
        writer.write_batch({"a": np.zeros((3000, 1000), np.uint8)})
    budgets, made, held = [], MemoryBudget.__init__, []
    monkeypatch.setattr(MemoryBudget, "__init__", lambda self, *args: (made(self, *args), budgets.append(self))[0])
    for number, _ in enumerate(ss.ShardStream(str(tmp_path / "d"), batch_size=100, shuffle=True, epochs=3)):
        if number % 30 == 29:
            held.append(budgets[-1].held_nbytes)
    assert len(budgets) == len(held) == 3 and held[0] == held[1] == held[2] > 3_000_000


def test_stored_bytes_count_while_they_are_decoded(tmp_path, monkeypatch):
    """A compressed local block takes both at once, and afterwards what it became."""
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(a=ss.Dense("uint8", (1000,))), compression="zstd") as writer:
        writer.write_batch({"a": np.random.default_rng(0).integers(0, 256, (500, 1000), np.uint8)})
    held, budgets, read_many, made = [], [], BlockReader.read_many, MemoryBudget.__init__

    def watched(self, *args):
        held.append(budgets[0].held_nbytes)
        return read_many(self, *args)

    monkeypatch.setattr(BlockReader, "read_many", watched)
    monkeypatch.setattr(MemoryBudget, "__init__", lambda self, *args: (made(self, *args), budgets.append(self))[0])
    iterator = iter(ss.ShardStream(str(tmp_path / "d"), batch_size=10, epochs=2))
    next(iterator)
    assert len(held) == 1 and 500_000 <= budgets[0].held_nbytes < 540_000  # a buffer is up to an eighth larger
    assert 500_000 <= held[0] - budgets[0].held_nbytes < 540_000  # zstd makes nothing of it


def test_long_strings_are_copied_once(tmp_path):
    """Each from its block, not by way of a buffer that the whole batch is gathered into; short ones are."""
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(long=ss.Text(), short=ss.Bytes())) as writer:
        for number in range(100):
            writer.write({"long": str(number) * 5000, "short": bytes([number]) * 2000})
    for field, is_gathered in (("long", False), ("short", True)):
        stream = ss.ShardStream(str(tmp_path / "d"), batch_size=50, fields=[field])
        assert [row[:1] for batch in stream for row in batch[field]] == [str(n)[:1] if field == "long" else bytes([n]) for n in range(100)]
        assert bool(stream._reader.batches.num_bytes) is is_gathered


@pytest.mark.timeout(60)
def test_leaving_while_the_planner_waits_for_memory(tmp_path, monkeypatch):
    """It waits for room that would come only if the loop went on."""
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(a=ss.Dense("uint8", (1000,)))) as writer:
        for _ in range(120):
            writer.write_batch({"a": np.zeros((100, 1000), np.uint8)})
            writer._close_block()
    budgets, made = [], MemoryBudget.__init__
    monkeypatch.setattr(MemoryBudget, "__init__", lambda self, *args: (made(self, *args), budgets.append(self))[0])
    iterator = iter(ss.ShardStream(str(tmp_path / "d"), batch_size=100, shuffle=True, lanes=8, window=4000, read=ss.ReadPolicy(memory_limit="7MB")))
    next(iterator)
    while not budgets[0]._is_waiting:
        time.sleep(0.001)
    iterator.close()
    assert "shardstream-plan" not in [thread.name for thread in threading.enumerate()]


def test_a_window_that_cannot_fit_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    """Where sizes are known from the indexes, no bytes are fetched to find it out."""
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(a=ss.Dense("uint8", (1000,)))) as writer:
        writer.write_batch({"a": np.zeros((4000, 1000), np.uint8)})
    monkeypatch.setattr("shardstream.reader.BlockReader.read_many", lambda *_: pytest.fail("a block was read"))
    with pytest.raises(ss.ConfigError, match=r"shuffling needs .* at once \(\d blocks; 4 lanes"):
        next(iter(ss.ShardStream(str(tmp_path / "d"), batch_size=8, shuffle=True, lanes=4, read=ss.ReadPolicy(memory_limit="1MB"))))


@pytest.mark.parametrize("field, row", [(ss.Text(), "a" * 20_000), (ss.Sparse(2**20), np.arange(5000))])
def test_what_decodes_larger_than_guessed_is_counted(tmp_path, monkeypatch, field, row):
    """Blocks that grow a hundredfold keep to the limit once a chunk of them was seen; if one can't fit at all, that is
    an error.
    """
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(t=field), compression="zstd") as writer:
        for _ in range(640):
            writer.write({"t": row})
    peaks, close = [], WindowReader.close
    monkeypatch.setattr(WindowReader, "close", lambda self: (peaks.append(self.budget.peak_nbytes), close(self)))

    def read(memory_limit):
        stream = ss.ShardStream(str(tmp_path / "d"), batch_size=64, sparse="jagged", shuffle=True, lanes=4, window=64,
                                read=ss.ReadPolicy(memory_limit=memory_limit))  # fmt: skip
        return [batch["t"] for batch in stream]

    assert len(read("12MB")) == 10 and 4_000_000 < max(peaks) <= 12_000_000
    with pytest.raises(ss.ConfigError, match="memory_limit"):
        read("2MB")


def test_blocks_are_guessed_by_those_that_grew_most(tmp_path):
    """By their bytes or their samples, whichever gives more, up to the largest there was or that writers close blocks at."""
    grown = _Growth().and_of(1000, 10, 5000).and_of(100, 10, 100)
    assert grown.estimate(200, 1) == 1000 and grown.estimate(1, 3) == 1500
    assert grown.estimate(10**9, 1) == MAX_BLOCK_NBYTES and grown.and_of(1, 1, 3 * MAX_BLOCK_NBYTES).estimate(10**9, 1) == 3 * MAX_BLOCK_NBYTES
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(x=ss.Sparse(2**20))) as writer:
        for seed in range(50):
            writer.write({"x": np.flatnonzero(np.random.default_rng(seed).random(2**20) < 0.001)})
    reader = BlockReader(open_source(str(tmp_path / "d")), None, Fetcher())
    index, _ = reader.index(0)
    stored_nbytes = int(index.extents[0, 0, 1])
    assert SPARSE_GROWTH * stored_nbytes <= reader.estimate_nbytes(0, 0) < 1.2 * SPARSE_GROWTH * stored_nbytes  # nothing is known yet
    nbytes = reader.read(0, 0).nbytes
    assert 2 * stored_nbytes < nbytes <= reader.estimate_nbytes(0, 0) < 1.2 * nbytes


def _photos():
    """Rows of JPEGs of about 20 kB, of two sizes."""
    from PIL import Image

    images = []
    for i in range(2):
        out = io.BytesIO()
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (90 + 30 * i, 160, 3), np.uint8)).save(out, "JPEG", quality=60)
        images.append(out.getvalue())
    return [{"x": images[i % 2]} for i in range(600)]


def _texts(num):
    """Rows of 5 kB, first such as zstd hardly makes smaller, then such as it makes nothing of."""
    rng = np.random.default_rng(1)
    noise = rng.integers(32, 127, 3_000_000, np.uint8).tobytes().decode()
    return [{"x": noise[i * 1000 : i * 1000 + 5000] if i < num // 2 else noise[i] * 5000} for i in range(num)]


def _tokens(num):
    rng = np.random.default_rng(1)
    return [{"x": (rng.zipf(1.3, int(size)) % 50_000).astype(np.uint16)} for size in rng.integers(100, 4000, num)]


def _joined(first, second):
    return ss.batched(ss.placed(lambda columns, place: second(first(columns), place)))


@pytest.mark.parametrize("field, rows, transform, window, limit", [
    (ss.Text(), lambda: _texts(5000), lambda: None, 1024, 9_000_000),
    (ss.Ragged("uint16"), lambda: _tokens(3000), lambda: None, 256, 9_000_000),
    (ss.Bytes(), _photos, lambda: _joined(DecodeImages("x", size=(64, 64)), Images("x")), 256, 12_000_000),
    (ss.Bytes(), _photos, lambda: _joined(DecodeImages("x", size=100), Images("x", crop=(96, 96))), 256, 18_000_000),
], ids=["text", "ragged", "decoded images", "images of many sizes"])  # fmt: skip
def test_all_memory_keeps_to_the_limit(tmp_path, monkeypatch, field, rows, transform, window, limit):
    """What buffers of blocks, batches and transforms take, lent or free, and strings besides, is never more than the limit,
    with what zstd makes small, the default transforms, and a shuffled window that takes over half of it.
    """
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(x=field), compression="zstd", shard_nbytes="500kB") as writer:
        for row in rows():
            writer.write(row)
    totals, arrive, batch = [], MemoryBudget.arrive, WindowReader.take

    def total(budget):
        pools = budget._pool, budget._batches, *TransformPool.living()
        totals.append(sum(pool.num_bytes for pool in pools) + sum(budget._outside.values()))

    monkeypatch.setattr(MemoryBudget, "arrive", lambda self, *args: (arrive(self, *args), total(self))[0])
    monkeypatch.setattr(WindowReader, "take", lambda self, *args: (total(self.budget), batch(self, *args))[1])
    stream = ss.ShardStream(str(tmp_path / "d"), batch_size=24, shuffle=True, lanes=4, window=window, epochs=2, transform=transform(),
                            read=ss.ReadPolicy(memory_limit=limit))  # fmt: skip
    assert sum(column_length(batch["x"]) for batch in stream) == 2 * stream.source.total_samples
    assert limit / 2 < max(totals) <= 1.1 * limit, max(totals)


@pytest.mark.parametrize("memory_limit", ["1GB", "40kB"])
def test_nothing_of_an_epoch_waits_for_a_garbage_collection(tmp_path, monkeypatch, memory_limit):
    """Not what planned it, with its arrays, either: whether blocks are kept, or the loop ends early while the next chunk waits for room."""
    with ss.ShardWriter(str(tmp_path), schema=ss.Schema(a=ss.Dense("uint8", (64,)))) as writer:
        for _ in range(20):
            writer.write_batch({"a": np.zeros((64, 64), np.uint8)})
            writer._close_block()
    made, init = [], WindowReader.__init__
    monkeypatch.setattr(WindowReader, "__init__", lambda self, *args: (made.append(weakref.ref(self)), init(self, *args))[1])
    stream = ss.ShardStream(str(tmp_path), batch_size=32, read=ss.ReadPolicy(memory_limit=memory_limit))
    gc.collect()
    gc.disable()
    try:
        for stop_at in (40, 40, 20):
            for number, batch in enumerate(stream, 1):
                del batch
                if number == stop_at:
                    break
    finally:
        gc.enable()
    assert len(made) == 3 and [window() for window in made] == [None] * 3


@pytest.mark.parametrize("transform, asked", [(None, [(32, 3000)]), (lambda row: {"x": row["x"][:2500]}, [(32, 2500)]), (ss.batched(lambda columns: columns), [])],
                         ids=["no transform", "of rows", "of columns"])  # fmt: skip
def test_what_is_delivered_lies_where_the_pool_says(tmp_path, transform, asked):
    """A worker's pool is its slot: what it hands over is made there, but not what a transform is given, which it may keep. By default
    all of it lies in the pool of batches, which memory_limit counts.
    """
    with ss.ShardWriter(str(tmp_path), schema=ss.Schema(x=ss.Dense("uint8", (3000,)))) as writer:
        writer.write_batch({"x": np.zeros((64, 3000), np.uint8)})
    stream = ss.ShardStream(str(tmp_path), batch_size=32, transform=transform)
    shapes, pool = [], BufferPool()
    slot = SimpleNamespace(empty=lambda shape, dtype: (shapes.append(shape), pool.empty(shape, dtype))[1])
    reader, task = stream.recipe.reader(stream.source), Task(stream.state, stream.plan(0), 0)
    for given, used in ((slot, pool), (None, reader.batches)):
        with RowMaker(reader, task.order(stream.source), task.positions(), stream.recipe, given) as maker:
            columns = maker.make(32).columns
        lent = used.num_bytes - used.num_idle_bytes
        assert (shapes == asked and (lent >= columns["x"].nbytes) == bool(asked)) if given else lent >= columns["x"].nbytes
        del columns
        assert used.num_bytes == used.num_idle_bytes
