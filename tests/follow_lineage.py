"""Lineages that follow: a training job and its producers run at once, all of them killed at random, until the log ends.

The job is that of ``tests/lineage.py``; producers are processes that write numbered samples, are killed by SIGKILL and
go on behind their last source. At the end every sample must have been consumed once, in the very order in which a
reader of the finished log gets them. A job may mix them with older samples, which must have been consumed epoch after
epoch.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

import shardstream as ss
from shardstream.log import Log
from shardstream.order.batches import BatchPlan
from shardstream.replay import rows_of_each
from shardstream.storage import Store
from tests.lineage import Lineage
from tests.trainer import followed, ids_of, make_stream

NUM_OLD, FIRST_OLD = 45, 10**6  # older samples, and the number of the first
SCHEMA = ss.Schema(y=ss.Dense("int64"), t=ss.Ragged("uint8"))


def produce(url: str, name: int, count: int, seed: int) -> None:
    """Be a producer: write what is left of its samples, some at a time, each call with its number as the source."""
    choose = random.Random(f"{seed} {os.getpid()}")
    with ss.ShardWriter(url, schema=SCHEMA, producer=f"p{name}", max_latency="30ms", shard_nbytes="2kB") as writer:
        i = writer.last_source or 0
        while i < count:
            rows = np.arange(i, min(i + choose.randint(1, 9), count)) + name * count
            i += len(rows)
            writer.write_batch({"y": rows, "t": (np.zeros(len(rows), np.uint8), np.arange(len(rows) + 1))}, source=i)
            time.sleep(choose.random() * 0.02)


class Producers:
    """Producers that are killed and started again until each has written all of its samples; then the dataset ends."""

    def __init__(self, url: str, num_producers: int, count: int, seed: int):
        self.num_kills, self._arguments = 0, (url, count, seed)
        Log(Store(url)).open_or_create(SCHEMA)
        self._threads = [threading.Thread(target=self._run, args=(name,)) for name in range(num_producers)]
        self._end = threading.Thread(target=self._finish)
        for thread in (*self._threads, self._end):
            thread.start()

    def _run(self, name: int) -> None:
        url, count, seed = self._arguments
        choose, wait_s = random.Random(f"{seed} {name}"), 0.1  # the first is killed before it can be done
        while True:
            process = multiprocessing.get_context("fork").Process(target=produce, args=(url, name, count, seed))
            process.start()
            process.join(wait_s * (0.5 + choose.random() / 2))
            if process.exitcode == 0:
                return
            process.kill()
            process.join()
            self.num_kills += 1
            wait_s *= 1.3  # so that an end comes on the busiest machine

    def _finish(self) -> None:
        for thread in self._threads:
            thread.join()
        Log(Store(self._arguments[0])).end()

    def join(self) -> None:
        self._end.join()


class FollowLineage(Lineage):
    """One training run over a log while it grows, with older samples in each batch if ``is_mixed``; see the module."""

    def __init__(self, folder: Path, seed: int, num_producers: int = 2, count: int = 150, max_ranks: int = 4, max_runs: int = 14,
                 limit_s: float = 120, is_mixed: bool = False):  # fmt: skip
        self.url, self.is_mixed = str(folder / "d"), is_mixed
        source = {"follow": self.url}
        if is_mixed:
            self.batch_sizes = 2, 3, 8, 20  # a row of each source at least
            source["history"] = str(folder / "history")
            with ss.ShardWriter(source["history"], schema=SCHEMA) as writer:
                writer.write_batch({"y": FIRST_OLD + np.arange(NUM_OLD), "t": (np.zeros(NUM_OLD, np.uint8), np.arange(NUM_OLD + 1))})
        super().__init__(folder, {"source": source}, num_producers * count, seed, num_epochs=1, max_ranks=max_ranks, max_runs=max_runs,
                         limit_s=limit_s)  # fmt: skip
        self.producers = Producers(self.url, num_producers, count, seed)
        self._runs: list[tuple[Path, int, int, int]] = []  # folder, ranks, first position, steps that count

    def run(self) -> None:
        """Go through runs until the log has ended and all is consumed; AssertionError if a sample was lost, came twice,
        or out of order.
        """
        state, number = None, 0
        try:
            while _position(state) < self.num_samples:
                assert number < self.max_runs, f"the lineage did not end: {self.log}"
                before, state = state, self._run(number, state, is_last=number == self.max_runs - 1)
                self._note_run(self.folder / f"run-{number}", before)
                number += 1
        finally:
            self.producers.join()
        self._check_order()

    def _note_run(self, folder: Path, before: dict | None) -> None:
        world_size = int(self.log[-1].split()[0])
        if (folder / "state.json").exists():
            self._runs.append((folder, world_size, _position(before), json.loads((folder / "state.json").read_text())["step"]))

    def _check_order(self) -> None:
        stream = make_stream({"follow": self.url}, self.spec["seed"], shuffle=True, batch_size=64)
        order = ids_of({"y": [y for batch in stream for y in batch["y"]]})
        assert sorted(order) == list(range(self.num_samples)), "the log does not have every sample once"
        consumed, older = [], Counter()
        for folder, world_size, first, num_steps in self._runs:
            plan = BatchPlan(self.num_samples, first, self._num_new(json.loads((folder / "spec.json").read_text())),
                             world_size)  # fmt: skip
            for rank in range(world_size):
                for line in (folder / f"rank-{rank}.jsonl").read_text().splitlines(keepends=True):
                    note = json.loads(line) if line.endswith("\n") else {}
                    if note.get("step", num_steps) < num_steps:
                        positions = plan.positions(note["step"], rank)
                        new = [i for i in note["ids"] if i < FIRST_OLD]
                        assert new == [order[p] for p in positions], f"rank {rank}, step {note['step']} of {folder}: {self.log}"
                        consumed += positions
                        older.update(i for i in note["ids"] if i >= FIRST_OLD)
        assert sorted(consumed) == list(range(self.num_samples)), f"positions lost or twice: {self.log}"
        counts = [older.pop(FIRST_OLD + i, 0) for i in range(NUM_OLD)]
        assert not older and max(counts) - min(counts) <= 1, f"older samples lost or twice in an epoch: {counts}, {older}; {self.log}"
        assert (sum(counts) > 0) == self.is_mixed

    def _num_new(self, spec: dict) -> int:
        """Return the rows of a run's batches that are of the log."""
        return rows_of_each(spec["batch_size"], spec["weights"])[0] if self.is_mixed else spec["batch_size"]


def _position(state: dict | None) -> int:
    return 0 if state is None else followed(state)["position"]
