"""Columns of a batch and rows of it: ``Jagged``, ``split_rows``, ``collate_rows``, ``empty_like``.

A batch is a dict of columns. A column is a tensor or numpy array whose first dimension is the row, a
``torch.sparse_csr`` tensor, a :class:`Jagged`, or a list.

Collating rows does not look at a batch as a whole: what two parts of a batch became tells what the batch would
have become. So worker processes collate their own rows, and ``merge.py`` joins them to the very batch that one
process would have made; ``ORIGINS`` is what it has to know for that.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from shardstream.buffers import BufferPool

UNLIKE = "unlike"


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


def split_rows(batch: dict[str, Any], num_rows: int) -> list[dict[str, Any]]:
    """Return the samples of a batch as dicts; tensors are views of the batch's."""
    columns = {name: rows_of(column) for name, column in batch.items()}
    return [{name: column[i] for name, column in columns.items()} for i in range(num_rows)]


def rows_of(column: Any) -> list:
    """Return the rows of a column: tensors are views, rows of a Jagged with weights are ``(values, weights)``."""
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
    if isinstance(column, Jagged):
        return len(column.offsets) - 1
    if isinstance(column, (torch.Tensor, np.ndarray)):
        return len(column) if column.ndim else None
    return len(column) if isinstance(column, list) else None


def collate_rows(samples: list[dict[str, Any]], is_part: bool = False) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a batch of samples, and the origin of each column.

    Numbers and equal shapes are stacked to tensors, 1-D tensors of different lengths become a :class:`Jagged`,
    everything else is a list. A field that some of the samples lack is None there. If ``is_part``, numbers and
    tensors of several types stay lists, for the type that they would get depends on the rest of the batch.
    """
    names = dict.fromkeys(name for sample in samples for name in sample)
    stacked = {name: stack([sample.get(name) for sample in samples], is_part) for name in names}
    return {name: column for name, (column, _) in stacked.items()}, {name: origin for name, (_, origin) in stacked.items()}


def stack(values: list, is_part: bool = False) -> tuple[Any, str]:
    """Return the column of these rows, of which there is at least one, and their origin."""
    first = values[0]
    if isinstance(first, torch.Tensor):
        if all(isinstance(v, torch.Tensor) and v.layout == torch.strided and (v.shape == first.shape or v.ndim == first.ndim == 1) for v in values):
            if is_part and any(v.dtype != first.dtype for v in values):
                return values, UNLIKE
            if all(v.shape == first.shape for v in values):
                return torch.stack(values), "tensors"
            lengths = torch.tensor([0, *(len(v) for v in values)])
            return Jagged(torch.cat(values), lengths.cumsum(0)), "tensors"
    elif isinstance(first, np.ndarray):
        if first.dtype.kind in "biuf" and all(
            isinstance(v, np.ndarray) and v.shape == first.shape and v.dtype == first.dtype for v in values):  # fmt: skip
            return torch.from_numpy(np.stack(values)), "arrays"
    elif isinstance(first, (bool, int, float, np.number)) and all(isinstance(v, (bool, int, float, np.number)) for v in values):
        column = np.array(values)
        if is_part and (any(type(v) is not type(first) for v in values) or (type(first) is int and column.dtype.kind == "f")):
            return values, UNLIKE
        if column.dtype.kind in "biuf":
            return torch.from_numpy(column), "numpy numbers" if isinstance(first, np.number) else "numbers"
    return values, "items"


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


def _concatenate(columns: list, pool: BufferPool) -> Any:
    first = columns[0]
    if isinstance(first, Jagged):
        begins = np.cumsum([0, *(int(column.offsets[-1]) for column in columns)]).tolist()
        offsets = torch.cat([first.offsets[:1], *(column.offsets[1:] + begin for column, begin in zip(columns, begins))])
        weights = None if first.weights is None else _concatenate([column.weights for column in columns], pool)
        return Jagged(_concatenate([column.values for column in columns], pool), offsets, weights)
    if isinstance(first, torch.Tensor) and first.layout == torch.sparse_csr:
        parts = [Jagged(column.col_indices(), column.crow_indices(), column.values()) for column in columns]
        indices, indptr, values = _concatenate(parts, pool)
        return torch.sparse_csr_tensor(indptr, indices, values, size=(len(indptr) - 1, first.shape[1]), check_invariants=False)
    if isinstance(first, torch.Tensor):
        out = pool.empty((sum(map(len, columns)), *first.shape[1:]), first.numpy().dtype)
        np.concatenate([column.numpy() for column in columns], out=out)  # torch.cat would leave OpenMP's threads spinning
        return torch.from_numpy(out)
    return [row for column in columns for row in column]


def empty_like(batch: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of ``batch`` with no rows, of the same kinds and dtypes; nothing of it is kept alive."""
    return {name: _empty(column) for name, column in batch.items()}


def _empty(column: Any) -> Any:
    if isinstance(column, Jagged):
        weights = None if column.weights is None else column.weights[:0].clone()
        return Jagged(column.values[:0].clone(), torch.zeros(1, dtype=torch.int64), weights)
    if isinstance(column, torch.Tensor) and column.layout == torch.sparse_csr:
        return torch.sparse_csr_tensor(torch.zeros(1, dtype=torch.int64), column.col_indices()[:0].clone(), column.values()[:0].clone(),
                                       size=(0, *column.shape[1:]), check_invariants=False)  # fmt: skip
    if isinstance(column, torch.Tensor):
        return column[:0].clone()
    return column[:0].copy() if isinstance(column, np.ndarray) else []
