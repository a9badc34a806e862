"""What a running job has finished, kept beside its output, so that a killed one goes on where it stopped.

The journal is a sequence of immutable objects ``_pack/<20 digits>.json`` in the folder of the job's
first dataset, a step each, appended as log entries are: by put-if-absent at the next number, and an
outcome that is unknown is settled by reading. So of two runs of one job that meet, the second to
write a number stops. A step is some more shards that stand in the store; readers of the dataset
see none of them before the job publishes all (``publish.py``), and then the journal is deleted.

===========  =====================================================================================
of a step    meaning
===========  =====================================================================================
job          what must be the same for a run to go on: a hash of configuration and input
run          an id of the job's first run, kept by those that go on: names the producer that publishes
writer       an id of the process that wrote the step
shards       the shards, each with its split
ended        whether these are the last
positions    split -> (part, blocks of it) after its last finished shard: where it goes on
tallies      scope -> what was counted in the parts that the scope has left behind since the last step
digest       CRC of all records before the earliest position, for sources that cannot be looked at
===========  =====================================================================================
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from shardstream.errors import (
    ConfigError,
    Conflict,
    DatasetError,
    StorageError,
    StorageRefused,
)
from shardstream.log import ShardRecord, new_id
from shardstream.packing.make import Tally
from shardstream.storage import Store
from shardstream.storage.dates import dated
from shardstream.storage.retry import backoff_s

FOLDER = "_pack"
ELSEWHERE = f"{FOLDER}/elsewhere.json"  # beside the job's other datasets: where the journal is, for gc
FORMAT = 1
ROUND = 32  # steps read at a time


class Step(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One object of the journal."""

    format: int
    job: str
    run: str
    writer: str
    positions: dict[str, tuple[int, int]]
    tallies: dict[str, Tally] = {}
    shards: list[tuple[str, ShardRecord]] = []
    ended: bool = False
    digest: int = 0


def name_of(number: int) -> str:
    return f"{FOLDER}/{number:020d}.json"


class Journal:
    """The journal in ``store``: read when made, appended to by one run at a time.

    Args:
        store: Of the first dataset.
        others: Of the job's other datasets, which say where the journal is.

    Attributes:
        steps: All steps, oldest first.
        run: The id of the job's first run.
    """

    def __init__(self, store: Store, job: str, others: Sequence[Store] = ()):
        self.store, self.job, self._others = store, job, others
        self.writer = new_id()
        self.steps = read_steps(store)
        self.run = self.steps[0].run if self.steps else self.writer
        if self.steps and self.steps[0].job != job:
            raise ConfigError(
                f"an unfinished packing job stands at {store.url}, of another configuration, input, or version of "
                "shardstream. Finish it as it was begun, or give --restart (restart=True) to delete what it has done."
            )

    def append(self, **fields) -> None:
        """Add a step; returns when it stands.

        Raises:
            Conflict: another run of the job has taken over.
            StorageError: not known whether it stands; run the job again to go on.
        """
        step = Step(format=FORMAT, job=self.job, run=self.run, writer=self.writer, **fields)
        data, name, attempt = msgspec.json.encode(step), name_of(len(self.steps)), 0
        while not self._put(name, data):
            stands = self.store.read_many([name])[0]
            if stands == data:
                break
            if stands is not None:
                raise Conflict(f"another run of this job is at work: {self.store.join(name)} is not of this one.")
            attempt += 1
            if attempt >= self.store.retry.max_attempts:
                raise StorageError(f"{self.store.join(name)} could not be written in {attempt} tries.")
            time.sleep(backoff_s(self.store.retry, attempt))
        self.steps.append(step)

    def begin(self) -> None:
        """Have the other datasets say where the journal is, before a shard is put there."""
        for other in self._others:
            other.put_bytes(ELSEWHERE, msgspec.json.encode({"journal": self.store.url}))

    def newest_s(self) -> float:
        """Return when the last step was written, by the store's clock."""
        return max((step.modified_s for step in dated(self.store, FOLDER)), default=0.0)

    def delete(self) -> None:
        """Delete all steps, the first one last: what is left after a kill is still a journal."""
        for other in self._others:
            other.delete([ELSEWHERE])
        self.store.delete([name_of(number) for number in reversed(range(len(self.steps)))])
        self.steps = []

    def _put(self, name: str, data: bytes) -> bool:
        try:
            return self.store.put_if_absent(name, data)
        except StorageRefused:
            raise
        except StorageError:
            return False  # unknown: reading will tell


def read_steps(store: Store) -> list[Step]:
    """Return the steps that stand in a store, oldest first; none if no job is unfinished there."""
    steps: list[Step] = []
    while True:
        names = [name_of(len(steps) + ahead) for ahead in range(ROUND if steps else 1)]
        for name, data in zip(names, store.read_many(names), strict=True):
            if data is None:
                return steps
            steps.append(_decoded(store.join(name), data))


def _decoded(where: str, data: bytes) -> Step:
    try:
        step = msgspec.json.decode(data, type=Step)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DatasetError(f"{where} is not a step of a packing job: {error}.") from error
    if step.format != FORMAT:
        raise DatasetError(f"{where} has format {step.format}; this shardstream reads {FORMAT}.")
    return step
