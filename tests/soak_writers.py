"""Eight writer processes that append to one dataset, of which some are killed and one sleeps until it is replaced.

In every second round another process compacts and collects meanwhile, and is killed and started again, too.
``make soak-writers ARGS="s3://bucket/prefix 20 1000"`` runs 20 rounds of 1,000 records a writer (by default 10 of 500
in a folder that it makes); ``tests/test_soak_writers.py`` runs one short round.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field

import shardstream as ss
from shardstream import upkeep
from shardstream.log import Log
from shardstream.storage import Store

NUM_WRITERS, NUM_KILLED = 8, 3
FENCED = 3
SCHEMA = ss.Schema(writer=ss.Dense("int64"), n=ss.Dense("int64"))
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["shardstream.writer", "shardstream.upkeep", "s3fs"])  # imported once, not 12 times


def write(url: str, writer: int, count: int, pause_s: float, latency_s: float) -> None:
    """A process: writes records 1 to ``count`` of a producer, from the one after its last source on."""
    try:
        with ss.ShardWriter(url, schema=SCHEMA, producer=f"writer-{writer}", max_latency=latency_s) as shards:
            for n in range((shards.last_source or 0) + 1, count + 1):
                shards.write({"writer": writer, "n": n}, source=n)
                time.sleep(pause_s)
    except ss.ProducerFenced:
        os._exit(FENCED)


def tidy(url: str) -> None:
    """A process: compacts the dataset and gives up its older versions, again and again, until it is killed."""
    while True:
        try:
            upkeep.compact(url, "200kB")
            upkeep.gc(url, keep=0, dry_run=False)
        except ss.DatasetNotFoundError:
            time.sleep(0.1)


@dataclass
class Round:
    """What happened: how often writers were killed and at which records, and what the dataset has."""

    seconds: float = 0.0
    killed_at: list[int] = field(default_factory=list)
    num_entries: int = 0
    num_shards: int = 0
    num_records: int = 0
    num_orphans: int = 0
    num_compacted: int = 0
    zombie_status: int | None = None


def run(url: str, seed: int, count: int, pause_s: float = 0.004, latency_s: float = 0.1,
        is_tidied: bool = False) -> Round:  # fmt: skip
    """Run one round in an empty place and raise AssertionError unless every record is there exactly once.

    Each writer writes a record every ``pause_s`` and commits every ``latency_s``. ``is_tidied`` compacts and collects
    meanwhile.
    """
    how = (count, pause_s, latency_s)
    generator, begin, done = random.Random(seed), time.monotonic(), Round()
    processes = [_started(write, url, writer, *how) for writer in range(NUM_WRITERS)]
    tidier = _started(tidy, url) if is_tidied else None
    victims = generator.sample(range(NUM_WRITERS), NUM_KILLED + 1)
    sleeper = victims.pop()
    _wait_for(url, sleeper, 2, processes[sleeper])
    os.kill(processes[sleeper].pid, signal.SIGSTOP)
    zombie, processes[sleeper] = processes[sleeper], _started(write, url, sleeper, *how)
    for victim in victims:
        _wait_for(url, victim, generator.randrange(1, max(2, count // 2)), processes[victim])
        time.sleep(generator.uniform(0, 0.1))
        processes[victim].kill()
        processes[victim].join()
        if tidier is not None:
            tidier.kill()
            tidier.join()
            tidier = _started(tidy, url)
        done.killed_at.append(ss.ShardWriter.last_source(url, f"writer-{victim}") or 0)
        processes[victim] = _started(write, url, victim, *how)
    while _incarnations(url, sleeper) < 2:
        time.sleep(0.05)
    os.kill(zombie.pid, signal.SIGCONT)
    statuses = [_ended(process) for process in processes]
    done.zombie_status = _ended(zombie)
    if tidier is not None:
        tidier.kill()
        tidier.join()
    assert statuses == [0] * NUM_WRITERS, statuses
    assert done.zombie_status == FENCED, f"the zombie ended with {done.zombie_status}"
    _check(url, count, done, is_tidied)
    done.seconds = time.monotonic() - begin
    return done


def _check(url: str, count: int, done: Round, is_tidied: bool) -> None:
    store = Store(url)
    log = Log(store)
    snapshot = log.snapshot()
    entries = log.entries(range(snapshot.version + 1))  # raises where one is missing
    records = {writer: [] for writer in range(NUM_WRITERS)}
    for batch in ss.ShardStream(url, batch_size=4096):
        for writer, n in zip(batch["writer"].tolist(), batch["n"].tolist()):
            records[writer].append(n)
    for writer, found in records.items():
        found = sorted(found) if is_tidied else found  # what was merged comes after what was not
        assert found == list(range(1, count + 1)), f"writer {writer}: records lost, doubled or out of order"
    named = {record.sid for entry in entries for record in entry.add}
    assert len(named) == sum(len(entry.add) for entry in entries)
    done.num_compacted = len(named) - len(snapshot.shards)
    assert is_tidied or not done.num_compacted
    there = {name.removesuffix(".tar") for name, _ in store.list() if name.endswith(".tar") and not name.startswith(".")}
    live = {snapshot.shards.sid(row) for row in range(len(snapshot.shards))}
    assert live <= there, "the log names a shard that is not there"
    done.num_entries, done.num_shards, done.num_orphans = len(entries), len(live), len(there - named)
    done.num_records = snapshot.num_samples
    assert done.num_records == NUM_WRITERS * count


def _started(function, *arguments):
    # A fork server may have begun before the S3 server's variables were set.
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    process = CONTEXT.Process(target=_in_environment, args=(environment, function, *arguments))
    process.start()
    return process


def _in_environment(environment: dict[str, str], function, *arguments) -> None:
    os.environ.update(environment)
    function(*arguments)


def _ended(process) -> int:
    process.join(timeout=300)
    if process.exitcode is None:
        process.kill()
    return process.exitcode


def _wait_for(url: str, writer: int, source: int, process) -> None:
    """Wait until a writer has committed a record."""
    while True:
        assert process.exitcode in (None, 0), f"writer {writer} ended with {process.exitcode}"
        try:
            if (ss.ShardWriter.last_source(url, f"writer-{writer}") or 0) >= source:
                return
        except ss.DatasetNotFoundError:
            pass
        time.sleep(0.02)


def _incarnations(url: str, writer: int) -> int:
    """Return how many instances have claimed a producer."""
    log = Log(Store(url))
    entries = log.entries(range(log.snapshot().version + 1))
    return sum(entry.kind == "claim" and entry.producer == f"writer-{writer}" for entry in entries)


def main(url: str | None = None, num_rounds: str = "10", count: str = "500") -> None:
    with tempfile.TemporaryDirectory(prefix="shardstream-soak-") as folder:
        for seed in range(int(num_rounds)):
            print(f"{seed + 1}: {run(f'{url or folder}/{os.getpid()}-{seed}', seed, int(count), is_tidied=seed % 2 == 1)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
