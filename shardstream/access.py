"""Rows by number: what the map-style datasets share (``RowAccess``).

``ShardDataset`` and ``MemmapDataset`` differ in where their blocks come from. Given blocks, a row is a slot and a
row in it, and a batch of rows is one C call a column, as in a stream (``assemble.py``).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from operator import index as as_integer
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from shardstream._native.gather import RowNumbers
from shardstream.assemble import BatchAssembler
from shardstream.buffers import BufferPool
from shardstream.codecs import files
from shardstream.collate import collate_rows, column_length, split_rows
from shardstream.errors import TransformError
from shardstream.forms import Forms
from shardstream.reader import Block
from shardstream.schema import Schema
from shardstream.transforms.marks import check_unplaced, row_errors


def one_row(rows: Any) -> int | None:
    """Return the number that a single row is chosen by; None of anything else, as of a bool."""
    if type(rows) is int:
        return rows
    is_bool = isinstance(rows, bool) or str(getattr(rows, "dtype", "")).endswith("bool")
    if is_bool or not (isinstance(rows, int) or getattr(rows, "ndim", None) == 0):
        return None
    try:
        return as_integer(rows)
    except TypeError:
        return None


def as_integers(rows: Any, num_rows: int) -> np.ndarray:
    """Return a slice or integers as int64 row numbers, 1-D and C-contiguous, as they were given: -1 stays -1.

    Raises:
        IndexError: A number is too large for int64.
        TypeError: Neither a slice nor a 1-D sequence of integers.
    """
    if isinstance(rows, slice):
        return np.arange(*rows.indices(num_rows), dtype=np.int64)
    numbers = np.asarray(rows)
    if numbers.ndim == 1:
        if numbers.dtype == np.int64:  # the usual case
            return np.ascontiguousarray(numbers)
        if numbers.size == 0:
            return np.empty(0, np.int64)
        if numbers.dtype == object and all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
            if (far := max(numbers, key=abs)) not in range(-(2**63), 2**63):
                raise IndexError(f"row {far} is outside the {num_rows} rows.")
            return numbers.astype(np.int64)
        if numbers.dtype.kind in "iu":
            if numbers.dtype.kind == "u" and int(numbers.max()) >= num_rows:
                raise IndexError(f"row {numbers.max()} is outside the {num_rows} rows.")
            return numbers.astype(np.int64)
    raise TypeError("rows are chosen by an integer, a slice or a 1-D sequence of integers, not "
                    f"{numbers.ndim}-D of {numbers.dtype}.")  # fmt: skip


def row_numbers(rows: Any, num_rows: int) -> np.ndarray:
    """Return int64 row numbers in ``[0, num_rows)`` of a slice or of integers, where -1 is the last row.

    Raises:
        IndexError: A number is outside the rows.
        TypeError: Neither a slice nor a 1-D sequence of integers.
    """
    numbers = as_integers(rows, num_rows)
    if not len(numbers) or int(numbers.view(np.uint64).max()) < num_rows:
        return numbers  # in one pass: as unsigned, a negative number is a large one
    low, high = int(numbers.min()), int(numbers.max())
    if low < -num_rows or high >= num_rows:
        raise IndexError(f"row {low if low < -num_rows else high} is outside the {num_rows} rows.")
    return np.where(numbers < 0, numbers + num_rows, numbers)


class RowAccess(Dataset):
    """A map-style dataset over blocks.

    ``ds[i]`` is one sample, a dict as :class:`ShardStream` gives it without ``batch_size``; ``ds[rows]``, for a slice
    or a list of integers, is a batch, a dict of columns; ``__getitems__`` is what ``DataLoader`` calls for
    the rows of a batch that its ``collate_fn`` is to join. Nothing is opened before the first use, and a pickle
    holds no data, so worker processes open the dataset themselves.
    """

    def __init__(self, forms: Forms, transform: Callable | None, allow_unsafe: bool = False):
        check_unplaced(transform)
        self._forms, self._transform, self._allow_unsafe = forms, transform, allow_unsafe
        self._is_batched = getattr(transform, "shardstream_batched", False)
        self._blocks: list[Block] | None = None

    @abstractmethod
    def _open(self) -> tuple[Schema | None, list[str] | None, list[Block]]:
        """Return the schema (None: files layout), the fields to deliver, and all blocks in row order."""

    def _load(self) -> None:
        if self._blocks is not None:
            return
        schema, self._fields, blocks = self._open()
        self._assembler = None if schema is None else BatchAssembler(schema, self._fields, self._forms, BufferPool())
        self._numbers = RowNumbers([block.num_samples for block in blocks])
        self._table = None if schema is None else self._assembler.table_of(blocks)
        self._blocks = blocks

    def __len__(self) -> int:
        self._load()
        return self._numbers.num_rows

    def __getitem__(self, rows: Any) -> dict[str, Any]:
        if (number := one_row(rows)) is not None:
            return self.__getitems__([number])[0]
        self._load()
        numbers = as_integers(rows, self._numbers.num_rows)
        if self._transform is None:
            return self._columns(numbers)
        if self._is_batched:
            return self._transformed_columns(self._columns(numbers), numbers)
        return collate_rows(self._transformed_samples(self._samples(numbers), numbers))[0]

    def __getitems__(self, rows: Any) -> list[dict[str, Any]]:
        """Return the samples of these rows as a list, gathered together."""
        numbers = as_integers(rows, len(self))
        if self._transform is None:
            return self._samples(numbers)
        if self._is_batched:
            return split_rows(self._transformed_columns(self._columns(numbers), numbers), len(numbers))
        return self._transformed_samples(self._samples(numbers), numbers)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_blocks": None, "_assembler": None, "_table": None, "_numbers": None}

    # -- rows of blocks ---------------------------------------------------------------------------

    def _columns(self, numbers: np.ndarray) -> dict[str, Any]:
        """Return the columns of these rows, one C call each, after one that finds the rows."""
        if self._assembler is None:
            return collate_rows(self._samples(numbers))[0]
        return self._table.gather(self._numbers.find(numbers))

    def _samples(self, numbers: np.ndarray) -> list[dict[str, Any]]:
        """Return the rows as samples."""
        if self._assembler is not None:
            return split_rows(self._columns(numbers), len(numbers))
        samples, places = [], self._numbers.find(numbers)
        for slot, row in zip(places.slot.tolist(), places.row.tolist()):
            key, members = self._blocks[slot].columns["__samples__"][row]
            samples.append(files.decode_sample(key, members, self._fields, self._allow_unsafe))
        return samples

    # -- the user's transform ---------------------------------------------------------------------

    def _transformed_samples(self, samples: list[dict[str, Any]], numbers: np.ndarray) -> list[dict[str, Any]]:
        made = []
        for number, sample in zip(row_numbers(numbers, len(self)).tolist(), samples, strict=True):
            try:
                made.append(self._transform(sample))
            except Exception as error:
                raise TransformError(f"transform raised {type(error).__name__}: {error}", key=number) from error
            if not isinstance(made[-1], dict):
                raise TransformError(f"transform returned {type(made[-1]).__name__}, not a dict; rows of a map-style dataset have "
                                     "numbers, so none can be dropped by None as in a stream.", key=number)  # fmt: skip
        return made

    def _transformed_columns(self, columns: dict[str, Any], numbers: np.ndarray) -> dict[str, Any]:
        num_rows = len(numbers)
        try:
            made = self._transform(columns)
        except Exception as error:
            for row, one in row_errors(error, num_rows).items():
                number = int(row_numbers(numbers, len(self))[row])
                raise TransformError(f"transform raised {type(error).__name__}: {one.message}", key=number,
                                     field=one.field) from error  # fmt: skip
            raise TransformError(f"transform raised {type(error).__name__}: {error}") from error
        if not isinstance(made, dict) or any(column_length(column) != num_rows for column in made.values()):
            raise TransformError(f"a batched transform must return a dict of columns of {num_rows} rows; rows of a map-style "
                                 "dataset have numbers, so none can be dropped.")  # fmt: skip
        return made
