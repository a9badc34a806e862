"""A step of the user's own: a Python function of one row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from shardstream.packing.batch import RECORD, Batch, take, value_of
from shardstream.packing.steps import ANY, Column, Columns
from shardstream.schema import Text


class FunctionStep:
    """Calls ``function(row, **settings)`` for each row, a dict of its columns.

    It returns a dict, the row that takes its place; ``None`` drops the row; an iterable of dicts
    makes several of it. A ``key`` that it leaves out is the row's own. An exception rejects the row.
    """

    def __init__(self, function: Callable, settings: dict[str, Any]):
        self.function, self.settings = function, settings
        self.name = (
            f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"
        )

    def columns(self, before: Columns) -> Columns:
        return {"key": Column(Text()), ANY: Column(None)}  # whatever the function returns

    def run(self, batch: Batch) -> Batch:
        rows, origins, rejects = [], [], list(batch.rejects)
        columns = {name: column for name, column in batch.columns.items() if name != RECORD}
        for number, key in enumerate(batch.columns["key"]):
            row = {name: value_of(column, number) for name, column in columns.items()}
            try:
                made = [{"key": key, **made} for made in self._rows(self.function(row, **self.settings))]
            except Exception as error:
                reject = batch.reject(number, f"{self.name} failed: {type(error).__name__}: {error}")
                reject.__cause__ = error
                rejects.append(reject)
            else:
                rows += made
                origins += [number] * len(made)
        made = Batch.of_records(rows, rejects)
        made.num_tokens = batch.num_tokens
        if RECORD in batch.columns:
            made.columns[RECORD] = take(batch.columns[RECORD], origins)
        return made

    def _rows(self, made: Any) -> Iterable[Mapping]:
        if made is None:
            return ()
        rows = (made,) if isinstance(made, Mapping) else tuple(made)
        for row in rows:
            if not isinstance(row, Mapping):
                raise TypeError(f"it returned {row!r}; a row is a dict")
        return rows
