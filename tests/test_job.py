"""One job of many processes: who is which rank, which version all of them read, and how often a block is fetched."""

import collections
import multiprocessing
import pickle
import time
import types
import warnings

import numpy as np
import pytest
import torch.distributed

import shardstream as ss
from shardstream.reader import BlockReader


def write(url: str, num_samples: int = 500) -> None:
    with ss.ShardWriter(url, schema=ss.Schema(y=ss.Dense("int64"))) as writer:
        writer.write_batch({"y": np.arange(num_samples)})


@pytest.fixture
def url(tmp_path):
    """A dataset of one version, written just now."""
    write(str(tmp_path / "d"))
    return str(tmp_path / "d")


def caught_by(action) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return [str(warning.message) for warning in caught]


def test_ranks_of_the_environment(url, monkeypatch):
    """RANK and WORLD_SIZE say which part is read, unless arguments do; nonsense in them is an error."""
    monkeypatch.setenv("WORLD_SIZE", "5")
    monkeypatch.setenv("RANK", "2")
    assert next(iter(ss.ShardStream(url, batch_size=3, version=1)))["y"].tolist() == [2, 7, 12]
    assert next(iter(ss.ShardStream(url, batch_size=3, version=1, rank=1, world_size=2)))["y"].tolist() == [1, 3, 5]
    monkeypatch.setenv("RANK", "5")
    with pytest.raises(ss.ConfigError, match="RANK"):
        next(iter(ss.ShardStream(url)))


def test_ranks_without_a_process_group_warn_of_young_entries(url, monkeypatch):
    """Where ranks can't agree, an entry younger than 10 minutes is a warning; an older one or version= is none."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert [message for message in caught_by(lambda: len(ss.ShardStream(url))) if "10 minutes" in message]
    assert not caught_by(lambda: len(ss.ShardStream(url, version=1)))
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not caught_by(lambda: len(ss.ShardStream(url)))
    monkeypatch.setenv("WORLD_SIZE", "2")
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 601)
    assert not caught_by(lambda: len(ss.ShardStream(url)))


def test_workers_of_a_plain_dataloader_warn_of_young_entries(url, monkeypatch):
    """Workers that open the dataset for themselves warn, once, if they may see different versions."""
    for worker in range(2):
        monkeypatch.setattr("shardstream.stream.get_worker_info", lambda: types.SimpleNamespace(id=worker, num_workers=2))
        messages = caught_by(lambda: len(ss.ShardStream(url)))
        assert [message for message in messages if "10 minutes" in message] == messages and len(messages) == (worker == 0)


# -- real process groups --------------------------------------------------------------------------


def in_ranks(tmp_path, world_size: int, function, *arguments) -> list:
    """Return what ``function(rank, *arguments)`` returns in each of the ranks of a gloo process group."""
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(world_size)]
    processes = [context.Process(target=_be_a_rank, args=(str(tmp_path / "store"), rank, world_size, pipes[rank][1], function, arguments))
                 for rank in range(world_size)]  # fmt: skip
    for process in processes:
        process.start()
    results = [receiver.recv() if receiver.poll(60) else "silence" for receiver, _ in pipes]
    for process in processes:
        process.join()
    return results


def _be_a_rank(store, rank, world_size, pipe, function, arguments):
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    try:
        pipe.send(function(rank, *arguments))
    except Exception as error:
        pipe.send(error)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def open_while_growing(rank, url):
    """Rank 1 opens the dataset first, then it grows, then rank 0 opens it."""
    if rank == 1:
        stream = ss.ShardStream(url, batch_size=10)
        length = len(stream)
    torch.distributed.barrier()
    if rank == 0:
        write(url)
        stream = ss.ShardStream(url, batch_size=10)
        length = len(stream)
    torch.distributed.barrier()
    again = ss.ShardStream(url, batch_size=10)
    return stream.state_dict(), length, len(again), [batch["y"].tolist() for batch in stream]


def test_all_ranks_read_one_version(url, tmp_path):
    """A dataset that grows while ranks open it has one version for all of them, without waiting; a later stream sees
    the newer one.
    """
    (state_0, *lengths_0, batches_0), (state_1, *lengths_1, batches_1) = in_ranks(tmp_path, 2, open_while_growing, url)
    assert state_0 == state_1 and state_0["version"] == 1
    assert lengths_0 == lengths_1 == [25, 50]
    assert sorted(y for batch in batches_0 + batches_1 for y in batch) == list(range(500))


def look_alone(rank, url):
    """Rank 0 looks at the dataset, and no other rank does."""
    return len(ss.ShardStream(url, batch_size=10)) if rank == 0 else None


def test_a_rank_that_opens_alone_waits_for_nobody(url, tmp_path):
    """Opening a stream on one rank only is no collective: it returns."""
    assert in_ranks(tmp_path, 2, look_alone, url) == [25, None]


def open_differently(rank, url):
    torch.distributed.barrier() if rank == 1 else None
    try:
        return len(ss.ShardStream(url, batch_size=10 + rank))
    finally:
        torch.distributed.barrier() if rank == 0 else None


def test_ranks_with_different_streams_are_told(url, tmp_path):
    """Ranks that open streams of different arguments at the same turn don't read a mixture of both in silence."""
    length, error = in_ranks(tmp_path, 2, open_differently, url)
    assert length == 25 and isinstance(error, ss.ConfigError) and "batch_size" in str(error) and "same order" in str(error)


def pickled(rank, url):
    return pickle.dumps(ss.ShardStream(url, batch_size=10, shuffle=True))


def test_the_rank_travels_in_the_pickle(url, tmp_path):
    """A stream pickled in a process group knows its rank where there is no group, as in a worker of DataLoader."""
    streams = [pickle.loads(data) for data in in_ranks(tmp_path, 2, pickled, url)]
    batches = [[batch["y"].tolist() for batch in stream] for stream in streams]
    assert batches[0] != batches[1] and sorted(y for rank in batches for batch in rank for y in batch) == list(range(500))


def test_a_stream_opened_alone_may_become_many_ranks(url, monkeypatch):
    """What a driver opened and pickled, before it starts ranks, keeps its version and takes the rank of where it
    arrives.
    """
    stream = ss.ShardStream(url, batch_size=10)
    assert len(stream) == 50
    data = pickle.dumps(stream)
    write(url)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert len(pickle.loads(data)) == 25


# -- readers of a block ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_blocks(tmp_path_factory):
    """A dataset of 400 blocks of 10 samples, in 40 shards."""
    url = str(tmp_path_factory.mktemp("job") / "d")
    with ss.ShardWriter(url, schema=ss.Schema(y=ss.Dense("int64"))) as writer:
        for block in range(400):
            writer.write_batch({"y": np.arange(10 * block, 10 * block + 10)})
            writer._close_block()
            if block % 10 == 9:
                writer._roll(False)
    return url


def readers_of_blocks(monkeypatch, url, world_size, num_workers, **options) -> collections.Counter:
    """Return how many of the job's readers fetch each block in an epoch; ranks and workers are objects of this process.
    """
    fetched, reader = collections.defaultdict(set), None
    original = BlockReader.read_many

    def read_many(self, shard, blocks):
        for block in blocks:
            fetched[shard, block].add(reader)
        return original(self, shard, blocks)

    monkeypatch.setattr(BlockReader, "read_many", read_many)
    for reader in range(world_size * num_workers):
        stream = ss.ShardStream(url, batch_size=8, rank=reader, world_size=world_size * num_workers, version=1,
                                **options)  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in stream:
                pass
    assert len(fetched) == 400
    return collections.Counter(len(readers) for readers in fetched.values())


@pytest.mark.parametrize("world_size, num_workers", [(1, 1), (2, 1), (1, 3), (4, 2)])
def test_a_block_has_at_most_two_readers(small_blocks, monkeypatch, world_size, num_workers):
    """When lanes divide evenly among all workers of all ranks, each block is fetched by one of them, or two at a
    border.
    """
    counts = readers_of_blocks(monkeypatch, small_blocks, world_size, num_workers, shuffle=True, window=960)
    assert set(counts) <= {1, 2} and counts[1] > counts[2]


def test_shared_lanes_are_told(small_blocks, monkeypatch):
    """When they don't, each lane's blocks are fetched by several, and one warning says how many; otherwise none does.
    """
    counts = readers_of_blocks(monkeypatch, small_blocks, 5, 1, shuffle=True, window=960)
    assert max(counts) >= 5

    def once(num_workers, rank=0, world_size=5, **options):
        loader = ss.StreamLoader(ss.ShardStream(small_blocks, rank=rank, world_size=world_size, version=1, batch_size=99, **options), num_workers,
                                 multiprocessing_context="fork")  # fmt: skip
        return caught_by(lambda: [list(loader) for _ in range(2)])

    [message] = once(0, shuffle=True)
    assert "fetched by 5 readers" in message and "lanes" in message
    [message] = once(2, shuffle=True, lanes=15)
    assert "fetched by 2 readers" in message
    assert once(2, shuffle=True, lanes=20) == once(0, shuffle=True, rank=1) == []
