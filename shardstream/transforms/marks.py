"""What a stream gives a transform, and how a transform says what it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from shardstream.errors import ConfigError, RowErrors, SampleError


class Place(NamedTuple):
    """Where rows stand in the training run: all that a random transform may depend on.

    A resumed run gives a row the same place, on any number of ranks and workers.

    Attributes:
        seed: Of the stream's order.
        epoch: From 0.
        position: Of the row in the epoch, an int; of all rows, int64 ``(num_rows,)``, for a batched transform.
    """

    seed: int
    epoch: int
    position: int | np.ndarray


def batched(transform: Callable) -> Callable:
    """Mark a transform as taking the columns of any number of rows at once, instead of one sample."""
    transform.shardstream_batched = True
    return transform


def placed(transform: Callable) -> Callable:
    """Mark a transform as taking a :class:`Place` as its second argument, to be random and yet repeatable."""
    transform.shardstream_placed = True
    return transform


def check_callable(transform: Callable | None) -> None:
    """Raise :class:`ConfigError` for what is no function."""
    if transform is not None and not callable(transform):
        raise ConfigError(f"transform={transform!r:.100} is not a function.")


def check_unplaced(transform: Callable | None) -> None:
    """Raise :class:`ConfigError` for what is no function, or placed where rows have no place in a run: in a map-style
    dataset.
    """
    check_callable(transform)
    if getattr(transform, "shardstream_placed", False):
        raise ConfigError(
            "a transform marked @ss.placed needs the epoch and position of a row, which only a ShardStream has."
        )


def row_errors(error: Exception, num_rows: int) -> dict[int, SampleError]:
    """Return what a batched transform says of single rows of those that it was given, by their number; nothing if it
    failed otherwise.
    """
    said = error.errors if isinstance(error, RowErrors) else {error.key: error} if isinstance(error, SampleError) else {}
    is_said = all(isinstance(row, (int, np.integer)) and not isinstance(row, bool) and 0 <= row < num_rows for row in said)
    return {int(row): one for row, one in said.items()} if is_said else {}
