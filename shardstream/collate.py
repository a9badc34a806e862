"""Columns of a batch and rows of it: ``Jagged``, ``KeyedJagged``, ``split_rows``, ``collate_rows``, ``empty_like``.

A batch is a dict of columns. A column is a tensor or numpy array whose first dimension is the row, a
``torch.sparse_csr`` tensor, a :class:`Jagged`, a :class:`KeyedJagged`, or a list.

Collating rows does not look at a batch as a whole: what two parts of a batch became tells what the batch would
have become. So worker processes collate their own rows, and ``merge.py`` joins them to the very batch that one
process would have made; ``ORIGINS`` is what it has to know for that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import torch

from shardstream._native.gather import RaggedBlocks, Rows
from shardstream.buffers import BufferPool
from shardstream.errors import ConfigError, TransformError
from shardstream.forms import Padded
from shardstream.schema import DENSE_DTYPES

UNLIKE = "unlike"
Empty = Callable[[tuple[int, ...], np.dtype], np.ndarray]  # makes uninitialised arrays, as np.empty or a pool does
FORM_OF_ROW = attrgetter("layout", "shape", "dtype", "requires_grad")  # one call a row: of a cheap transform's time this is a tenth


class Jagged(NamedTuple):
    """Rows of different lengths: row ``i`` is ``values[offsets[i]:offsets[i + 1]]``.

    Attributes:
        values: 1-D tensor of all rows, end to end.
        offsets: int64 ``(batch + 1,)``.
        weights: One for each value, or None.
    """

    values: torch.Tensor
    offsets: torch.Tensor
    weights: torch.Tensor | None = None

    @property
    def lengths(self) -> torch.Tensor:
        """Of the rows: int64 ``(batch,)``."""
        return self.offsets.diff()

    def to_padded(self, length: int | None = None, value: float = 0, *, keep: str = "start",
                  pad: str = "right") -> torch.Tensor:  # fmt: skip
        """Return the values as ``(batch, length)``, longer rows cut and shorter ones filled up with ``value``, by one C
        call.

        Arguments are those of :class:`Padded`; without ``length`` it is that of the longest row. A stream makes rows of
        one length by ``ragged=``; padding to the longest of a batch belongs to the loop, or to
        ``StreamLoader(collate=)``.

        Raises:
            ConfigError: An argument is not legal, values are not 1-D or of a dtype that no column has, or offsets do
                not cut them.
        """
        if self.values.ndim != 1 or str(self.values.dtype).removeprefix("torch.") not in DENSE_DTYPES:
            raise ConfigError(f"to_padded: values are {self.values.dtype} {tuple(self.values.shape)}, "
                              f"not 1-D of {', '.join(DENSE_DTYPES)}.")  # fmt: skip
        values, offsets = self.values.detach().numpy(force=True), self.offsets.numpy(force=True)
        num_rows = offsets.size - 1
        if offsets.ndim != 1 or offsets.dtype.kind != "i" or num_rows < 0 or offsets[0] < 0 or offsets[-1] > len(values) or (np.diff(offsets) < 0).any():
            raise ConfigError("to_padded: offsets must be integers that ascend from 0 or more to at "
                              f"most {len(values)}, the number of values.")  # fmt: skip
        padded = Padded(max(1, int(np.diff(offsets).max(initial=0))) if length is None else length, value, keep, pad)
        out = np.empty((num_rows, padded.length), values.dtype)
        rows = Rows(np.zeros(num_rows, np.uint32), np.arange(num_rows, dtype=np.uint32))
        RaggedBlocks.of([offsets], [values]).gather_padded(rows, out, padded.filler(out.dtype), keep == "end",
                                                           pad == "left")  # fmt: skip
        return torch.from_numpy(out)


class KeyedJagged(NamedTuple):
    """Rows of several fields, key by key: all rows of the first, then the same rows of the second, and so on.

    This is the layout of TorchRec's KeyedJaggedTensor, which takes the parts as they are::

        KeyedJaggedTensor(keys=x.keys, values=x.values, lengths=x.lengths, offsets=x.offsets, weights=x.weights)

    Attributes:
        keys: Names of the fields.
        values: int64, 1-D: the ids of all rows. Row ``i`` of field ``k`` of a batch of B rows is
            ``values[offsets[k * B + i]:offsets[k * B + i + 1]]``.
        offsets: int64 ``(len(keys) * B + 1,)``.
        weights: One for each value, or None.
    """

    keys: list[str]
    values: torch.Tensor
    offsets: torch.Tensor
    weights: torch.Tensor | None = None

    @property
    def lengths(self) -> torch.Tensor:
        """Of the rows: int64 ``(len(keys) * B,)``, key by key."""
        return self.offsets.diff()

    @property
    def num_rows(self) -> int:
        """Rows of the batch, B, which KeyedJaggedTensor calls its stride."""
        return (len(self.offsets) - 1) // len(self.keys)

    def to_dict(self) -> dict[str, Jagged]:
        """Return each field's rows, as views."""
        bounds = self.offsets[:: self.num_rows].tolist() if self.num_rows else [0] * (len(self.keys) + 1)
        columns = {}
        for place, (key, begin, end) in enumerate(zip(self.keys, bounds, bounds[1:])):
            offsets = self.offsets[place * self.num_rows : (place + 1) * self.num_rows + 1] - begin
            columns[key] = Jagged(self.values[begin:end], offsets,
                                  None if self.weights is None else self.weights[begin:end])  # fmt: skip
        return columns

    @classmethod
    def of(cls, columns: dict[str, Jagged]) -> KeyedJagged:
        """Return the rows of these columns key by key; where only some have weights, those of the others are 1.

        Raises:
            ConfigError: There is no column, or they have different numbers of rows.
        """
        nums_rows = {len(column.offsets) - 1 for column in columns.values()}
        if len(nums_rows) != 1:
            raise ConfigError("a KeyedJagged is made of columns of one number of rows, not of "
                              f"{sorted(nums_rows) or 'none'}.")  # fmt: skip
        ends = np.cumsum([0, *(len(column.values) for column in columns.values())]).tolist()
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), *(column.offsets[1:] + end for column, end in zip(columns.values(), ends))])
        weights = None
        if given := [column.weights for column in columns.values() if column.weights is not None]:
            weights = torch.cat([torch.ones(len(column.values), dtype=given[0].dtype) if column.weights is None else column.weights
                                 for column in columns.values()])  # fmt: skip
        return cls(list(columns), torch.cat([column.values for column in columns.values()]), offsets, weights)

    def _of_each(self, rows: np.ndarray) -> np.ndarray:
        """Return the places of these rows under each key: int64 ``(len(keys), len(rows))``."""
        return np.arange(len(self.keys))[:, None] * self.num_rows + rows

    def _all(self) -> Jagged:
        return Jagged(self.values, self.offsets, self.weights)


def split_rows(batch: dict[str, Any], num_rows: int) -> list[dict[str, Any]]:
    """Return the samples of a batch as dicts; tensors are views of the batch's."""
    columns = {name: rows_of(column) for name, column in batch.items()}
    return [{name: column[i] for name, column in columns.items()} for i in range(num_rows)]


def rows_of(column: Any) -> list:
    """Return the rows of a column: tensors are views, rows of a Jagged with weights are ``(values, weights)``.

    Those of a KeyedJagged are KeyedJagged of one row.
    """
    if isinstance(column, KeyedJagged):
        num_keys = len(column.keys)
        values, offsets, weights = take_rows(column._all(), column._of_each(np.arange(column.num_rows)).T.ravel())
        bounds = offsets[::num_keys].tolist()
        return [KeyedJagged(list(column.keys), values[begin:end], offsets[num_keys * row : num_keys * (row + 1) + 1] - begin,
                            None if weights is None else weights[begin:end]) for row, (begin, end) in enumerate(zip(bounds, bounds[1:]))]  # fmt: skip
    if isinstance(column, Jagged):
        bounds = column.offsets.tolist()
        values = [column.values[begin:end] for begin, end in zip(bounds, bounds[1:])]
        if column.weights is None:
            return values
        return [(row, column.weights[begin:end]) for row, begin, end in zip(values, bounds, bounds[1:])]
    if isinstance(column, torch.Tensor):
        return list(column.unbind(0)) if column.layout == torch.strided else [column[i] for i in range(len(column))]
    return column if isinstance(column, list) else list(column)


def take_rows(column: Any, rows: np.ndarray) -> Any:
    """Return the rows of a column, or of anything that numpy's integer arrays index, by their int64 numbers."""
    if isinstance(column, KeyedJagged):
        return KeyedJagged(list(column.keys), *take_rows(column._all(), column._of_each(rows).ravel()))
    if isinstance(column, Jagged):
        offsets = column.offsets.numpy()
        lengths = offsets[rows + 1] - offsets[rows]
        ends = np.cumsum(lengths)
        chosen = np.arange(lengths.sum()) + np.repeat(offsets[rows] - (ends - lengths), lengths)
        values, weights = (None if part is None else torch.from_numpy(part.numpy()[chosen]) for part in (column.values, column.weights))
        return Jagged(values, torch.from_numpy(np.concatenate([[0], ends])), weights)
    if isinstance(column, (list, tuple)):
        return [column[row] for row in rows.tolist()]
    if isinstance(column, torch.Tensor):
        return column.index_select(0, torch.from_numpy(rows))
    return column[rows]


def column_length(column: Any) -> int | None:
    """Return the rows of a column, None if this is not one."""
    if isinstance(column, KeyedJagged):
        return column.num_rows
    if isinstance(column, Jagged):
        return len(column.offsets) - 1
    if isinstance(column, (torch.Tensor, np.ndarray)):
        return len(column) if column.ndim else None
    return len(column) if isinstance(column, list) else None


def collate_rows(samples: list[dict[str, Any]], is_part: bool = False, empty: Empty = np.empty) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a batch of samples, and the origin of each column.

    Numbers and equal shapes are stacked to tensors, 1-D tensors of different lengths become a :class:`Jagged`,
    rows of a :class:`KeyedJagged` one again, everything else is a list. A field that some of the samples lack is None
    there. If ``is_part``, numbers and tensors of several types stay lists, for the type that they would get depends on
    the rest of the batch. ``empty`` says where tensors and arrays are copied to.
    """
    names = dict.fromkeys(name for sample in samples for name in sample)
    stacked = {name: stack([sample.get(name) for sample in samples], is_part, empty) for name in names}
    return {name: column for name, (column, _) in stacked.items()}, {name: origin for name, (_, origin) in stacked.items()}


def stack(values: list, is_part: bool = False, empty: Empty = np.empty) -> tuple[Any, str]:
    """Return the column of these rows, of which there is at least one, and their origin."""
    first = values[0]
    if isinstance(first, torch.Tensor):
        if all(isinstance(v, torch.Tensor) for v in values):
            return _stack_tensors(values, is_part, empty)
    elif isinstance(first, KeyedJagged):
        if all(isinstance(v, KeyedJagged) and _form_of(v) == _form_of(first) for v in values):
            return _concatenate_keyed(values), "tensors"
    elif isinstance(first, np.ndarray):
        if first.dtype.kind in "biuf" and all(
            isinstance(v, np.ndarray) and v.shape == first.shape and v.dtype == first.dtype for v in values):  # fmt: skip
            return torch.from_numpy(np.stack(values, out=empty((len(values), *first.shape), first.dtype.newbyteorder("=")))), "arrays"
    elif isinstance(first, (bool, int, float, np.number)) and all(isinstance(v, (bool, int, float, np.number)) for v in values):
        column = np.array(values)
        if is_part and (any(type(v) is not type(first) for v in values) or (type(first) is int and column.dtype.kind == "f")):
            return values, UNLIKE
        if column.dtype.kind in "biuf":
            return torch.from_numpy(column), "numpy numbers" if isinstance(first, np.number) else "numbers"
    return values, "items"


def _stack_tensors(values: list[torch.Tensor], is_part: bool, empty: Empty) -> tuple[Any, str]:
    first, forms = values[0], set(map(FORM_OF_ROW, values))
    layouts, shapes, dtypes, grads = map(set, zip(*forms))
    if layouts != {torch.strided} or (len(shapes) > 1 and any(len(shape) != 1 for shape in shapes)):
        return values, "items"
    if len(dtypes) > 1 and is_part:
        return values, UNLIKE
    # Gradients, devices and subclasses are torch's own business, and numpy may not have the dtype, as bfloat16.
    is_plain = len(dtypes) == 1 and grads == {False} and first.is_cpu and set(map(type, values)) == {torch.Tensor}
    dtype = _numpy_dtype(first.dtype) if is_plain else None
    is_jagged = len(shapes) > 1
    offsets = torch.tensor([0, *map(len, values)]).cumsum(0) if is_jagged else None
    shape = (int(offsets[-1]),) if is_jagged else (len(values), *first.shape)
    out = None if dtype is None else torch.from_numpy(empty(shape, dtype))
    return Jagged(torch.cat(values, out=out), offsets) if is_jagged else torch.stack(values, out=out), "tensors"


@lru_cache(maxsize=64)
def _numpy_dtype(dtype: torch.dtype) -> np.dtype | None:
    name = str(dtype).removeprefix("torch.")
    return np.dtype(name) if name in DENSE_DTYPES else None


def unstack(column: Any, origin: str) -> list:
    """Return rows that collate as those did which :func:`stack` made this column of."""
    if origin == "numbers":
        return column.tolist()
    if origin == "numpy numbers":
        return list(column.numpy())
    if origin == "arrays":
        array = column.numpy()
        return [array[i, ...] for i in range(len(array))]
    return rows_of(column)


def concatenate(batches: list[dict[str, Any]], pool: BufferPool) -> dict[str, Any]:
    """Return the rows of several batches as one; their columns are of the same names, kinds and dtypes."""
    return {name: _concatenate([batch[name] for batch in batches], pool) for name in batches[0]}


def join(batches: list[dict[str, Any]], pool: BufferPool, is_by_row: bool) -> dict[str, Any]:
    """Return the rows of several batches as one, whatever each of them became by itself.

    ``is_by_row`` says that columns were collated from rows, by :func:`collate_rows`: then those whose parts differ are
    collated anew.

    Raises:
        TransformError: Others differ.
    """
    nums_rows = [column_length(next(iter(batch.values()), [])) for batch in batches]
    present = [(batch, num) for batch, num in zip(batches, nums_rows) if num] or [(max(batches, key=len), 0)]
    names = dict.fromkeys(name for batch, _ in present for name in batch)
    return {name: _join(name, [(batch.get(name), num) for batch, num in present], pool, is_by_row) for name in names}


def _join(name: str, parts: list[tuple[Any, int]], pool: BufferPool, is_by_row: bool) -> Any:
    columns = [column for column, _ in parts]
    forms = [_form_of(column) for column in columns]
    if all(form == forms[0] for form in forms):
        return _concatenate(columns, pool)
    if not is_by_row:
        raise TransformError("a batched transform must give a row the same form whatever other rows it is given, but gave "
                             f"{' and '.join(sorted({' '.join(map(str, form)) for form in forms}))}.", field=name)  # fmt: skip
    return stack([row for column, num in parts for row in ([None] * num if column is None else rows_of(column))])[0]


def _form_of(column: Any) -> tuple:
    """Return what parts of one column have in common."""
    kind = type(column).__name__
    if isinstance(column, (Jagged, KeyedJagged)):
        keys = column.keys if isinstance(column, KeyedJagged) else []
        return kind, *keys, column.values.dtype, column.values.shape[1:], None if column.weights is None else column.weights.dtype
    if isinstance(column, torch.Tensor):
        return kind, column.layout, column.dtype, column.shape[1:]
    return (kind, column.dtype, column.shape[1:]) if isinstance(column, np.ndarray) else (kind,)


def _concatenate_keyed(columns: list[KeyedJagged]) -> KeyedJagged:
    keys, weights = columns[0].keys, None
    if columns[0].weights is not None:
        weights = torch.cat([column.weights for column in columns])
    starts = np.cumsum([0, *(int(column.offsets[-1]) for column in columns)]).tolist()
    offsets = torch.cat([columns[0].offsets[:1], *(column.offsets[1:] + start for column, start in zip(columns, starts))])
    joined = Jagged(torch.cat([column.values for column in columns]), offsets, weights)  # part by part
    bounds = np.cumsum([0, *(len(keys) * column.num_rows for column in columns)])
    by_key = np.concatenate([np.arange(begin, end).reshape(len(keys), -1) for begin, end in zip(bounds, bounds[1:])], 1)
    return KeyedJagged(list(keys), *take_rows(joined, by_key.ravel()))


def _concatenate(columns: list, pool: BufferPool) -> Any:
    first = columns[0]
    if isinstance(first, KeyedJagged):
        return _concatenate_keyed(columns)
    if isinstance(first, Jagged):
        begins = np.cumsum([0, *(int(column.offsets[-1]) for column in columns)]).tolist()
        offsets = torch.cat([first.offsets[:1], *(column.offsets[1:] + begin for column, begin in zip(columns, begins))])
        weights = None if first.weights is None else _concatenate([column.weights for column in columns], pool)
        return Jagged(_concatenate([column.values for column in columns], pool), offsets, weights)
    if isinstance(first, torch.Tensor) and first.layout == torch.sparse_csr:
        parts = [Jagged(column.col_indices(), column.crow_indices(), column.values()) for column in columns]
        indices, indptr, values = _concatenate(parts, pool)
        return torch.sparse_csr_tensor(indptr, indices, values, size=(len(indptr) - 1, first.shape[1]),
                                       check_invariants=False)  # fmt: skip
    if isinstance(first, np.ndarray):
        return np.concatenate(columns)
    if isinstance(first, torch.Tensor):
        if _numpy_dtype(first.dtype) is None:
            return torch.cat(columns)
        out = pool.empty((sum(map(len, columns)), *first.shape[1:]), first.numpy().dtype)
        # torch.cat would leave OpenMP's threads spinning
        np.concatenate([column.numpy() for column in columns], out=out)
        return torch.from_numpy(out)
    return [row for column in columns for row in column]


def empty_like(batch: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of ``batch`` with no rows, of the same kinds and dtypes; nothing of it is kept alive."""
    return {name: _empty(column) for name, column in batch.items()}


def _empty(column: Any) -> Any:
    if isinstance(column, KeyedJagged):
        return take_rows(column, np.empty(0, np.int64))
    if isinstance(column, Jagged):
        weights = None if column.weights is None else column.weights[:0].clone()
        return Jagged(column.values[:0].clone(), torch.zeros(1, dtype=torch.int64), weights)
    if isinstance(column, torch.Tensor) and column.layout == torch.sparse_csr:
        return torch.sparse_csr_tensor(torch.zeros(1, dtype=torch.int64), column.col_indices()[:0].clone(), column.values()[:0].clone(),
                                       size=(0, *column.shape[1:]), check_invariants=False)  # fmt: skip
    if isinstance(column, torch.Tensor):
        return column[:0].clone()
    return column[:0].copy() if isinstance(column, np.ndarray) else []
