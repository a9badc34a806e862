"""Many machines: parts made, and shards put together and sent to the store, by the workers of a Dask cluster.

Blocks never come to the job's own process. It learns their sizes, decides from them, in the order of
parts, which blocks are a shard, and has a worker fetch these from the others, put the shard straight
into the store, and return its record; these it notes in order, as the one writer of the journal and the log.

What a lost worker held or was at is done again by another: parts are pure, and results are asked for
by key. A shard that was put by a worker that was lost before it could say so is put again under
another name; only records that came back are ever committed, so no row can come twice.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from shardstream.errors import ShardstreamError, WorkerError
from shardstream.log import ShardRecord, new_id
from shardstream.packing import threads
from shardstream.packing.config import Settings
from shardstream.packing.engines import Task
from shardstream.packing.engines.local import put_shard, shard_file
from shardstream.packing.make import Job, Made, make
from shardstream.shardfile import EncodedBlock
from shardstream.storage import Store

AHEAD = 3  # parts a thread of the cluster that are made before they are asked for
LOOK_S = 5.0  # how often the cluster is asked how large it is


class DaskSettings(Settings):
    """The keys of ``engine`` with ``kind: dask``."""

    scheduler: str | None = None
    workers: int | None = None


@dataclass(frozen=True)
class _Block:
    """What the job's process knows of a block: enough to place it, and to know it again."""

    num_samples: int
    nbytes: int
    crcs: tuple[int, ...]
    picked: Any  # a future: all blocks of its part and split
    index: int


class DaskEngine:
    """Uses the cluster of a scheduler's address, or starts one of ``workers`` processes here, by default one a core."""

    def __init__(self, job: Job, settings: DaskSettings, several: bool):
        try:
            import distributed
        except ImportError:
            raise job.document.error(("engine",), "needs Dask: pip install 'shardstream[dask]'.") from None
        if settings.scheduler is not None and settings.workers is not None:
            raise job.document.error(("engine", "workers"), "a scheduler has its own workers; give one or the other.")
        if settings.workers is not None and settings.workers < 1:
            raise job.document.error(("engine", "workers"), f"must be at least 1, not {settings.workers}.")
        self._job, self._settings, self._distributed = job, settings, distributed
        self._run = new_id()
        self._cluster = self._client = None

    def __enter__(self) -> DaskEngine:
        distributed, settings = self._distributed, self._settings
        try:
            if settings.scheduler is None:
                self._cluster = distributed.LocalCluster(
                    settings.workers or threads.num_cores(), threads_per_worker=1, host="127.0.0.1",
                    dashboard_address="127.0.0.1:0", silence_logs=logging.ERROR)  # fmt: skip
            self._client = distributed.Client(self._cluster or settings.scheduler, set_as_default=False)
        except (OSError, TimeoutError) as error:
            where = f"the scheduler {settings.scheduler}" if settings.scheduler else "a cluster of processes"
            message = f"{where} cannot be reached: {error}"
            self.__exit__(WorkerError, None, None)
            raise WorkerError(message) from error
        # A task, not scattered data: what a lost worker held of it can be had again from the scheduler.
        self._shipped = self._submit("job", pickle.loads, self._pickled())
        return self

    def __exit__(self, *error) -> None:
        self._shipped = None
        if self._client is not None:
            self._client.close()
        if self._cluster is not None:
            self._cluster.close()

    def _pickled(self) -> bytes:
        from distributed.protocol.pickle import dumps

        return dumps(self._job)  # by cloudpickle where needed: steps may be any function

    def _submit(self, name: str, function: Any, *arguments: Any) -> Any:
        return self._client.submit(function, *arguments, key=f"shardstream-{self._run}-{name}", pure=False)

    def made(self, tasks: Iterator[Task]) -> Iterator[tuple[int, Made]]:
        waiting: deque[tuple[int, Any, dict[str, Any]]] = deque()
        limit, looked = 1, 0.0
        for number, part, wanted in tasks:
            made = self._submit(f"make-{number}", _make, self._shipped, number, part, wanted)
            seen = self._submit(f"seen-{number}", _seen, made)
            picked = {split: self._submit(f"pick-{number}-{split}", _pick, made, split) for split in sorted(wanted)}
            waiting.append((number, seen, picked))
            if time.monotonic() - looked > LOOK_S:  # clusters grow and shrink
                limit, looked = AHEAD * max(1, sum(self._client.nthreads().values())), time.monotonic()
            if len(waiting) > limit:
                yield from self._collected(waiting, len(waiting) - limit)
        yield from self._collected(waiting, len(waiting))

    def _collected(self, waiting: deque, least: int) -> Iterator[tuple[int, Made]]:
        """Give the first parts, ``least`` of them and what else is done by then, asked for in one request."""
        count = 0
        while count < len(waiting) and (count < least or waiting[count][1].done()):
            count += 1
        taken = [waiting.popleft() for _ in range(count)]
        seen = _results(lambda: self._client.gather([future for _, future, _ in taken]))
        for (number, _, picked), made in zip(taken, seen, strict=True):
            for split, blocks in made.blocks.items():
                made.blocks[split] = [_Block(*known, picked[split], index) for index, known in enumerate(blocks)]
            yield number, made

    def new_shard(self, split: str) -> DaskShard:
        return DaskShard(self, split)


class DaskShard:
    """A shard that is a list of blocks which lie on workers."""

    def __init__(self, engine: DaskEngine, split: str):
        self._engine, self._split = engine, split
        self._blocks: list[_Block] = []

    def append(self, block: _Block) -> None:
        self._blocks.append(block)

    def finish(self) -> _Pending:
        futures = list({block.picked.key: block.picked for block in self._blocks}.values())
        places = {future.key: place for place, future in enumerate(futures)}
        wanted = [(places[block.picked.key], block.index, block.num_samples, block.crcs) for block in self._blocks]
        engine = self._engine
        return _Pending(engine._submit(f"put-{new_id()}", _put, engine._shipped, self._split, wanted, futures))

    def discard(self) -> None:
        self._blocks = []


class _Pending:
    def __init__(self, future: Any):
        self._future = future

    def done(self) -> bool:
        return self._future.done()

    def result(self) -> ShardRecord:
        return _results(self._future.result)


def _results(ask: Callable[[], Any]) -> Any:
    """Return what Dask gives; what went wrong on a worker as the error it was, what with one as WorkerError."""
    from distributed import CancelledError, KilledWorker

    try:
        return ask()
    except ShardstreamError:
        raise
    except (KilledWorker, CancelledError, OSError, TimeoutError) as error:
        message = f"the cluster could not finish its work: {error} Run the job again to go on where it stopped."
        raise WorkerError(message) from error


# -- on a worker ------------------------------------------------------------------------------------


def _make(job: Job, number: int, part: Any, wanted: frozenset[str]) -> Made:
    threads.limit(1)
    return make(job, number, part, wanted)


def _seen(made: Made) -> Made:
    """Return what the job's process has to know of a part."""
    return Made({split: [(block.num_samples, block.nbytes, tuple(block.crcs)) for block in blocks]
                 for split, blocks in made.blocks.items()}, made.tallies)  # fmt: skip


def _pick(made: Made, split: str) -> list[EncodedBlock]:
    """Return one split's blocks, so that the others' need not be kept as long."""
    return made.blocks[split]


def _put(job: Job, split: str, wanted: list[tuple], parts: list[list[EncodedBlock]]) -> ShardRecord:
    """Put a shard of these blocks into the store."""
    store = Store(job.urls[split], job.top.output.storage_options or None)
    file = shard_file(job, store)
    try:
        for place, index, num_samples, crcs in wanted:
            blocks = parts[place]
            block = blocks[index] if index < len(blocks) else None
            if block is None or (block.num_samples, tuple(block.crcs)) != (num_samples, crcs):
                raise WorkerError("a part came out different when it was made again, after a worker was lost: steps must "
                                  "give the same rows for the same records.")  # fmt: skip
            file.append(block)
    except BaseException:
        file.discard()
        raise
    return put_shard(store, file)
