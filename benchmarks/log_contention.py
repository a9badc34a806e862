"""Print how many commits a second a log takes from many writers on S3-like latencies, and what retries cost.

    .venv/bin/python benchmarks/log_contention.py                    # about two minutes of CPU
    .venv/bin/python benchmarks/log_contention.py --seconds 5        # noisier
    .venv/bin/python benchmarks/log_contention.py --put-ms 100 --get-ms 40

The commit code is the library's own (``shardstream/log/commit.py`` is a generator that asks for puts and gets); only
the store and the clock are simulated. A request takes a drawn time, half on its way there, and has its effect in the
middle; times are log-normal with a median of 30 ms for a PUT and 15 ms for a GET (an assumption for a store in the same
region; AWS speaks of "roughly 100-200 milliseconds" for small objects, so look at ``--put-ms 100 --get-ms 100``, too)
and a 99th percentile four times that. One log is one prefix, which takes 3,500 PUTs and 5,500 GETs a second; the last
columns say how near the writers come. Both by docs.aws.amazon.com, "Best practices design patterns: optimizing Amazon
S3 performance".

Two ways of writing are compared: every worker commits its own shard as soon as it stands (``ShardWriter(producer=)`` on
each), and one driver commits for all, with what has come in while its last commit was under way (packing jobs).
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

from shardstream.log import ShardRecord, new_id, proposals
from shardstream.log.commit import Get, Outcome, Put, commit, create
from shardstream.log.opening import Head

PREFIX_PUTS_PER_S, PREFIX_GETS_PER_S = 3500, 5500
P99_OVER_MEDIAN = 4.0
MAX_WORKER_SECONDS = 6000  # of many workers less time is simulated: each reads the entries of all others


@dataclass
class World:
    """A simulated store and clock; processes are generators that yield how long they wait."""

    put_s: float
    get_s: float
    seed: int
    now: float = 0.0
    entries: list[bytes] = field(default_factory=list)
    num_puts: int = 0
    num_gets: int = 0
    num_commits: int = 0
    num_shards: int = 0
    standing: dict[str, float] = field(default_factory=dict)  # shards that are not committed yet: since when
    waits_s: list[float] = field(default_factory=list)  # from a shard's standing to its commit

    def __post_init__(self):
        self._random = random.Random(self.seed)
        self._queue: list[tuple[float, int, Generator]] = []
        self._number = 0

    def start(self, process: Iterator[float], at: float = 0.0) -> None:
        self._number += 1
        heapq.heappush(self._queue, (at, self._number, process))

    def run(self, until: float) -> None:
        while self._queue and self._queue[0][0] <= until:
            self.now, _, process = heapq.heappop(self._queue)
            wait = next(process, None)
            if wait is not None:
                self.start(process, self.now + wait)
        self.now = until
        self.waits_s += [until - since for since in self.standing.values()]  # at least; left out they would flatter

    def drawn(self, median: float) -> float:
        return median * math.exp(self._random.gauss(0.0, math.log(P99_OVER_MEDIAN) / 2.326))

    def exponential(self, mean: float) -> float:
        return self._random.expovariate(1.0 / mean)

    def carry_out(self, request: Put | Get) -> Generator[float, None, Outcome | bytes | None]:
        """Do one request of a commit: its effect is in the middle of the time it takes."""
        if isinstance(request, Put):
            self.num_puts += 1
            yield self.drawn(self.put_s / 2)
            created = request.version == len(self.entries)
            if created:
                self.entries.append(request.data)
            yield self.drawn(self.put_s / 2)
            return Outcome.CREATED if created else Outcome.EXISTS
        self.num_gets += 1
        yield self.drawn(self.get_s / 2)
        found = self.entries[request.version] if request.version < len(self.entries) else None
        yield self.drawn(self.get_s / 2)
        return found

    def stand(self) -> ShardRecord:
        """Return the record of a shard that stands in the store from now on."""
        made = ShardRecord(sid=new_id(), num_samples=10_000, nbytes=64_000_000, index_offset=1, index_nbytes=1,
                           index_crc32c=0)  # fmt: skip
        self.standing[made.sid] = self.now
        return made

    def commit(self, head: Head, records: list[ShardRecord]) -> Generator[float, None, Head]:
        """Drive the library's commit to its end; returns the head after it."""
        steps = commit(head, proposals.append(records, None, None, None, proposals.UNCHANGED))
        request = next(steps)
        while True:
            answer = yield from self.carry_out(request)
            try:
                request = steps.send(answer)
            except StopIteration as finished:
                self.num_commits += 1
                self.num_shards += len(records)
                self.waits_s += [self.now - self.standing.pop(made.sid) for made in records]
                return finished.value


def created_head(world: World) -> Head:
    steps = create(proposals.first(None))
    request = next(steps)
    world.entries.append(request.data)
    try:
        steps.send(Outcome.CREATED)
    except StopIteration as finished:
        return finished.value
    raise AssertionError("a created entry ends the commit")


def alone(world: World, head: Head, every_s: float) -> Iterator[float]:
    """A worker that commits each of its shards by itself, one every ``every_s`` on average."""
    while True:
        yield world.exponential(every_s)
        head = yield from world.commit(head, [world.stand()])


def driven(world: World, inbox: list[ShardRecord], every_s: float) -> Iterator[float]:
    """A worker whose shards a driver commits."""
    while True:
        yield world.exponential(every_s)
        inbox.append(world.stand())


def driver(world: World, head: Head, inbox: list[ShardRecord]) -> Iterator[float]:
    while True:
        if not inbox:
            yield 0.01
            continue
        taken, inbox[:] = list(inbox), []
        head = yield from world.commit(head, taken)


def simulate(way: str, workers: int, every_s: float, arguments: argparse.Namespace) -> str:
    world = World(arguments.put_ms / 1000, arguments.get_ms / 1000, arguments.seed)
    head = created_head(world)
    if way == "each by itself":
        for _ in range(workers):
            world.start(alone(world, head, every_s))
    else:
        inbox: list[ShardRecord] = []
        for _ in range(workers):
            world.start(driven(world, inbox, every_s))
        world.start(driver(world, head, inbox))
    world.run(min(arguments.seconds, MAX_WORKER_SECONDS / workers))
    waits = sorted(world.waits_s) or [math.nan]
    lost = world.num_puts - world.num_commits
    return (f"{workers:>7,} {way:15} {workers / every_s:9.1f} {world.num_shards / world.now:9.1f} {world.num_commits / world.now:9.1f} "
            f"{lost / max(1, world.num_commits):9.2f} {world.num_gets / max(1, world.num_commits):9.1f} "
            f"{waits[len(waits) // 2]:8.2f} s {waits[min(len(waits) - 1, len(waits) * 99 // 100)]:7.2f} s "
            f"{world.num_puts / world.now / PREFIX_PUTS_PER_S:8.1%} {world.num_gets / world.now / PREFIX_GETS_PER_S:7.1%}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of simulated time for each line")
    parser.add_argument("--put-ms", type=float, default=30.0)
    parser.add_argument("--get-ms", type=float, default=15.0)
    parser.add_argument("--every", type=float, default=10.0, help="seconds in which a worker makes a shard, on average")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 10, 100, 1000])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(f"PUT {arguments.put_ms:g} ms, GET {arguments.get_ms:g} ms, a shard every {arguments.every:g} s of each worker, "
          f"{arguments.seconds:g} s simulated\n")  # fmt: skip
    print("                          shards/s  shards/s commits/s lost PUTs      GETs       wait to "
          "commit   of a prefix's")  # fmt: skip
    print("workers way                  made  commited            a commit  a commit   median      99%   "
          "   PUTs    GETs")  # fmt: skip
    for workers in arguments.workers:
        for way in ("each by itself", "one driver"):
            print(simulate(way, workers, arguments.every, arguments), flush=True)


if __name__ == "__main__":
    main()
