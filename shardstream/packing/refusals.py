"""Rows that the work on a batch refuses, such as texts that are not Unicode, found without doing it once for each.

Work is a function of a batch that raises the error of one row: ``index`` of a ``TextError`` or ``TokenizerError``,
``key`` of a ``SampleError``. It says nothing of the rows after that one, so they are looked for by parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from shardstream.errors import SampleError, ShardstreamError
from shardstream.packing.batch import Batch

Result = TypeVar("Result")
FANOUT = 16  # by 2 a single bad row costs fewer calls, but a batch of bad rows 14 times the work of a good one, not 5


def without_refused(batch: Batch, work: Callable[[Batch], Result], field: str | None = None) -> tuple[Batch, Result]:
    """Return the batch without the rows that the work refuses, which are among its rejects, and the work's result for it.

    Costs one call if none is refused. Otherwise all rows are done again in 16 parts, each part that is refused again in
    16, and in the end those that are good together: for one bad row of n about 3n rows, for n of them n (1 + log16 n).

    Args:
        field: What the rejects name where the error names no field.

    Raises:
        ShardstreamError: The work failed, and not because of a row.
    """
    try:
        return batch, work(batch)
    except ShardstreamError as error:
        if not _is_of_a_row(error):
            raise
    bad = dict(_refused(batch, range(len(batch)), work, field))
    batch = batch.take([row for row in range(len(batch)) if row not in bad], bad.values())
    return batch, work(batch)


def _refused(batch: Batch, rows: range, work: Callable, field: str | None) -> Iterator[tuple[int, SampleError]]:
    size = -(-len(rows) // FANOUT)
    for begin in range(rows.start, rows.stop, size):
        part = range(begin, min(begin + size, rows.stop))
        try:
            work(Batch(batch.take(part).columns))
        except ShardstreamError as error:
            if not _is_of_a_row(error):
                raise
            if len(part) == 1:
                yield begin, batch.reject(begin, _of_the_only(error.message), error.field or field)
            else:
                yield from _refused(batch, part, work, field)


def _is_of_a_row(error: ShardstreamError) -> bool:
    return isinstance(getattr(error, "index", error.key), int)


def _of_the_only(message: str) -> str:
    """Return the message without the row's number, which is that in a part of a batch and says nothing to the user."""
    for name in ("text", "row"):
        if message.startswith(f"{name}s[0]"):
            return f"the {name}{message[len(name) + 4 :]}"
    return message
