"""Where records come from, by name.

A source plans its input as an ordered sequence of parts, and reads one part at a time into
records: dicts with a ``key``, whose hash decides the split, and more columns. A part is small and
picklable, reading one is a pure function of it, and the order of parts is the order of rows; so
the work can be shared out without changing what comes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from shardstream.errors import SampleError
from shardstream.packing.steps import Columns


@dataclass
class Chunk:
    """The records of one part, in order, and those that could not be read."""

    records: list[dict]
    nbytes: int
    rejects: list[SampleError] = field(default_factory=list)


class Source(Protocol):
    """What a packing job asks of its input."""

    columns: Columns
    """The columns of its records."""

    nbytes: int | None
    """Bytes of the whole input as far as known, for the progress bar."""

    def parts(self) -> Iterator[Any]:
        """Plan the input: parts in the order of their rows."""

    def read(self, part: Any) -> Chunk:
        """Read one part."""

    def peek(self, column: str) -> Iterator[Any] | None:
        """Give a column's value of every record without reading more than that takes; ``None`` if it cannot."""
