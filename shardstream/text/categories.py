"""Rows of named features to sparse index sets, with the indices and values of scikit-learn's ``FeatureHasher``.

The C side is ``csrc/include/ss_hash.h``, the readable twin ``tests/twins/hashing.py``.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from shardstream._native import hash as native
from shardstream.errors import ConfigError, TextError
from shardstream.text.hashing import check_batch, check_flags, is_int, offsets_of

INPUT_TYPES = ("dict", "pair", "string")


@dataclass(frozen=True)
class CategoryHasher:
    """Hashes categorical and numeric features by name, as ``sklearn``'s ``FeatureHasher`` does.

    A feature whose value is a string is the category ``"name=value"`` with value 1; with a number, it is the
    name with that value, and left out if the number is 0. Several on one index are summed, with the sign of
    their hash if ``signed``; a sum of 0 keeps its place.

    Immutable, so threads may share it; picklable.

    Attributes:
        dim: Number of indices, from 1 to ``2**31 - 1``.
        input_type: What a row is: ``"dict"``, a mapping of names to values; ``"pair"``, an iterable of
            ``(name, value)``; ``"string"``, an iterable of names, each with value 1.
        signed: scikit-learn's ``alternate_sign`` (which is on by default there).
    """

    dim: int
    input_type: str = "dict"
    signed: bool = False

    def __post_init__(self):
        if not is_int(self.dim) or not 1 <= self.dim <= native.MAX_DIM:
            raise ConfigError(f"dim={self.dim!r} must be an integer from 1 to {native.MAX_DIM}.")
        if self.input_type not in INPUT_TYPES:
            raise ConfigError(f"input_type={self.input_type!r} is not one of {', '.join(INPUT_TYPES)}.")
        check_flags(signed=self.signed)
        object.__setattr__(self, "dim", int(self.dim))

    def transform(self, rows: Iterable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Hash ``batch`` rows into one batch of sparse rows, ``(indices, indptr, values)``.

        Returns:
            uint32 ``(num_indices,)``, int64 ``(batch + 1,)`` and float32 ``(num_indices,)``: row ``i`` has the
            ascending distinct ``indices[indptr[i]:indptr[i + 1]]``, as ``Sparse(dim, values="float32")``
            columns take them. Values are summed in double precision.

        Raises:
            TextError: ``rows[e.index]`` is no row of this ``input_type``, or has a name that is neither ``str``
                nor ``bytes``, or a value that is neither ``str`` nor a number.
        """
        check_batch("rows", rows, str, bytes, Mapping)
        names: list[str | bytes] = []
        values = array("d")
        row_offsets = [0]
        for index, row in enumerate(rows):
            try:
                self._add(row, names, values)
            except (TypeError, ValueError, OverflowError) as error:
                raise TextError(
                    f"rows[{index}] is not a row of input_type={self.input_type!r}: {error}", index=index
                ) from error
            row_offsets.append(len(names))
        pieces = _encoded(names, row_offsets)
        return native.hash_names(
            np.frombuffer(b"".join(pieces), np.uint8), offsets_of(pieces),
            None if self.input_type == "string" else np.frombuffer(values), np.array(row_offsets, np.int64),
            dim=self.dim, signed=self.signed,
        )  # fmt: skip

    def _add(self, row: Any, names: list[str | bytes], values: array) -> None:
        """Append a row's features, without those of value 0."""
        if isinstance(row, (str, bytes)):
            raise TypeError("a single string")
        if self.input_type == "string":
            names.extend(row)
            return
        if self.input_type == "dict" and not isinstance(row, Mapping):
            raise TypeError(f"a {type(row).__name__}")
        for name, value in row.items() if self.input_type == "dict" else row:
            if isinstance(value, str):
                names.append(f"{name}={value}")
                values.append(1.0)
            elif value != 0:
                values.append(value)
                names.append(name)


def rows_of_columns(columns: Mapping[str, Any], num_rows: int) -> list[dict]:
    """Return rows of ``input_type="dict"``, with a feature a column; where a column has ``None`` there is none.

    Args:
        columns: By name, a list or an array with an entry a row.

    Raises:
        ConfigError: A column has several values a row.
        TextError: The ``e.index``-th row of a column is neither a text nor a number.
    """
    rows: list[dict] = [{} for _ in range(num_rows)]
    for name, column in columns.items():
        if isinstance(column, tuple) or getattr(column, "ndim", 1) != 1:
            raise ConfigError("the column has several values a row; a feature has one.", field=name)
        for index, (row, value) in enumerate(zip(rows, column if isinstance(column, list) else column.tolist(), strict=True)):
            if isinstance(value, (str, Real)):
                row[name] = value
            elif value is not None:
                raise TextError(f"{name!r} is {type(value).__name__}, neither a text nor a number.", index=index)
    return rows


def _encoded(names: list[str | bytes], row_offsets: list[int]) -> list[bytes]:
    """Return the names as UTF-8; raises :class:`TextError` for the row of one that can't be."""
    try:
        return [name if type(name) is bytes else str.encode(name) for name in names]
    except (TypeError, UnicodeEncodeError):
        for feature, name in enumerate(names):
            row = int(np.searchsorted(row_offsets, feature, side="right")) - 1
            if not isinstance(name, (str, bytes)):
                raise TextError(f"rows[{row}] has the name {name!r}; it must be a str or bytes.", index=row) from None
            try:
                name if isinstance(name, bytes) else name.encode()
            except UnicodeEncodeError:
                raise TextError(f"rows[{row}] has the name {name!r} with a lone surrogate.", index=row) from None
        raise
