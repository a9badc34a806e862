"""A contender in a process of its own, which does one thing after another as its standard input tells it (``main``).

``python -m benchmarks.read.contestant CONTENDER WORKLOAD NUM_SAMPLES FOLDER NUM_WORKERS`` answers each line by a line of JSON:

=========  ==============================================================================================================
(start)    the contender has been imported: ``{"base_nbytes"}``
``first``  the loader is made and its first batch here: ``{"seconds"}``
``epoch``  the rest of the first epoch, which warms caches up, and the sums over it: ``{"totals"}``
``turn S`` at least S seconds of the epochs that follow, which is what counts: ``{"samples", "seconds", "cpu_s", "nbytes"}``
``cold``   a whole epoch of a new loader, which has nothing cached on this machine: ``{"samples", "seconds", "cpu_s", "totals"}``
=========  ==============================================================================================================

Epochs follow one another without a pause or a cut, as in training, so a turn may hold an epoch's end.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.read import tree
from benchmarks.read.contenders import MODULES


class Contestant:
    def __init__(self, contender: str, workload: str, num_samples: str, folder: str, num_workers: str):
        torch.set_num_threads(1)  # OpenMP's threads spin while they wait, on cores that others could use
        self._module = importlib.import_module(f"benchmarks.read.contenders.{MODULES[contender]}")
        from benchmarks.read.workloads import WORKLOADS

        self._contender, self._workload, self._num_samples = contender, WORKLOADS[workload], int(num_samples)
        self._folder, self._num_workers = folder, int(num_workers)
        gc.collect()
        self.base_nbytes = tree.memory_nbytes(os.getpid())
        self._batches: Iterator[dict[str, Any]] = iter(())
        self._first: dict[str, Any] = {}

    def _loader(self, folder: str) -> Any:
        return self._module.loader(self._contender, self._workload, folder, self._num_workers)

    def first(self) -> dict[str, Any]:
        begin = time.perf_counter()
        self._batches = _for_ever(self._loader(self._folder))
        self._first = next(self._batches)
        return {"seconds": time.perf_counter() - begin}

    def epoch(self) -> dict[str, Any]:
        """A short epoch is seen by its sums: as many samples as there should be are taken, batch by batch."""
        totals, batch = self._workload.digest(self._first), self._first
        while totals[0] < self._num_samples:
            batch = next(self._batches)
            totals = [total + part for total, part in zip(totals, self._workload.digest(batch))]
        self._first = {}
        return {"totals": totals, "nbytes": tree.memory_nbytes(os.getpid())}

    def turn(self, seconds: str) -> dict[str, Any]:
        cpu_s, begin, count, now = tree.cpu_s(os.getpid()), time.perf_counter(), 0, 0.0
        while now < float(seconds):
            count += len(next(self._batches)["id"])
            now = time.perf_counter() - begin
        return {"samples": count, "seconds": now, "cpu_s": tree.cpu_s(os.getpid()) - cpu_s, "nbytes": tree.memory_nbytes(os.getpid())}

    def cold(self) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="shardstream-bench-") as scratch:
            cpu_s, begin, totals, first_s = tree.cpu_s(os.getpid()), time.perf_counter(), [0] * 4, None
            for batch in self._module.remote_loader(self._contender, self._workload, self._folder, scratch):
                first_s = first_s or time.perf_counter() - begin
                totals = [total + part for total, part in zip(totals, self._workload.digest(batch))]
            seconds = time.perf_counter() - begin
            return {"samples": totals[0], "seconds": seconds, "first_s": first_s, "totals": totals, "cpu_s": tree.cpu_s(os.getpid()) - cpu_s,
                    "nbytes": tree.memory_nbytes(os.getpid())}  # fmt: skip


def _for_ever(loader: Any) -> Iterator[dict[str, Any]]:
    while True:
        count = 0
        for batch in loader:
            count += 1
            yield batch
        if not count:
            raise ValueError("an epoch without a batch")


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer

    def answer(found: dict[str, Any]) -> None:
        print(json.dumps(found), file=answers, flush=True)

    try:
        contestant = Contestant(*sys.argv[1:])
        answer({"base_nbytes": contestant.base_nbytes})
        for line in sys.stdin:
            step, *arguments = line.split()
            answer(getattr(contestant, step)(*arguments))
    except BaseException as error:
        answer({"error": f"{type(error).__name__}: {error}".partition("\n")[0][:200]})
        raise


if __name__ == "__main__":
    main()
