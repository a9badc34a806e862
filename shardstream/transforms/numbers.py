"""Columns of numbers, standardized: ``Standardize``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from shardstream._native.transform import DTYPES, standardize
from shardstream.buffers import TransformPool
from shardstream.errors import ConfigError


class Standardize:
    """Makes float32 ``(values - mean) / std`` of a dense column of any dtype, in one pass in C.

    Differences are taken in float64, so that large numbers with small spread keep it. Give an instance to
    ``ShardStream(transform=)``, or call it in a transform of your own that is marked ``@ss.batched``.

    Args:
        field: The column.
        mean, std: One number, or one for each element of the column's last axis.
        to: The column that it becomes; left out, the same.

    Raises:
        ConfigError: An argument is not legal, or the column is not what they are for.
    """

    shardstream_batched = True

    def __init__(
        self, field: str, mean: float | Sequence[float], std: float | Sequence[float] = 1.0, *, to: str | None = None
    ):
        self.field, self.to = field, to or field
        self.mean, self.std = mean_and_std(mean, std)
        if {len(self.mean), len(self.std)} - {1, max(len(self.mean), len(self.std))}:
            raise ConfigError(f"mean and std have {len(self.mean)} and {len(self.std)} numbers.")
        self._pool = TransformPool()

    def __call__(self, columns: dict[str, Any]) -> dict[str, Any]:
        """Return the columns with the one standardized."""
        if self.field not in columns:
            raise ConfigError(f"there is no column {self.field!r}; there are {sorted(columns)}.", field=self.field)
        values = columns[self.field]
        if not isinstance(values, (torch.Tensor, np.ndarray)):
            raise ConfigError(f"the column is {type(values).__name__}, not a dense one.", field=self.field)
        values = np.ascontiguousarray(values)
        if values.dtype.name not in DTYPES:
            raise ConfigError(f"the column is of {values.dtype}, not of numbers.", field=self.field)
        period = max(len(self.mean), len(self.std))
        if period > 1 and values.shape[-1] != period:
            raise ConfigError(
                f"mean and std have {period} numbers, the column's last axis {values.shape[-1]}.", field=self.field
            )
        out = self._pool.empty(values.shape, np.float32)
        ones = np.ones(period)
        standardize(values, self.mean * ones, ones / self.std, out)
        return {**columns, self.to: torch.from_numpy(out)}


def mean_and_std(mean: float | Sequence[float], std: float | Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return both as float64 of one dimension.

    Raises:
        ConfigError: They are no finite numbers or lists of such, or a ``std`` is 0.
    """
    try:
        means, stds = (np.atleast_1d(np.asarray(value, np.float64)) for value in (mean, std))
        is_legal = means.ndim == stds.ndim == 1 and np.isfinite(means).all() and np.isfinite(stds).all() and stds.all()
    except (TypeError, ValueError):
        is_legal = False
    if not is_legal:
        raise ConfigError(f"mean={mean!r}, std={std!r} are numbers or lists of numbers, and std is not 0.")
    return means, stds
