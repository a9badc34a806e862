"""Rows in columns, as steps pass them on.

A column is a list with an entry a row, an array whose first axis is the rows, or what
``ShardWriter.write_batch`` takes for rows of their own lengths: ``(values, offsets)`` or
``(indices, indptr[, values])``. In all of those the second array says where each row begins.
``None`` in a list stands for a value that the record does not have.

The column :data:`RECORD` goes along with all rows: the number of the source's record in its chunk, by which an error
finds file and line. Steps pass it on as any other column.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np

from shardstream.errors import SampleError

RECORD = "\0record"  # no source, function or configuration has a column of this name


def take(column: Any, rows: Sequence[int]) -> Any:
    """Return the column with these rows, in this order; a row may come several times."""
    if isinstance(column, list):
        return [column[row] for row in rows]
    rows = np.asarray(rows, np.int64)
    if not isinstance(column, tuple):
        return np.asarray(column)[rows]
    offsets = np.asarray(column[1], np.int64)
    lengths = (offsets[1:] - offsets[:-1])[rows]
    ends = np.concatenate(([0], np.cumsum(lengths)))
    elements = np.arange(ends[-1]) + np.repeat(offsets[rows] - ends[:-1], lengths)
    parts = [ends if index == 1 else np.asarray(part)[elements] for index, part in enumerate(column)]
    return tuple(parts)


def value_of(column: Any, row: int) -> Any:
    """Return one row's value: an entry of a list, a part of an array; sparse with values is a pair."""
    if not isinstance(column, tuple):
        return column[row]
    begin, end = column[1][row], column[1][row + 1]
    parts = [part[begin:end] for index, part in enumerate(column) if index != 1]
    return parts[0] if len(parts) == 1 else tuple(parts)


def are_all(values: list, kinds: type | tuple[type, ...]) -> bool:
    """Tell whether all values are of the kinds."""
    return all(issubclass(kind, kinds) for kind in set(map(type, values)))  # of a few types, not of thousands of values


@dataclass
class Batch:
    """Rows in columns, and what was rejected on the way here.

    ``columns["key"]`` is always there: a list of str that messages name rows by; and RECORD, if the rows are of a
    chunk. ``num_tokens`` is how many a step has made, for the progress bar.
    """

    columns: dict[str, Any]
    rejects: list[SampleError] = field(default_factory=list)
    num_tokens: int = 0

    def __len__(self) -> int:
        return len(self.columns["key"])

    @classmethod
    def of_records(cls, records: Iterable[dict], rejects: Sequence[SampleError] = ()) -> Batch:
        """Return the batch of dicts with a ``key`` each; the columns are all that any of them has."""
        records = list(records)
        names = {"key": None, **dict.fromkeys(records[0] if records else ())}
        if set(map(len, records)) <= {len(names)}:
            try:
                return cls({name: list(map(itemgetter(name), records)) for name in names}, list(rejects))
            except KeyError:
                pass  # as many keys as the first has, but others
        names = dict.fromkeys(["key", *(name for record in records for name in record)])
        return cls({name: [record.get(name) for record in records] for name in names}, list(rejects))

    def take(self, rows: Sequence[int], rejects: Iterable[SampleError] = ()) -> Batch:
        """Return the batch with these rows, in this order, and more rejects."""
        columns = {name: take(column, rows) for name, column in self.columns.items()}
        return Batch(columns, [*self.rejects, *rejects], self.num_tokens)

    def reject(self, row: int, message: str, field: str | None = None) -> SampleError:
        """Return the error of a row; :meth:`Chunk.placed` adds its place."""
        error = SampleError(message, key=self.columns["key"][row], field=field)
        if RECORD in self.columns:
            error.record = int(self.columns[RECORD][row])
        return error

    def checked(self, name: str, kinds: type | tuple[type, ...], what: str) -> Batch:
        """Return the batch without the rows whose value in a column is not of the kinds; those are rejects."""
        column = self.columns.get(name)
        if column is None:
            rejects = [self.reject(row, f"the record has no {name!r}.") for row in range(len(self))]
            return Batch({**self.take([]).columns, name: []}, [*self.rejects, *rejects], self.num_tokens)
        if not isinstance(column, list) or are_all(column, kinds):
            return self
        good, rejects = [], []
        for row, value in enumerate(column):
            if isinstance(value, kinds):
                good.append(row)
            else:
                got = "missing" if value is None else f"{type(value).__name__}, not {what}"
                rejects.append(self.reject(row, f"the value is {got}.", name))
        return self.take(good, rejects)
