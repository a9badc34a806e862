"""``MemoryDataset``: features and targets in memory, the smallest of the tiers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from shardstream.access import one_row, row_numbers
from shardstream.collate import Jagged, KeyedJagged, collate_rows, column_length, rows_of, split_rows, stack, take_rows
from shardstream.errors import ConfigError, TransformError
from shardstream.transforms.marks import check_unplaced


class MemoryDataset(Dataset):
    """Pairs (feature, target) by number, all in memory, with the features transformed once.

    Args:
        features: Anything with a length (or ``shape``) and rows: array, tensor, list, scipy CSR matrix, pandas Series
            or DataFrame (by position, whatever its index), :class:`Jagged`, :class:`KeyedJagged`; or a dict of such
            columns, whose features are then dicts.
        targets: As many targets.
        transform: Called once a feature, here and never again; or, marked ``@ss.batched``, once on all features. A
            feature for which it returns None is left out, and its target with it. With a dict of columns it
            takes and returns what a stream's transform does.

    ``ds[i]`` is ``(feature, target)``. ``ds[rows]``, for a slice or a list of integers, is ``(features, targets)``
    of these rows, in the containers that they are kept in; ``__getitems__`` gives ``DataLoader`` a list of pairs.

    Raises:
        ConfigError: Features and targets differ in number, or have no rows to choose by number.
        TransformError: ``transform`` failed; ``key`` is the row.

    Example:
        >>> words = [[3, 17], [5], [17, 600]]
        >>> ds = ss.MemoryDataset(words, [0, 1, 0])
        >>> x, y = next(iter(DataLoader(ds, batch_size=3, collate_fn=ss.sparse_collate(1024))))
    """

    def __init__(self, features: Any, targets: Any, transform: Callable | None = None):
        check_unplaced(transform)
        num_features, num_targets = _num_rows(features), _num_rows(targets)
        if num_features != num_targets:
            raise ConfigError(f"{num_features} features and {num_targets} targets; there must be one for each.")
        if transform is not None:
            features, kept = _transformed(features, num_features, transform)
            targets = targets if len(kept) == num_targets else _take(targets, kept)
            num_features = len(kept)
        self.features, self.targets = features, targets
        self._num_rows = num_features

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, rows: Any) -> tuple[Any, Any]:
        if (number := one_row(rows)) is not None:
            (number,) = row_numbers([number], len(self)).tolist()
            return _row(self.features, number), _row(self.targets, number)
        numbers = row_numbers(rows, len(self))
        return _take(self.features, numbers), _take(self.targets, numbers)

    def __getitems__(self, rows: Any) -> list[tuple[Any, Any]]:
        """Return the pairs of these rows as a list."""
        return [self[number] for number in rows]


def _num_rows(column: Any) -> int:
    if isinstance(column, dict):
        counts = {name: _num_rows(part) for name, part in column.items()}
        if len(set(counts.values())) != 1:
            raise ConfigError(f"columns differ in their number of rows: {counts}.")
        return next(iter(counts.values()))
    if isinstance(column, (Jagged, KeyedJagged)):
        return column_length(column)
    try:
        if not hasattr(column, "__getitem__"):
            raise TypeError
        return column.shape[0] if hasattr(column, "shape") else len(column)
    except (TypeError, IndexError) as error:  # no length, or an array without axes
        raise ConfigError(f"{column!r:.80} has no rows to choose by number: give an array, a "
                          "tensor or a list.") from error  # fmt: skip


def _row(column: Any, number: int) -> Any:
    if isinstance(column, dict):
        return {name: _row(part, number) for name, part in column.items()}
    if isinstance(column, (Jagged, KeyedJagged)):
        return rows_of(take_rows(column, np.array([number])))[0]
    return _positional(column)[number]


def _take(column: Any, numbers: np.ndarray) -> Any:
    if isinstance(column, dict):
        return {name: _take(part, numbers) for name, part in column.items()}
    return take_rows(_positional(column), numbers)


def _positional(column: Any) -> Any:
    """Return what takes row numbers: of pandas' objects ``iloc``, since they take labels themselves."""
    return getattr(column, "iloc", column)


def _transformed(features: Any, num_rows: int, transform: Callable) -> tuple[Any, np.ndarray]:
    """Return the transformed features and the numbers of the rows that are left."""
    if getattr(transform, "shardstream_batched", False):
        try:
            made = transform(features)
        except Exception as error:
            raise TransformError(f"transform raised {type(error).__name__}: {error}") from error
        if _num_rows(made) != num_rows:
            raise TransformError(f"a batched transform must return {num_rows} features, not {_num_rows(made)}.")
        return made, np.arange(num_rows)
    kept, made = [], []
    rows = split_rows(features, num_rows) if isinstance(features, dict) else (_row(features, i) for i in range(num_rows))
    for number, row in enumerate(rows):
        try:
            result = transform(row)
        except Exception as error:
            raise TransformError(f"transform raised {type(error).__name__}: {error}", key=number) from error
        if result is not None:
            kept.append(number)
            made.append(result)
    if not made:
        return [], np.empty(0, np.int64)
    return collate_rows(made)[0] if isinstance(made[0], dict) else stack(made)[0], np.array(kept)
