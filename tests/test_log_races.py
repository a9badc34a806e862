"""Many processes at work on one dataset at once, on local disk and on the S3 server; some are killed or stopped."""

import multiprocessing
import os
import random
import signal
import time

import pytest

from shardstream.errors import ProducerFenced
from shardstream.log import Log
from shardstream.schema import Dense, Schema
from shardstream.storage import Store
from tests.synthetic_log import record

SPAWN = multiprocessing.get_context("spawn")
SCHEMA = Schema(x=Dense("int64"))
FENCED = 3


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def store(request, tmp_path):
    if request.param == "local":
        return Store(tmp_path / "dataset")
    s3 = request.getfixturevalue("s3")
    return Store(s3.url)  # spawned processes find server and credentials in the environment


def append_some(store: Store, writer: int, count: int) -> None:
    """A process: creates the dataset or finds it, and appends ``count`` shards one by one."""
    log = Log(store)
    log.open_or_create(SCHEMA)
    for number in range(count):
        log.append([record(num_samples=writer * 1000 + number)])


def produce(store: Store, name: str, last: int, pause_s: float) -> None:
    """A process: an instance of a producer that goes on after its last source, up to ``last``."""
    log = Log(store)
    incarnation, source = log.claim(name)
    for number in range((source or 0) + 1, last + 1):
        time.sleep(pause_s)
        try:
            log.append([record(num_samples=number)], producer=name, incarnation=incarnation, source=number)
        except ProducerFenced:
            os._exit(FENCED)


def started(function, *arguments):
    process = SPAWN.Process(target=function, args=arguments)
    process.start()
    return process


def ended(process) -> int:
    process.join(timeout=120)
    return process.exitcode


def test_racing_creators_and_appenders(store):
    """Three processes that create one dataset and append to it at once: one dataset, every shard once, no gap."""
    processes = [started(append_some, store, writer, 8) for writer in range(3)]
    assert [ended(process) for process in processes] == [0, 0, 0]
    snapshot = Log(store).snapshot()
    assert snapshot.version == 24
    assert sorted(snapshot.shards.num_samples.tolist()) == [w * 1000 + n for w in range(3) for n in range(8)]
    assert [Log(store).entry(version).version for version in (0, 12, 24)] == [0, 12, 24]
    for writer in range(3):
        own = [number for number in snapshot.shards.num_samples.tolist() if number // 1000 == writer]
        assert own == sorted(own)


def test_killed_producers_write_each_record_once(store):
    """Producers killed at random and restarted from their last source write each record exactly once, in order."""
    Log(store).create(SCHEMA)
    generator, names, last = random.Random(5), ("a", "b"), 20
    processes = {name: started(produce, store, name, last, 0.02) for name in names}
    for name in names:
        time.sleep(generator.uniform(1.0, 1.6))
        processes[name].kill()
        processes[name].join()
        processes[name] = started(produce, store, name, last, 0.0)
    assert [ended(process) for process in processes.values()] == [0, 0]
    log = Log(store)
    entries = [log.entry(version) for version in range(log.snapshot().version + 1)]
    for name in names:
        assert [each.source for each in entries if each.producer == name and each.kind == "append"] == list(range(1, last + 1))


def test_a_zombie_is_fenced(store):
    """A producer stopped in mid-work, whose successor has claimed meanwhile, ends with ProducerFenced when it wakes."""
    log = Log(store)
    log.create(SCHEMA)
    zombie = started(produce, store, "p", 10_000, 0.01)
    while "p" not in (producers := log.snapshot().producers) or (producers["p"].source or 0) < 3:
        time.sleep(0.05)
    os.kill(zombie.pid, signal.SIGSTOP)
    incarnation, source = log.claim("p")
    log.append([record(num_samples=source + 1)], producer="p", incarnation=incarnation, source=source + 1)
    os.kill(zombie.pid, signal.SIGCONT)
    assert ended(zombie) == FENCED
    assert log.snapshot().shards.num_samples.tolist() == list(range(1, source + 2))
