"""Where records come from, by name.

A source plans its input as an ordered sequence of parts, and reads one part at a time into
columns: ``key``, whose hash decides the split, and more. A part is small and picklable, reading one
is a pure function of it, and the order of parts is the order of rows; so the work can be shared out
without changing what comes out. Nothing of a plan depends on the machine: the same input has the same parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from shardstream.errors import SampleError
from shardstream.packing.batch import RECORD, Batch
from shardstream.packing.steps import Columns

CHUNK_NBYTES = 4 << 20  # of input read at a time: keeps C busy for milliseconds, and stays small beside a block
MIN_PART_NBYTES, PART_NBYTES, MAX_PART_NBYTES = 1 << 20, 32 << 20, 256 << 20
FEW_PARTS, MANY_PARTS = 16, 1 << 15


def part_nbytes(total_nbytes: int) -> int:
    """Return the size of an input's parts: 32 MiB, less where there would be fewer than 16, more where above 32,768.

    Several for each core where that is possible, whole blocks from each, and of a huge input no more than one process
    can plan.
    """
    usual = min(max(total_nbytes // FEW_PARTS, MIN_PART_NBYTES), PART_NBYTES)
    return max(usual, min(total_nbytes // MANY_PARTS, MAX_PART_NBYTES))


@dataclass
class Chunk:
    """Some records of a part, in order, as columns of values; and those that could not be read.

    ``where`` says of a record, by its number in the chunk, file and line, or row, as in "line 7 of a.csv". It is asked
    for the few that are rejected, before the next chunk is read.
    """

    columns: dict[str, Any]
    nbytes: int
    rejects: list[SampleError] = field(default_factory=list)
    where: Callable[[int], str] | None = None

    def __len__(self) -> int:
        return len(self.columns["key"])

    @classmethod
    def of_records(cls, records: Iterable[dict], nbytes: int, rejects: Sequence[SampleError] = (),
                   where: Callable[[int], str] | None = None) -> Chunk:  # fmt: skip
        """Return a chunk of dicts with a ``key`` each; the columns are all that any of them has."""
        return cls(Batch.of_records(records).columns, nbytes, list(rejects), where)

    def batch(self) -> Batch:
        """Return the records as rows that know which record they are."""
        return Batch({**self.columns, RECORD: np.arange(len(self))})

    def placed(self, errors: Sequence[SampleError]) -> list[SampleError]:
        """Return errors of rows that came of :meth:`batch` with the place of their record before the message."""
        for error in errors:
            record = error.__dict__.pop("record", None)
            if record is not None and self.where is not None:
                error.message = f"{self.where(record)}: {error.message}"
        return list(errors)


class Source(Protocol):
    """What a packing job asks of its input."""

    columns: Columns
    """The columns of its records."""

    nbytes: int | None
    """Bytes of the whole input as far as known, for the progress bar."""

    identity: Any
    """JSON that changes when the input does: a job that was killed goes on only with the same input."""

    def parts(self) -> Iterator[Any]:
        """Plan the input: parts in the order of their rows."""

    def read(self, part: Any) -> Iterator[Chunk]:
        """Read one part."""

    def digest(self, part: Any, before: int) -> int:
        """Return a checksum of all parts up to this one, given that of those before; 0 if ``identity`` says it all."""

    def peek(self, column: str) -> Iterator[Any] | None:
        """Give a column's value of every record without reading more than that takes; ``None`` if it cannot."""
