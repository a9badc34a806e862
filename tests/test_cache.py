"""The cache of remote blocks: what it gives is right, what is spoilt in it is fetched again, its limit is kept."""

import json
import multiprocessing
import os
import pickle
import random
import signal
import time
import uuid

import numpy as np
import pytest

from shardstream._native.crc32c import crc32c
from shardstream.cli import main
from shardstream.errors import ChecksumError, ConfigError, ShardNotFoundError
from shardstream.storage import Cache, Fetcher, Store
from shardstream.storage import cache as caches
from shardstream.storage.cache import USAGE

BLOCK, NUM_BLOCKS, NUM_SHARDS = 50_000, 8, 12
SPAWN = multiprocessing.get_context("spawn")


def block(shard: int, number: int) -> np.ndarray:
    return np.random.default_rng([shard, number]).integers(0, 256, BLOCK, np.uint8)


def url(shard: int) -> str:
    return f"s3://bucket/data/{shard:03d}.tar"


def on_disk(folder) -> int:
    """Return the bytes on disk of all files of a folder."""
    return sum(entry.stat().st_blocks * 512 for entry in os.scandir(folder) if entry.name != USAGE)


def is_cached(cache: Cache, shard: int, number: int) -> bool:
    data = cache.read(url(shard), number * BLOCK, (number + 1) * BLOCK, lambda n: np.empty(n, np.uint8))
    return data is not None and (data == block(shard, number)).all()


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache", "1MB")


def test_a_written_block_is_read_back(cache):
    """A block that was written is given back; blocks beside it, and other shards, are not there."""
    cache.write(url(0), 3 * BLOCK, block(0, 3))
    assert is_cached(cache, 0, 3)
    assert not any(is_cached(cache, *place) for place in ((0, 0), (0, 2), (0, 4), (1, 3)))


def test_holes_are_not_read(cache):
    """A block far from what was written is told absent without reading zeros."""
    cache.write(url(0), 6 * BLOCK, block(0, 6))
    assert cache.read(url(0), 0, BLOCK, lambda n: pytest.fail("memory was asked for")) is None


def test_the_limit_is_kept(cache):
    """Whatever is written, bytes on disk never exceed the limit; the shards used longest ago go first."""
    for shard in range(NUM_SHARDS):
        for number in range(NUM_BLOCKS):
            cache.write(url(shard), number * BLOCK, block(shard, number))
            assert on_disk(cache.folder) <= cache.limit_nbytes
        os.utime(cache._path(url(shard)), (1000 + shard, 1000 + shard))
    assert is_cached(cache, NUM_SHARDS - 1, NUM_BLOCKS - 1)
    assert not is_cached(cache, 0, 0)


def test_use_keeps_a_shard(cache):
    """A shard that is read stays, though it was written first."""
    for shard in range(2):
        cache.write(url(shard), 0, block(shard, 0))
        os.utime(cache._path(url(shard)), (1000 + shard, 1000 + shard))
    assert is_cached(Cache(cache.folder, "1MB"), 0, 0)
    assert [shard.name for shard in cache.shards()] == ["001.tar", "000.tar"]


def test_what_cannot_fit_is_left_out(tmp_path):
    """A block larger than the limit is not kept, and evicts nothing."""
    cache = Cache(tmp_path, 3 * BLOCK)
    cache.write(url(0), 0, block(0, 0))
    cache.write(url(1), 0, np.zeros(4 * BLOCK, np.uint8))
    assert is_cached(cache, 0, 0)
    with pytest.raises(ConfigError):
        Cache(tmp_path, "1kB")


def test_a_shard_larger_than_the_limit(tmp_path):
    """Of a shard that alone exceeds the limit as many blocks are kept as fit; it is not evicted for its own next block."""
    cache = Cache(tmp_path, 3 * BLOCK)
    for number in range(NUM_BLOCKS):
        cache.write(url(0), number * BLOCK, block(0, number))
        assert on_disk(tmp_path) <= cache.limit_nbytes
    assert [is_cached(cache, 0, number) for number in range(NUM_BLOCKS)] == [True, True] + [False] * (NUM_BLOCKS - 2)


def test_a_process_that_is_forked_within_a_write_keeps_no_lock(cache, monkeypatch):
    """As workers are while other threads read through the cache: the write ends, and others may write while the child lives."""
    write_block, children = caches._write_block, []

    def fork(path: str, begin: int, data: np.ndarray) -> int:
        if not children:
            children.append(os.fork())
            if children[0] == 0:
                cache.write(url(1), 0, block(1, 0))  # this thread's own lock is not its parent's
                signal.pause()
        return write_block(path, begin, data)

    monkeypatch.setattr(caches, "_write_block", fork)
    try:
        cache.write(url(0), 0, block(0, 0))
        patience = time.monotonic() + 20
        while not is_cached(cache, 1, 0) and time.monotonic() < patience:
            time.sleep(0.01)
    finally:
        os.kill(children[0], signal.SIGKILL)
        os.waitpid(children[0], 0)
    assert is_cached(cache, 0, 0) and is_cached(cache, 1, 0)


@pytest.mark.parametrize("is_written", [False, True])
def test_killed_within_a_write(cache, monkeypatch, is_written):
    """Who dies in a write, before its bytes are on disk or after, leaves them counted, so that others keep the limit."""
    write_block = caches._write_block

    def die(path: str, begin: int, data: np.ndarray) -> int:
        if is_written:
            write_block(path, begin, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(caches, "_write_block", die)
    for shard in range(NUM_SHARDS):
        with pytest.raises(KeyboardInterrupt):
            cache.write(url(shard), 0, block(shard, 0))
        with open(os.path.join(cache.folder, USAGE), "rb") as file:
            assert on_disk(cache.folder) <= int(file.read())
    monkeypatch.undo()
    for number in range(40):
        cache.write(url(number % NUM_SHARDS), (number // NUM_SHARDS + 1) * BLOCK, block(0, number))
        assert on_disk(cache.folder) <= cache.limit_nbytes


def test_clear_and_shards(cache):
    """The cache says what it holds, and clear() frees it."""
    cache.write(url(0), 0, block(0, 0))
    cache.write(url(1), 0, block(1, 0))
    assert sorted(shard.name for shard in cache.shards()) == ["000.tar", "001.tar"]
    assert cache.clear() >= 2 * BLOCK
    assert cache.shards() == [] and on_disk(cache.folder) == 0


def test_commands_list_and_clear(cache, capfd, tmp_path):
    """``shardstream cache ls`` and ``clear`` show and free what is there, leave other files alone, and tell a wrong
    folder.
    """
    cache.write(url(0), 0, block(0, 0))
    (tmp_path / "cache" / "notes.txt").write_text("mine")
    assert main(["cache", "ls", cache.folder]) == 0
    out = capfd.readouterr().out
    assert "000.tar" in out and "1 shards" in out
    assert main(["cache", "ls", cache.folder, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["nbytes"] == on_disk(cache.folder) - 4096
    assert main(["cache", "clear", cache.folder]) == 0
    assert "freed" in capfd.readouterr().out and cache.shards() == []
    assert os.listdir(cache.folder).count("notes.txt") == 1
    assert main(["cache", "clear", str(tmp_path)]) == 2
    assert "cache_dir=" in capfd.readouterr().err


@pytest.mark.parametrize("junk", [b"", b"junk", b"99999999999999999999", b"-5"])
def test_a_wrong_usage_file_is_counted_anew(cache, junk):
    """A usage file that says nonsense, or too much, neither stops the cache nor breaks the limit."""
    cache.write(url(0), 0, block(0, 0))
    with open(os.path.join(cache.folder, USAGE), "wb") as file:
        file.write(junk)
    for shard in range(1, 6):
        for number in range(NUM_BLOCKS):
            cache.write(url(shard), number * BLOCK, block(shard, number))
    assert is_cached(cache, 5, NUM_BLOCKS - 1)
    assert on_disk(cache.folder) <= cache.limit_nbytes


def test_urls_stay_in_the_folder(cache):
    """No URL, however odd, leads out of the folder."""
    for odd in ("s3://b/../../etc/passwd", "s3://b/a/..", "https://h/x?sig=secret", "s3://b/" + "x" * 500):
        cache.write(odd, 0, block(0, 0))
    names = [name for name in os.listdir(cache.folder) if name != USAGE]
    assert len(names) == 4 and not any("secret" in name for name in names)


def test_a_folder_that_cannot_be_written_is_told_once(tmp_path):
    """Where the cache cannot be written there is one warning, and reading goes on without it."""
    (tmp_path / "file").write_bytes(b"")
    cache = Cache(tmp_path / "file" / "cache", "1MB")
    with pytest.warns(UserWarning, match="cannot be written"):
        cache.write(url(0), 0, block(0, 0))
    cache.write(url(0), 0, block(0, 0))
    assert not is_cached(cache, 0, 0)


def read_for_ever(cache: Cache, seed: int) -> None:
    """A process: reads random blocks through the cache, as a Fetcher does, and fails on a wrong one."""
    generator = random.Random(seed)
    sums = {(s, n): crc32c(block(s, n)) for s in range(NUM_SHARDS) for n in range(NUM_BLOCKS)}
    while True:
        shard, number = generator.randrange(NUM_SHARDS), generator.randrange(NUM_BLOCKS)
        begin = number * BLOCK
        data = cache.read(url(shard), begin, begin + BLOCK, lambda n: np.empty(n, np.uint8))
        if data is None or crc32c(data) != sums[shard, number]:
            data = block(shard, number)
            cache.write(url(shard), begin, data)
        elif not (data == block(shard, number)).all():
            os._exit(9)


def test_four_processes_killed_and_spoilt(tmp_path):
    """Four readers with a limit of a quarter of the data, killed at random, files spoilt meanwhile: the limit holds."""
    cache, generator = Cache(tmp_path, NUM_SHARDS * NUM_BLOCKS * BLOCK // 4), random.Random(3)

    def start():
        process = SPAWN.Process(target=read_for_ever, args=(cache, generator.randrange(1 << 30)), daemon=True)
        process.start()
        return process

    processes, most, kills = [start() for _ in range(4)], 0, 3
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with cache._locked():  # between two writes: a count while others evict and write would be of no moment
            most = max(most, on_disk(tmp_path))
        if most > 0.9 * cache.limit_nbytes and kills:
            kills -= 1
            end = time.monotonic() + 1.5
            victim = processes.pop(0)
            assert victim.exitcode is None, "a reader saw wrong bytes"
            os.kill(victim.pid, signal.SIGKILL)
            victim.join()
            processes.append(start())
            with cache._locked():
                for name in [name for name in os.listdir(tmp_path) if name != USAGE][:2]:
                    with open(tmp_path / name, "r+b") as file:
                        file.write(b"spoilt")
            time.sleep(generator.uniform(0.2, 0.5))
        time.sleep(0.002)
    assert all(process.exitcode is None for process in processes)
    for process in processes:
        process.kill()
        process.join()
    assert kills == 0 and most <= cache.limit_nbytes


def test_second_epoch_reads_no_network(proxied, tmp_path):
    """What was read once and fits is read without a request; what is spoilt on disk is fetched again, once."""
    data = np.concatenate([block(0, number) for number in range(NUM_BLOCKS)])
    Store(proxied.url, proxied.storage_options).put_bytes("s.tar", data.tobytes())
    fetcher = pickle.loads(pickle.dumps(Fetcher(None, cache=Cache(tmp_path, "10MB"))))
    fetcher.storage_options = proxied.storage_options

    def epoch() -> int:
        proxied.proxy.plan()
        for number in range(NUM_BLOCKS):
            begin, expected = number * BLOCK, crc32c(block(0, number))

            def verify(found, expected=expected):
                if crc32c(found) != expected:
                    raise ChecksumError("wrong bytes.")

            assert (fetcher.read(f"{proxied.url}/s.tar", begin, begin + BLOCK, verify=verify) == block(0, number)).all()
        return proxied.proxy.stats()["requests"].get("GET", 0)

    assert (epoch(), epoch()) == (NUM_BLOCKS, 0)
    path = fetcher.cache._path(f"{proxied.url}/s.tar")
    with open(path, "r+b") as file:
        file.seek(BLOCK + 7)
        file.write(b"spoilt")
    assert (epoch(), epoch()) == (1, 0)
    with open(path, "r+b") as file:
        file.truncate(5 * BLOCK)
    assert (epoch(), epoch()) == (NUM_BLOCKS - 5, 0)


def test_a_block_that_is_not_there_is_looked_for_once(tmp_path, monkeypatch):
    """A cold epoch asks the cache once for each range that it then fetches, whether it comes alone or with its neighbours."""
    url, asked, read = f"memory://{uuid.uuid4().hex}", [], Cache.read
    Store(url).put_bytes("s.tar", bytes(range(256)) * 4096)
    monkeypatch.setattr(Cache, "read", lambda self, url, begin, end, allocate: asked.append((begin, end)) or read(self, url, begin, end, allocate))
    fetcher = Fetcher(cache=Cache(str(tmp_path), "1GB"))
    for spans in ([(0, 100)], [(200, 300), (300, 500)], [(1000, 1100), (900_000, 900_100)]):
        for _ in range(2):
            found = fetcher.read_spans(f"{url}/s.tar", spans, [checked] * len(spans))
            assert [len(data) for data in found] == [end - begin for begin, end in spans]
        assert asked == spans * 2
        asked.clear()
    assert fetcher.stats.sums()["num_cache_hits"] == 5
    assert isinstance(fetcher.read_spans(f"{url}/none.tar", [(0, 5)], [checked])[0], ShardNotFoundError)


def checked(data) -> None:
    """Take any bytes that are not a hole of the cache's file."""
    if not data.any():
        raise ChecksumError("a hole")
