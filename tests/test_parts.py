"""Neighbouring blocks of a lane come by one request: fewer requests, the same samples, each block once, within the
limit.
"""

import collections
import contextlib
import functools
import http.server
import os
import threading
import time
import uuid

import numpy as np
import pytest

import shardstream as ss
from shardstream._native.crc32c import crc32c
from shardstream.errors import ChecksumError, ShardError, ShardNotFoundError, StorageRefused
from shardstream.order.batches import BatchPlan
from shardstream.order.state import SHUFFLE, State
from shardstream.reader import BlockReader
from shardstream.rowmaker import RowMaker, Task
from shardstream.source import open_source
from shardstream.storage import Cache, Fetcher, Store, fetch
from shardstream.window import WindowReader
from tests.web_server import serving

SCHEMA = ss.Schema(t=ss.Ragged("uint8"), y=ss.Dense("int64"))
NUM_SAMPLES, BLOCK_ROWS = 6000, 100


@contextlib.contextmanager
def written(block_rows: int, num_samples: int):
    """Yield the URL of a dataset in fsspec's memory store, in blocks of so many rows."""
    url = f"memory://{uuid.uuid4().hex}/data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shardstream.shardfile.MAX_BLOCK_SAMPLES", block_rows)
        with ss.ShardWriter(url, schema=SCHEMA, shard_nbytes="40kB") as writer:
            for begin in range(0, num_samples, BLOCK_ROWS):
                y = np.arange(begin, begin + BLOCK_ROWS)
                writer.write_batch({"t": (np.repeat(y % 251, 20).astype(np.uint8), np.arange(BLOCK_ROWS + 1) * 20), "y": y})
    yield url
    Store(url).delete([name for name, _ in Store(url).list()])


@pytest.fixture
def url():
    """A dataset of 60 small blocks in several shards."""
    with written(BLOCK_ROWS, NUM_SAMPLES) as url:
        yield url


@pytest.fixture
def gets(monkeypatch):
    """The ranges asked for, as ``(url, begin, end)``."""
    asked, start_get = [], fetch.start_get

    def spy(url, begin, end, *rest):
        asked.append((url, begin, end))
        return start_get(url, begin, end, *rest)

    monkeypatch.setattr(fetch, "start_get", spy)
    return asked


def stream(url, **options):
    return ss.ShardStream(url, batch_size=64, **{"shuffle": True, "lanes": 4, "window": 400, "seed": 5, **options})


def values(stream) -> list[int]:
    found = []
    for batch in stream:
        rows = zip(batch["y"].tolist(), batch["t"].offsets[:-1].tolist(), batch["t"].offsets[1:].tolist(), strict=True)
        for y, begin, end in rows:
            assert set(batch["t"].values[begin:end].tolist()) == {y % 251} and end - begin == 20
            found.append(y)
    return found


def test_fewer_requests_and_the_same_order(url, gets, monkeypatch):
    """An epoch costs a few requests a lane and shard instead of one a block, and its samples come in the same order."""
    joined = values(stream(url))
    num_joined = len(gets)
    monkeypatch.setattr("shardstream.parts.MAX_PART_NBYTES", 1)
    assert values(stream(url)) == joined and sorted(joined) == list(range(NUM_SAMPLES))
    num_alone = len(gets) - num_joined
    num_shards = len(ss.Dataset(url).shards)
    assert num_alone >= 60 + num_shards
    assert num_joined <= 3 * (num_shards + 4)


def test_parts_are_joined_when_memory_is_full(url, monkeypatch):
    """What a chunk needs comes together even when more than half of the memory is spoken for."""
    asked, gate, start_get = [], threading.Event(), fetch.start_get

    def wait(url, begin, end, *rest):
        if end - begin > 4000:  # not an index
            asked.append(end - begin)
            gate.wait(60)
        return start_get(url, begin, end, *rest)

    monkeypatch.setattr(fetch, "start_get", wait)
    # about 19 blocks, 2 of them a chunk
    one = ss.ShardStream(url, batch_size=64, read=ss.ReadPolicy(memory_limit=128_000))
    reading = threading.Thread(target=lambda: [None for _ in one])
    reading.start()
    num_asked = -1
    while num_asked < 4 or num_asked != len(asked):  # until memory is full
        num_asked = len(asked)
        time.sleep(0.2)
    gate.set()
    reading.join()
    assert len(asked) <= 36  # 23 to 31; 43 or more if only what fits into half of the memory were joined


@pytest.mark.parametrize("lanes, window", [(1, 1), (3, 3), (4, 400), (7, 777), (96, 16384), (96, 96)])
@pytest.mark.parametrize("start", [0, 1234])
def test_no_byte_is_fetched_twice(url, gets, lanes, window, start):
    """Whatever lanes, window and start, one reader asks for every byte at most once but where a block reaches into two
    lanes.
    """
    one = stream(url) if lanes == 1 else stream(url, lanes=lanes, window=window)
    one = ss.ShardStream(url, batch_size=64) if lanes == 1 else one
    one.load_state_dict({**one.state_dict(), "position": start})
    gets.clear()
    found = values(one)
    assert len(set(found)) == len(found) == NUM_SAMPLES - start
    times = collections.Counter()
    for shard_url, begin, end in gets:
        times.update((shard_url, place) for place in range(begin // 512, end // 512))
    num_shared = sum(count - 1 for count in times.values())
    block = max(end - begin for _, begin, end in gets) // 512 if lanes == 96 else 2 * BLOCK_ROWS * 28 // 512 + 4
    assert num_shared <= 2 * lanes * block if lanes > 1 else num_shared == 0


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_lanes(url, world_size):
    """Ranks whose number divides the lanes, or does not, get every sample once between them."""
    with pytest.warns(UserWarning, match="lanes") if world_size == 3 else contextlib.nullcontext():
        found = [y for rank in range(world_size) for y in values(stream(url, rank=rank, world_size=world_size, version=1))]
    assert sorted(found) == list(range(NUM_SAMPLES))


@pytest.mark.parametrize("world_size, block_rows, limit", [(1, 100, 60_000), (1, 100, 300_000), (3, 2, 100_000)])
def test_memory_limit_holds_and_all_of_it_comes_back(monkeypatch, world_size, block_rows, limit):
    """Parts keep within memory_limit, and after the epoch nothing is held: no block waits for a plan that never comes.

    With 3 ranks and 5 lanes a rank owns every third position of each lane, and needs only some blocks of two rows.
    """
    monkeypatch.setattr(WindowReader, "_decide_to_keep", lambda self: None)  # a dataset as small as this would stay
    with written(block_rows, 1500) as url:
        recipe = stream(url, read=ss.ReadPolicy(memory_limit=limit)).recipe
        source = open_source(url)
        task = Task(State(source.id, source.version, SHUFFLE, 5, 0, 5, 5, 0), BatchPlan(1500, 0, 64, world_size, False),
                    0)  # fmt: skip
        with RowMaker(recipe.reader(source), task.order(source), task.positions(), recipe) as maker:
            window = maker._window
            rows = [len(maker.make(count).columns["y"]) for count in task.num_rows()]
            with pytest.raises(IndexError):
                window._next_chunk()
            assert sum(rows) == 1500 // world_size
            assert window.budget.peak_nbytes <= 1.1 * limit
            assert window.budget.held_nbytes == sum(part.nbytes for part in {block.part for block in window._shared.values()})
            assert set(window._shared) == set(window._ahead) and len(window._ahead) <= 5


def test_one_bad_block_is_one_error(url, gets):
    """A block that was spoilt at rest is an error of its own; its neighbours in the same request are delivered."""
    import fsspec

    shard = ss.Dataset(url).shards[1]
    index, _ = BlockReader(open_source(url), None, Fetcher()).index(1)
    offset = int(index.extents[5, 0, 0])
    files = fsspec.filesystem("memory")
    data = bytearray(files.cat_file(shard))
    data[offset + 300] ^= 1
    files.pipe_file(shard, bytes(data))
    retry = ss.RetryPolicy(max_attempts=2, first_delay_s=0.001)
    skipping = stream(url, on_error="skip", read=ss.ReadPolicy(max_skipped=BLOCK_ROWS, retry=retry))
    assert len(values(skipping)) == NUM_SAMPLES - BLOCK_ROWS and skipping.report.num_skipped == BLOCK_ROWS
    with pytest.raises(ChecksumError) as caught:
        values(stream(url, read=ss.ReadPolicy(retry=retry)))
    assert (caught.value.shard, caught.value.block, caught.value.field) == (shard, 5, "t")


def test_a_missing_shard_in_mid_epoch(url):
    """A shard deleted after its index was read is ShardNotFoundError that names it."""
    one = stream(url)
    reader = one.recipe.reader(one.source)
    reader.index(0)
    Store(url).delete([one.source.url(0).rpartition("/")[2]])
    found = reader.read_many(0, [1, 2, 3])
    assert all(isinstance(error, ShardNotFoundError) for error in found) and one.source.url(0) in str(found[0])


# -- the fetcher's side -------------------------------------------------------------------------


DATA = np.random.default_rng(2).integers(0, 256, 400_000, np.uint8)


def spans_and_checks(spans):
    def check(begin, end):
        expected = crc32c(DATA[begin:end])

        def verify(data):
            if crc32c(data) != expected:
                raise ChecksumError("wrong.", offset=begin)

        return verify

    return spans, [check(*span) for span in spans]


@pytest.fixture
def place():
    store = Store(f"memory://{uuid.uuid4().hex}")
    store.put_bytes("s.tar", DATA.tobytes())
    return f"{store.url}/s.tar"


def test_gaps_and_groups(place, gets):
    """Ranges a little apart share a GET; a wide gap begins another; all of them are the right bytes."""
    spans, checks = spans_and_checks([(0, 1000), (1000, 3000), (3512, 9000), (9000 + fetch.MAX_GAP_NBYTES + 1, 90_000), (200_000, 200_001)])
    found = Fetcher().read_spans(place, spans, checks)
    assert all((data == DATA[begin:end]).all() for data, (begin, end) in zip(found, spans, strict=True))
    assert sorted(end - begin for _, begin, end in gets) == sorted([9000, 90_000 - 9001 - fetch.MAX_GAP_NBYTES, 1])


@pytest.mark.parametrize("gap_nbytes, num_arrays", [(0, 1), (300, 1), (400, 10)])
def test_gaps_are_not_held(place, gets, gap_nbytes, num_arrays):
    """Of one reply ranges are views, but copies where a quarter of it or more is between them: nobody counts that."""
    spans, checks = spans_and_checks([(begin, begin + 1000) for begin in range(0, 10 * (1000 + gap_nbytes), 1000 + gap_nbytes)])
    found = Fetcher().read_spans(place, spans, checks)
    assert all((data == DATA[begin:end]).all() for data, (begin, end) in zip(found, spans, strict=True)) and len(gets) == 1
    assert len({id(data if data.base is None else data.base) for data in found}) == num_arrays


def test_cached_blocks_are_not_fetched(place, gets, tmp_path):
    """What the cache has is not asked for; what it lacks, on both sides of that, is, and is then kept."""
    spans, checks = spans_and_checks([(begin, begin + 20_000) for begin in range(0, 200_000, 20_000)])
    fetcher = Fetcher(cache=Cache(tmp_path, "10MB"))
    fetcher.read_spans(place, spans[4:6], checks[4:6])
    gets.clear()
    for _ in range(2):
        found = fetcher.read_spans(place, spans, checks)
        assert all((data == DATA[begin:end]).all() for data, (begin, end) in zip(found, spans, strict=True))
    assert [(begin, end) for _, begin, end in gets] == [(0, 80_000), (120_000, 200_000)]


def test_an_object_that_ends_early(place):
    """Of an object that was cut, the whole blocks are given and the others are errors with the place where it ends."""
    spans, checks = spans_and_checks([(0, 1000), (1000, 2000), (2000, 3000)])
    Store(place.rpartition("/")[0]).put_bytes("s.tar", DATA[:1500].tobytes())
    first, *others = Fetcher(retry=ss.RetryPolicy(first_delay_s=0.001)).read_spans(place, spans, checks)
    assert (first == DATA[:1000]).all()
    assert [(type(error), error.offset) for error in others] == [(ShardError, 1500), (ShardError, 2000)]


def test_long_ranges_are_divided(place, gets, monkeypatch):
    """A long range comes in pieces, each a GET of its own, and is right; a wrong one is asked for once more."""
    monkeypatch.setattr(fetch, "PIECE_NBYTES", 30_000)
    _, [check] = spans_and_checks([(7, 390_007)])
    assert (Fetcher().read(place, 7, 390_007, verify=check) == DATA[7:390_007]).all()
    assert len(gets) == 13 and sum(end - begin for _, begin, end in gets) == 390_000
    with pytest.raises(ChecksumError):
        Fetcher().read(place, 0, 390_000, verify=check)
    assert len(gets) == 3 * 13


# -- plain web servers --------------------------------------------------------------------------


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, with or without ranges."""

    honours_ranges = True
    asked: list = []

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        type(self).asked.append(self.path)
        path = self.translate_path(self.path)
        if not os.path.isfile(path):
            return self.send_error(404)
        with open(path, "rb") as file:
            data = file.read()
        head, _, tail = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if head and self.honours_ranges:
            if int(head) >= len(data):
                return self.send_error(416)
            data = data[int(head) : int(tail) + 1]
        self.send_response(206 if head and self.honours_ranges else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def web(tmp_path):
    """A dataset on local disk, and a web server that gives it out."""
    with ss.ShardWriter(str(tmp_path / "data"), schema=SCHEMA, shard_nbytes="40kB") as writer:
        for y in range(2000):
            writer.write({"t": [y % 251] * 20, "y": y})
    handler = type("Handler", (RangeHandler,), {"asked": []})
    with serving(functools.partial(handler, directory=str(tmp_path))) as url:
        yield handler, f"{url}/data"


def test_datasets_on_plain_web_servers(web):
    """A dataset streams from http:// as from S3, by GETs of ranges alone."""
    handler, url = web
    assert sorted(values(stream(url))) == list(range(2000))
    assert handler.asked


def test_a_server_without_ranges_is_told(web):
    """A web server that answers a range with the whole file is an error that says so."""
    handler, url = web
    handler.honours_ranges = False
    with pytest.raises(StorageRefused, match="ignores ranges"):
        values(stream(url))
