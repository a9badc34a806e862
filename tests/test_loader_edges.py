"""The ends of the promises: tiny and uneven datasets, rows that vanish on one rank, states elsewhere, nothing left,
counts kept.
"""

import gc
import io
import json
import os
import pickle
import shutil
import signal
import tarfile
import threading
import uuid
from collections import Counter, namedtuple

import numpy as np
import pytest
import torch

import shardstream as ss
from shardstream.rowmaker import Task
from tests.test_loader import loader

SCHEMA = ss.Schema(y=ss.Dense("int64"))
pytestmark = pytest.mark.filterwarnings("ignore:each block is fetched", "ignore:Sparse CSR tensor support")


def write(url: str, *sizes: int) -> str:
    """Write samples 0, 1, ... in shards of these sizes, one log entry for each."""
    begin = 0
    for size in sizes:
        with ss.ShardWriter(url, schema=SCHEMA) as writer:
            writer.write_batch({"y": np.arange(begin, begin + size)})
        begin += size
    return url


def ids(batch: dict) -> list[int]:
    """Return the samples of a batch, without padding."""
    ys = (batch["y"] if "y" in batch else torch.as_tensor(batch["cls"])).tolist()
    return [y for y, pad in zip(ys, batch.get("__pad__", torch.zeros(len(ys))).tolist()) if not pad]


# -- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("drop_last", [False, True, "pad"])
@pytest.mark.parametrize("sizes", [(1,), (7,), (8,), (9,), (1, 300, 2), (1, 1, 1), (250, 1)], ids=str)
def test_any_sizes_on_any_topology(tmp_path, sizes, drop_last):
    """1, L-1, L and L+1 samples, fewer shards than lanes, readers or samples, one shard much the largest: each sample
    once.
    """
    url, num_samples, world_size = write(str(tmp_path / "d"), *sizes), sum(sizes), 3
    for num_workers in (0, 2):
        options = {"batch_size": 4, "shuffle": True, "lanes": 8, "drop_last": drop_last, "world_size": world_size,
                   "version": len(sizes)}  # fmt: skip
        ranks = [loader(url, num_workers, rank=rank, **options) for rank in range(world_size)]
        lengths = [len(rank) for rank in ranks]
        batches = [list(rank) for rank in ranks]
        assert lengths == [len(of_rank) for of_rank in batches] == [num_samples // 12 if drop_last is True else -(-num_samples // 12)] * world_size
        seen = Counter(y for of_rank in batches for batch in of_rank for y in ids(batch))
        assert set(seen.values()) <= {1} and len(seen) == (num_samples // 12 * 12 if drop_last is True else num_samples)
        assert all(len(batch["y"]) == 4 for of_rank in batches for batch in of_rank) or drop_last is False


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_dataset_without_samples(tmp_path, num_workers):
    """No samples are an error that says so, at the first use, whether by len() or iteration."""
    ss.ShardWriter(str(tmp_path / "d"), schema=SCHEMA, producer="p").close()
    for use in (len, list):
        with pytest.raises(ss.EmptyDatasetError, match="no samples"):
            use(loader(str(tmp_path / "d"), num_workers, batch_size=4))


def test_foreign_shards_of_different_sizes(tmp_path, monkeypatch):
    """WebDataset shards of 1, 97 and 2 samples: each once over two ranks with workers, and from a state in mid-epoch.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    begin = 0
    for number, size in enumerate((1, 97, 2)):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for i in range(begin, begin + size):
                member = tarfile.TarInfo(f"{i:05d}.cls")
                member.size = len(data := str(i).encode())
                tar.addfile(member, io.BytesIO(data))
        begin += size
    seen, states, options = Counter(), [], {"shuffle": True, "seed": 3, "world_size": 2}
    for rank in range(2):
        one = loader(str(tmp_path / "{0..2}.tar"), 2, batch_size=6, rank=rank, **options)
        iterator = iter(one)
        for _ in range(3):
            seen.update(ids(next(iterator)))
        states.append(one.state_dict())
    assert states[0] == states[1] and states[0]["version"] is None
    for rank in range(2):
        one = loader(str(tmp_path / "{0..2}.tar"), 1, batch_size=5, rank=rank, **options)
        one.load_state_dict(states[0])
        for batch in one:
            seen.update(ids(batch))
    assert seen == Counter(range(100))


# -- rows that vanish on one rank -----------------------------------------------------------------


def drop_on_rank_1(sample):
    """Drop what rank 1 of 2 has: these are the odd positions, and without shuffle the odd samples."""
    return None if sample["y"] % 2 else sample


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("drop_last", [False, True, "pad"])
def test_rows_that_vanish_on_one_rank_shift_nothing(tmp_path, drop_last, num_workers):
    """A rank that loses all its rows, or some to an unreadable shard, has as many batches and the same states as the
    other.
    """
    url = write(str(tmp_path / "d"), 15, 15, 15)
    shards = ss.Dataset(url).shards
    os.unlink(shards[1])
    options = {"batch_size": 4, "drop_last": drop_last, "world_size": 2, "version": 3, "on_error": "skip",
               "read": ss.ReadPolicy(max_skipped=100)}  # fmt: skip
    for transform, left in [(drop_on_rank_1, [y for y in (*range(15), *range(30, 45)) if y % 2 == 0]),
                            (None, [*range(15), *range(30, 45)])]:  # fmt: skip
        states, seen = [], []
        for rank in range(2):
            one = loader(url, num_workers, rank=rank, transform=transform, **options)
            num_batches, states_of_rank = len(one), []
            for batch in one:
                seen += ids(batch)
                states_of_rank.append(one.state_dict())
            assert len(states_of_rank) == num_batches == (5 if drop_last is True else 6)
            assert not (transform and rank) or one.dataset.report.num_dropped > 0
            states.append(states_of_rank)
        assert states[0] == states[1]
        assert sorted(seen) == [y for y in left if drop_last is not True or y < 40]


# -- states ---------------------------------------------------------------------------------------


def test_a_state_has_the_documented_fields_on_every_rank(tmp_path):
    """The nine fields of docs/FORMAT.md, under 1 kB, equal on all ranks whatever their workers; loads onto a copy, and
    onto nothing else.
    """
    url = write(str(tmp_path / "d"), 100)
    states = []
    for rank, num_workers in enumerate((0, 2, 1)):
        one = loader(url, num_workers, batch_size=5, shuffle=True, rank=rank, world_size=3, version=1)
        iterator = iter(one)
        next(iterator), next(iterator)
        states.append(one.state_dict())
    assert states[0] == states[1] == states[2]
    assert list(states[0]) == ["format", "dataset", "version", "order", "seed", "epoch", "lanes", "window", "position"]
    assert states[0]["position"] == 30 and len(json.dumps(states[0])) < 300
    resumed = loader(str(shutil.copytree(url, tmp_path / "elsewhere")), 0, batch_size=7, shuffle=True)
    resumed.load_state_dict(states[0])
    assert sum(len(batch["y"]) for batch in resumed) == 70
    other = loader(write(str(tmp_path / "other"), 100), 0, batch_size=7, shuffle=True)
    with pytest.raises(ss.StateError, match=f"is of dataset {states[0]['dataset']}, but this stream reads dataset"):
        other.load_state_dict(states[0])
    assert sum(len(batch["y"]) for batch in other) == 100  # as if nothing had been tried


def test_what_travels_to_workers_is_small(tmp_path):
    """A stream, and the task that begins an epoch, are small however many samples and shards there are."""
    sizes = []
    for name, shards in (("few", (10_000,)), ("many", (100,) * 20)):
        one = loader(write(str(tmp_path / name), *shards), 0, batch_size=5, shuffle=True)
        next(iter(one))
        task = Task(one.dataset.state, one.dataset.plan(0), 0)
        sizes.append((len(pickle.dumps(one.dataset)), len(pickle.dumps(task))))
    assert all(stream < 2500 and task < 1000 for stream, task in sizes) and abs(sizes[0][0] - sizes[1][0]) < 50


# -- nothing left ---------------------------------------------------------------------------------


def count_fds() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def kill_a_worker(sample):
    if sample["y"] == 50:
        os.kill(os.getpid(), signal.SIGKILL)
    return sample


def test_no_descriptor_is_left_however_it_ends(tmp_path):
    """Epochs that end, are left, fail in the loop and lose a worker leave as many open descriptors as there were."""
    url = write(str(tmp_path / "d"), 100)
    list(loader(url, 1, batch_size=10))
    before = count_fds()
    for _ in range(2):
        list(loader(url, 2, batch_size=10))
        for _ in loader(url, 2, batch_size=10):
            break
        with pytest.raises(ZeroDivisionError):
            for _ in loader(url, 2, batch_size=10):
                1 / 0
        with pytest.raises(ss.WorkerError, match="SIGKILL"):
            list(loader(url, 2, batch_size=10, transform=kill_a_worker))
    assert count_fds() == before


def test_keyboard_interrupt_without_workers(tmp_path):
    """Ctrl-C in a transform of this process is a KeyboardInterrupt, and no thread is left; a state resumes behind what
    was received.
    """
    url = write(str(tmp_path / "d"), 100)

    def interrupt(sample):
        if sample["y"] == 35:
            os.kill(os.getpid(), signal.SIGINT)
        return sample

    before, one, received = threading.active_count(), loader(url, 0, batch_size=10, transform=interrupt), []
    with pytest.raises(KeyboardInterrupt):
        for batch in one:
            received += batch["y"].tolist()
    gc.collect()
    assert threading.active_count() == before and received == list(range(30)) and one.state_dict()["position"] == 30


# -- pinned memory --------------------------------------------------------------------------------

Pair = namedtuple("Pair", "left right")


def test_pinning_without_cuda_warns(tmp_path):
    """As torch's DataLoader: asked for where there is none, the batches come in ordinary memory, and a warning says so.
    """
    url = write(str(tmp_path / "d"), 10)
    if torch.cuda.is_available():
        assert next(iter(ss.StreamLoader(ss.ShardStream(url, batch_size=4), pin_memory=True)))["y"].is_pinned()
        return
    with pytest.warns(UserWarning, match="no CUDA"):
        one = ss.StreamLoader(ss.ShardStream(url, batch_size=4), pin_memory=True)
    assert next(iter(one))["y"].tolist() == [0, 1, 2, 3]


def test_pinning_reaches_every_tensor(tmp_path, monkeypatch):
    """Where there is CUDA, tensors in dicts, lists, tuples, named tuples and ss.Jagged are pinned, what is none of
    these stays.
    """
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self + 1000)

    def collate(batch):
        y = batch["y"]
        return {"dict": y, "list": [y, "text"], "pair": Pair(y, (y, None)), "jagged": ss.Jagged(y, y),
                "sparse": torch.eye(2).to_sparse_csr(), "number": 3}  # fmt: skip

    one = ss.StreamLoader(ss.ShardStream(write(str(tmp_path / "d"), 2), batch_size=2), pin_memory=True, collate=collate)
    [batch] = one
    pinned = [1000, 1001]
    assert batch["dict"].tolist() == batch["list"][0].tolist() == batch["pair"].left.tolist() == batch["pair"].right[0].tolist() == pinned
    assert type(batch["pair"]) is Pair and type(batch["jagged"]) is ss.Jagged and batch["jagged"].values.tolist() == pinned
    assert batch["jagged"].weights is None and batch["list"][1] == "text" and batch["number"] == 3 and batch["sparse"].layout == torch.sparse_csr


# -- counts ---------------------------------------------------------------------------------------


def test_stats_count_the_cache(tmp_path):
    """A second loader over remote blocks that are kept counts each of them, and its bytes, as come from the cache."""
    url = write(f"memory://{uuid.uuid4().hex}/d", 500, 500)
    counts = []
    for _ in range(2):
        one = loader(url, 0, batch_size=100, shuffle=True, cache_dir=str(tmp_path))
        list(one)
        stats = one.stats()
        counts.append((stats["num_cache_hits"], stats["num_bytes_cached"], stats["num_blocks"], stats["num_bytes_read"]))
    (no_hits, none_cached, num_blocks, num_bytes), second = counts
    assert (no_hits, none_cached) == (0, 0) and num_blocks >= 2 and second == (num_blocks, num_bytes, num_blocks, num_bytes)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_counts_stay_when_a_state_changes_the_version(tmp_path, num_workers):
    """A state of another version changes what is read, and forgets nothing of what was; a pickled stream counts from 0.
    """
    url = write(str(tmp_path / "d"), 100, 100)
    old = ss.ShardStream(url, version=1, batch_size=10).state_dict()
    one = loader(url, num_workers, batch_size=10)
    assert len(list(one)) == 20
    one.load_state_dict(old)
    assert len(list(one)) == 10
    stats = one.stats()
    assert (stats["num_batches"], stats["num_rows"]) == (30, 300) and stats["num_blocks"] >= 3
    assert pickle.loads(pickle.dumps(one.dataset)).stats.sums()["num_rows"] == 0


def test_a_collate_that_is_no_function_is_refused_at_once(tmp_path):
    with pytest.raises(ss.ConfigError, match="collate='x' is not a function"):
        ss.StreamLoader(ss.ShardStream(write(str(tmp_path / "d"), 10)), collate="x")


def test_an_unknown_way_to_start_workers_is_refused_at_once(tmp_path):
    stream = ss.ShardStream(write(str(tmp_path / "d"), 10), batch_size=4)
    with pytest.raises(ss.ConfigError, match="'thread' is not one of .*fork"):
        ss.StreamLoader(stream, num_workers=1, multiprocessing_context="thread")
