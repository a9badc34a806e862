"""Blocks of parts, in the order of parts, to shards that stand in the store, noted in the journal.

Where a shard ends depends on the sizes of blocks and on nothing else, so the same input gives the
same shards with any number of workers, on any engine, and after any number of kills. An engine says
what a shard is made of (:class:`Shard`): a local file, or the results of other machines.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from shardstream.errors import ConfigError
from shardstream.log import ShardRecord
from shardstream.packing.journal import Journal, Step
from shardstream.packing.make import COMMON, Job, Made, Tally

logger = logging.getLogger("shardstream")
QUEUED_SHARDS = 4  # finished shards on their way to the store; then the job waits


class Pending(Protocol):
    """A result that comes later, as of ``concurrent.futures`` and of Dask."""

    def done(self) -> bool: ...

    def result(self) -> ShardRecord: ...


class Shard(Protocol):
    """A shard that is being put together."""

    def append(self, block: Any) -> None:
        """Add a block: what the engine's ``Made.blocks`` holds, with ``nbytes`` and ``num_samples``."""

    def finish(self) -> Pending:
        """Put the shard into the store."""

    def discard(self) -> None:
        """Forget it."""


class ShardPlace(Protocol):
    """What makes shards: an engine."""

    def new_shard(self, split: str) -> Shard:
        """Begin a shard."""


@dataclass
class _Split:
    """One split's way through the parts.

    Attributes:
        position: (part, block) before which all stands in finished shards.
    """

    position: tuple[int, int] = (0, 0)
    records: list[ShardRecord] = field(default_factory=list)
    shard: Shard | None = None
    open_nbytes: int = 0


class Assembly:
    """The shards of all splits of one run, which goes on where the journal ends."""

    def __init__(self, job: Job, journal: Journal):
        self._job, self._journal = job, journal
        self._splits = {name: _Split() for name in job.urls}
        self._open: dict[str, deque[tuple[int, Tally]]] = {scope: deque() for scope in (COMMON, *self._splits)}
        self._digest, self._digests = 0, deque([(0, 0)])  # (part, CRC of all records before it)
        self._shards: deque[tuple[str, Pending, dict]] = deque()  # on their way to the store, and what a step says then
        self.tally = Tally()  # of all parts so far, once
        self.num_samples = 0
        self.nbytes = 0  # of shards; blocks of open ones included
        self.is_complete = False
        self._is_cut_off = False  # noting shards was left half-way
        for step in journal.steps:
            self._replay(step)

    def _replay(self, step: Step) -> None:
        for name, position in step.positions.items():
            self._splits[name].position = position
        for tally in step.tallies.values():
            self.tally.add(tally)
        for name, record in step.shards:
            self._splits[name].records.append(record)
            self.nbytes += record.nbytes
            self.num_samples += record.num_samples
        self._digest = step.digest
        self.is_complete = step.ended

    @property
    def records(self) -> dict[str, list[ShardRecord]]:
        """Split -> its shards that stand in the store, in order."""
        return {name: split.records for name, split in self._splits.items()}

    def tasks(self) -> Iterator[tuple[int, Any, frozenset[str]]]:
        """Give ``(number, part, splits wanted of it)`` of the parts that are not all in finished shards.

        Raises:
            ConfigError: the records are not those of the run that was killed.
        """
        first, digest, count = self._frontier(COMMON), 0, 0
        starts = {name: split.position[0] for name, split in self._splits.items()}
        for number, part in enumerate(self._job.source.parts()):
            if number == first:
                self._check_digest(digest)
            digest, count = self._job.source.digest(part, digest), number + 1
            if number >= first:
                self._digests.append((count, digest))
                yield number, part, frozenset(name for name, start in starts.items() if start <= number)
        if count <= first:
            self._check_digest(digest if count == first else None)

    def _check_digest(self, digest: int | None) -> None:
        if digest != self._digest:
            message = "the records are not those of the run that was killed; give --restart (restart=True) to begin anew."
            raise ConfigError(message)

    def _frontier(self, scope: str) -> int:
        """Return the first part that a scope has to count again after a kill."""
        if scope == COMMON:
            return min(split.position[0] for split in self._splits.values())
        return self._splits[scope].position[0]

    # -- taking parts -------------------------------------------------------------------------------

    def take(self, number: int, made: Made, place: ShardPlace) -> None:
        """Add what part ``number`` became to the shards that ``place`` makes; parts come in order."""
        for scope, tally in made.tallies.items():
            self._open[scope].append((number, tally))
            self.tally.add(tally)
        for name, blocks in made.blocks.items():
            split = self._splits[name]
            for index, block in enumerate(blocks):
                if (number, index) >= split.position:
                    if split.shard is None:
                        split.shard, split.open_nbytes = place.new_shard(name), 0
                    self._append(name, split, block, (number, index + 1))
            if split.shard is None:
                split.position = max(split.position, (number + 1, 0))
        self._settle(all_of_them=False)

    def _append(self, name: str, split: _Split, block: Any, end: tuple[int, int]) -> None:
        split.shard.append(block)
        split.open_nbytes += block.nbytes
        self.nbytes += block.nbytes
        self.num_samples += block.num_samples
        if split.open_nbytes >= self._job.shard_nbytes:
            self._finish(name, end)

    def _finish(self, name: str, end: tuple[int, int]) -> None:
        split = self._splits[name]
        split.position = end
        shard, split.shard = split.shard, None
        self._shards.append((name, shard.finish(), self._left_behind()))

    def _left_behind(self) -> dict:
        """Return what a step says of the parts that need not be looked at again."""
        positions = {name: split.position for name, split in self._splits.items()}
        tallies = {}
        for scope, waiting in self._open.items():
            while waiting and waiting[0][0] < self._frontier(scope):
                tallies.setdefault(scope, Tally()).add(waiting.popleft()[1])
        while self._digests and self._digests[0][0] <= self._frontier(COMMON):
            if self._digests[0][0] == self._frontier(COMMON):
                self._digest = self._digests[0][1]
            self._digests.popleft()
        return {"positions": positions, "tallies": tallies, "digest": self._digest}

    def _settle(self, all_of_them: bool) -> None:
        """Note the shards that stand in the store, in order, in one step; wait for some if many do not yet.

        After an error or Ctrl-C in here nothing more is noted: a step that came later would say that all before it
        stand.
        """
        if self._is_cut_off:
            return
        self._is_cut_off = True
        shards, says, error = [], {}, None
        while self._shards and (all_of_them or len(self._shards) > QUEUED_SHARDS or self._shards[0][1].done()):
            name, pending, left_behind = self._shards.popleft()
            try:
                shards.append((name, pending.result()))
            except BaseException as failure:  # those before it stand
                error = failure
                break
            tallies = says.get("tallies", {})
            for scope, tally in left_behind["tallies"].items():
                tallies.setdefault(scope, Tally()).add(tally)
            says = {**left_behind, "tallies": tallies}
        if shards:
            self._journal.append(shards=shards, **says)
            for name, record in shards:
                self._splits[name].records.append(record)
        if error is not None:
            raise error
        self._is_cut_off = False

    def empty_splits(self) -> list[str]:
        """Return the splits that have got no row yet."""
        queued = {name for name, _, _ in self._shards}
        return [name for name, split in self._splits.items() if not split.records and not split.shard and name not in queued]

    # -- ending -------------------------------------------------------------------------------------

    def end(self, num_parts: int) -> None:
        """Finish all shards, and note that the input has ended."""
        for name, split in self._splits.items():
            if split.shard is not None:
                self._finish(name, (num_parts, 0))
            split.position = (num_parts, 0)
        self._settle(all_of_them=True)
        self._journal.append(ended=True, **self._left_behind())
        self.is_complete = True

    def abandon(self) -> None:
        """Forget what is open; what is on its way is noted if it arrives."""
        for split in self._splits.values():
            if split.shard is not None:
                split.shard.discard()
                split.shard = None
        try:
            self._settle(all_of_them=True)
        except Exception as error:  # the one that ended the job is raised; these shards are made again
            logger.debug("shards on their way were lost: %r", error)
