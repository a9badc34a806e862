"""The entries of a log one after the other, as they come: what a follower polls (``EntryFeed``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shardstream.errors import DatasetError
from shardstream.log import entries, folds
from shardstream.log.state import Step

MAX_AHEAD = 16  # entries asked for together, once as many have come

ReadMany = Callable[[Sequence[str]], list[bytes | None]]


class EntryFeed:
    """Reads the entries above a version, each once, in order.

    While nothing comes, a look at the log is one request. Who is behind reads 4, then 16 entries in one round, and
    then the folds beside the log, which have up to 960 entries each: 100,000 take some 300 rounds.

    Args:
        read_many: Returns each object's bytes, or None for an absent one, in one round.
        dataset: Id that all entries must bear.
        version: The last entry that is known already.
    """

    def __init__(self, read_many: ReadMany, dataset: str, version: int):
        self._read_many, self._dataset = read_many, dataset
        self.version = version  #: the last entry returned
        self._width = 1  # entries to ask for

    @property
    def is_behind(self) -> bool:
        """Whether all that the last look asked for was there, so that more may be."""
        return self._width > 1

    def read(self) -> list[Step]:
        """Return the next entries, none if there are none yet; one or two rounds of requests.

        Raises:
            DatasetError: An entry is malformed, of a newer format, or of another dataset.
            StorageError: The store failed for good.
        """
        steps = self._folded() if self._width == MAX_AHEAD else []
        if not steps:
            try:
                steps = self._next(self._width)
            except DatasetError:  # of one of them: what stands before it comes first
                steps = self._next(1)
            self._width = min(4 * self._width, MAX_AHEAD) if len(steps) == self._width else 1
        for step in steps:
            if step.entry.dataset != self._dataset:
                raise DatasetError(f"{entries.name(step.entry.version)} belongs to dataset "
                                   f"{step.entry.dataset}, not {self._dataset}.")  # fmt: skip
            self.version += 1
        return steps

    def _next(self, num: int) -> list[Step]:
        """Return the next ``num`` entries, or as many as there are, in one round."""
        steps: list[Step] = []
        for data in self._read_many([entries.name(self.version + 1 + ahead) for ahead in range(num)]):
            if data is None:
                break
            steps.append(Step.of(entries.decode(data, self.version + 1 + len(steps))))
        return steps

    def _folded(self) -> list[Step]:
        """Return the next entries out of the longest tail that has them; none if there is no such tail, or it is lost.
        """
        base = self.version // folds.ALL * folds.ALL
        nearest = (self.version // folds.COARSE + 1) * folds.COARSE
        ends = (base + folds.ALL - folds.COARSE, nearest, base + folds.ALL - folds.FINE)
        for end in dict.fromkeys(end for end in ends if self.version < end < base + folds.ALL):
            begin, name = folds.piece(end)
            [data] = self._read_many([name]) if begin <= self.version else [None]
            if data is None:
                continue
            try:
                steps = [step for step in folds.decode_tail(data, begin, end) if step.entry.version > self.version]
            except folds.Lost:
                continue
            if all(step.entry.dataset == self._dataset for step in steps):
                return steps
        return []
