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
import torch
from torch.utils.data import Dataset

from shardstream._native.gather import Rows
from shardstream.assemble import BatchAssembler
from shardstream.buffers import BufferPool
from shardstream.codecs import files
from shardstream.collate import collate_rows, column_length, split_rows
from shardstream.errors import TransformError
from shardstream.reader import Block
from shardstream.schema import Schema
from shardstream.transforms.marks import check_unplaced


def row_numbers(rows: Any, num_rows: int) -> np.ndarray:
    """Return int64 row numbers in ``[0, num_rows)`` of a slice or of integers, where -1 is the last row.

    Raises:
        IndexError: A number is outside the rows.
        TypeError: Neither a slice nor a 1-D sequence of integers.
    """
    if isinstance(rows, slice):
        return np.arange(*rows.indices(num_rows), dtype=np.int64)
    numbers = np.asarray(rows)
    if numbers.dtype == np.int64 and numbers.ndim == 1 and len(numbers) and int(numbers.view(np.uint64).max()) < num_rows:
        return numbers  # the usual case in one pass: as unsigned, a negative number is a large one
    if numbers.size == 0 and numbers.ndim == 1:
        return np.empty(0, np.int64)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise TypeError(f"rows are chosen by an integer, a slice or a 1-D sequence of integers, not {numbers.ndim}-D of {numbers.dtype}.")
    low, high = int(numbers.min()), int(numbers.max())
    if low < -num_rows or high >= num_rows:
        raise IndexError(f"row {low if low < -num_rows else high} is outside the {num_rows} rows.")
    numbers = numbers.astype(np.int64, copy=False)
    return np.where(numbers < 0, numbers + num_rows, numbers) if low < 0 else numbers


class RowAccess(Dataset):
    """A map-style dataset over blocks.

    ``ds[i]`` is one sample, a dict as :class:`ShardStream` gives it without ``batch_size``; ``ds[rows]``, for a slice or
    a list of integers, is a batch, a dict of columns; ``__getitems__`` is what ``DataLoader`` calls for
    the rows of a batch that its ``collate_fn`` is to join. Nothing is opened before the first use, and a pickle
    holds no data, so worker processes open the dataset themselves.
    """

    def __init__(self, sparse: str | dict[str, str], dtypes: dict[str, Any] | None, transform: Callable | None,
                 allow_unsafe: bool = False):  # fmt: skip
        check_unplaced(transform)
        self._sparse, self._dtypes, self._transform, self._allow_unsafe = sparse, dtypes, transform, allow_unsafe
        self._is_batched = getattr(transform, "shardstream_batched", False)
        self._blocks: list[Block] | None = None
        self._zeros = np.empty(0, np.uint32)  # slots of rows that are all in one block

    @abstractmethod
    def _open(self) -> tuple[Schema | None, list[str] | None, list[Block]]:
        """Return the schema (None: files layout), the fields to deliver, and all blocks in row order."""

    def _load(self) -> None:
        if self._blocks is not None:
            return
        schema, self._fields, blocks = self._open()
        self._assembler = None if schema is None else BatchAssembler(schema, self._fields, self._sparse, self._dtypes, BufferPool())
        self._starts = np.cumsum([0, *(block.num_samples for block in blocks)])
        self._table = None if schema is None else self._assembler.table_of(blocks)
        self._blocks = blocks

    def __len__(self) -> int:
        self._load()
        return int(self._starts[-1])

    def __getitem__(self, rows: Any) -> dict[str, Any]:
        if isinstance(rows, (int, np.integer)) or (isinstance(rows, torch.Tensor) and rows.ndim == 0):
            return self.__getitems__([as_integer(rows)])[0]
        numbers = row_numbers(rows, len(self))
        if self._transform is None:
            return self._columns(numbers)
        if self._is_batched:
            return self._transformed_columns(self._columns(numbers), len(numbers))
        return collate_rows(self._transformed_samples(self._samples(numbers), numbers))[0]

    def __getitems__(self, rows: Any) -> list[dict[str, Any]]:
        """Return the samples of these rows as a list, gathered together."""
        numbers = row_numbers(rows, len(self))
        if self._transform is None:
            return self._samples(numbers)
        if self._is_batched:
            return split_rows(self._transformed_columns(self._columns(numbers), len(numbers)), len(numbers))
        return self._transformed_samples(self._samples(numbers), numbers)

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_blocks": None, "_assembler": None, "_table": None}

    # -- rows of blocks ---------------------------------------------------------------------------

    def _places(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return uint32 slot and row of row numbers."""
        if len(self._blocks) == 1:
            if len(self._zeros) < len(numbers):
                self._zeros = np.zeros(len(numbers), np.uint32)
            return self._zeros[: len(numbers)], numbers.astype(np.uint32)
        slot = np.searchsorted(self._starts, numbers, "right") - 1
        return slot.astype(np.uint32), (numbers - self._starts[slot]).astype(np.uint32)

    def _columns(self, numbers: np.ndarray) -> dict[str, Any]:
        """Return the columns of these rows, one C call each."""
        if self._assembler is None:
            return collate_rows(self._samples(numbers))[0]
        return self._table.gather(Rows(*self._places(numbers)))

    def _samples(self, numbers: np.ndarray) -> list[dict[str, Any]]:
        """Return the rows as samples."""
        if self._assembler is not None:
            return split_rows(self._columns(numbers), len(numbers))
        samples = []
        for slot, row in zip(*(array.tolist() for array in self._places(numbers))):
            key, members = self._blocks[slot].columns["__samples__"][row]
            samples.append(files.decode_sample(key, members, self._fields, self._allow_unsafe))
        return samples

    # -- the user's transform ---------------------------------------------------------------------

    def _transformed_samples(self, samples: list[dict[str, Any]], numbers: np.ndarray) -> list[dict[str, Any]]:
        made = []
        for number, sample in zip(numbers.tolist(), samples, strict=True):
            try:
                made.append(self._transform(sample))
            except Exception as error:
                raise TransformError(f"transform raised {type(error).__name__}: {error}", key=number) from error
            if not isinstance(made[-1], dict):
                raise TransformError(f"transform returned {type(made[-1]).__name__}, not a dict; rows of a map-style dataset have "
                                     "numbers, so none can be dropped by None as in a stream.", key=number)  # fmt: skip
        return made

    def _transformed_columns(self, columns: dict[str, Any], num_rows: int) -> dict[str, Any]:
        try:
            made = self._transform(columns)
        except Exception as error:
            raise TransformError(f"transform raised {type(error).__name__}: {error}") from error
        if not isinstance(made, dict) or any(column_length(column) != num_rows for column in made.values()):
            raise TransformError(f"a batched transform must return a dict of columns of {num_rows} rows; rows of a map-style "
                                 "dataset have numbers, so none can be dropped.")  # fmt: skip
        return made
