"""From a batch's columns to the arrays that ``ShardWriter.write_batch`` takes, row by row where needed.

Columns that a native step made are arrays already and pass as they are. Lists are converted whole
where numpy can, and row by row where that fails, so that a bad value costs its own row only.
Nothing is converted in silence that would change a value: text is no number, 1.5 no integer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from shardstream.errors import SampleError
from shardstream.packing.batch import Batch, are_all, take
from shardstream.packing.fields import FieldMap
from shardstream.schema import Bytes, Dense, Ragged, Sparse, Text

DROPPED = object()  # stands for the value of a row that a rule of the configuration leaves out


def encode(fields: Sequence[FieldMap], batch: Batch) -> tuple[dict[str, Any], Batch, int]:
    """Return ``(columns, batch, num_dropped)``: what to write, and the batch it was made from.

    Rows with a value that does not fit are left out of both and added to the batch's rejects;
    rows that ``classes`` without ``other`` leaves out are counted only.
    """
    bad: dict[int, SampleError | None] = {}
    values: dict[str, Any] = {}
    for field in fields:
        column = batch.columns.get(field.column, [None] * len(batch))
        if field.classes is not None and not isinstance(column, list):
            column = list(column)  # labels are looked up one by one
        values[field.name] = _convert(field, column, batch, bad) if isinstance(column, list) else column
    if bad:
        rows = [row for row in range(len(batch)) if row not in bad]
        batch = batch.take(rows, [reject for _, reject in sorted(bad.items()) if reject is not None])
        values = {name: take(column, rows) for name, column in values.items()}
    kinds = {field.name: field.kind for field in fields}
    assembled = {
        name: ASSEMBLE[type(kinds[name])](kinds[name], column) if isinstance(column, list) else column
        for name, column in values.items()
    }
    return assembled, batch, sum(reject is None for reject in bad.values())


def _convert(field: FieldMap, column: list, batch: Batch, bad: dict[int, SampleError | None]) -> Any:
    """Return the column's values, each as ASSEMBLE wants it, or the whole as one array; fills ``bad``."""
    if type(field.kind) is Dense and field.classes is None:
        try:
            return exact_array(column, field.kind.dtype, (len(column), *field.kind.shape))
        except (TypeError, ValueError, OverflowError):
            pass  # some row is at fault; below it is found
    if field.classes is None and (kinds := WHOLE.get(type(field.kind))) and are_all(column, kinds):
        return column
    convert: Callable = _number if field.classes is not None else VALUE[type(field.kind)]
    values = []
    for row, value in enumerate(column):
        try:
            if value is None:
                raise ValueError("the record has no such value")
            values.append(convert(field, value))
            if values[-1] is DROPPED:
                bad.setdefault(row, None)
        except (TypeError, ValueError, OverflowError) as error:
            values.append(None)
            if bad.get(row) is None:
                bad[row] = batch.reject(row, f"{error}.", field.name)
    return values


def exact_array(value: Any, dtype: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """Return the value as an array of this dtype and shape (``None``: any size); raises if that changes it.

    Numbers may be rounded to a float dtype; they must be equal in an integer or bool dtype.
    """
    array = np.asarray(value)
    if len(array.shape) != len(shape) or any(
        want not in (None, got) for want, got in zip(shape, array.shape, strict=True)
    ):
        raise ValueError(f"its shape is {array.shape}, not {shape}")
    if array.size and array.dtype.kind not in "biuf":
        raise TypeError(f"{value!r:.80} is not {'a number' if shape == () else 'numbers'}")
    with np.errstate(invalid="ignore", over="ignore"):
        exact = array.astype(dtype)
    if exact.dtype.kind in "biu" and not np.array_equal(exact, array):
        raise ValueError(f"{value!r:.80} does not fit {dtype}")
    return exact


def _number(field: FieldMap, value: Any) -> Any:
    number = field.classes.number(str(value))
    if number is not None:
        return number
    if str(value) in field.classes.dropped:
        return DROPPED
    raise ValueError(f"the label {value!r} is none of the classes")


def _sparse(field: FieldMap, value: Any) -> tuple[np.ndarray, ...]:
    parts = (value,) if field.kind.values is None else tuple(value)
    if len(parts) != (1 if field.kind.values is None else 2):
        raise ValueError("a sparse value is a pair of indices and values")
    indices = exact_array(parts[0], "int64", (None,))
    if indices.size and not 0 <= indices.min() <= indices.max() < field.kind.dim:
        raise ValueError(f"an index is outside [0, {field.kind.dim})")
    order = np.argsort(indices, kind="stable")
    indices = indices[order]
    if (indices[1:] == indices[:-1]).any():
        raise ValueError("an index stands twice")
    return (indices, *(exact_array(part, field.kind.values, indices.shape)[order] for part in parts[1:]))


def _instance(kinds: type | tuple[type, ...], what: str) -> Callable:
    def check(field: FieldMap, value: Any) -> Any:
        if not isinstance(value, kinds):
            raise TypeError(f"{value!r:.80} is not {what}")
        return value

    return check


WHOLE = {Text: str, Bytes: (bytes, bytearray, memoryview)}  # what is written as it is

VALUE: dict[type, Callable] = {
    Dense: lambda field, value: exact_array(value, field.kind.dtype, field.kind.shape),
    Ragged: lambda field, value: exact_array(value, field.kind.dtype, (None,)),
    Sparse: _sparse,
    Text: _instance(WHOLE[Text], "text"),
    Bytes: _instance(WHOLE[Bytes], "bytes"),
}


def _offsets(values: list) -> np.ndarray:
    return np.cumsum([0, *map(len, values)], dtype=np.int64)


def _joined(arrays: list[np.ndarray], dtype: str) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype)


ASSEMBLE: dict[type, Callable] = {
    Dense: lambda kind, values: np.asarray(values, kind.dtype).reshape(len(values), *kind.shape),
    Ragged: lambda kind, values: (_joined(values, kind.dtype), _offsets(values)),
    Sparse: lambda kind, values: (
        _joined([value[0] for value in values], "int64"),
        _offsets([value[0] for value in values]),
        *([_joined([value[1] for value in values], kind.values)] if kind.values else []),
    ),
    Text: lambda kind, values: values,
    Bytes: lambda kind, values: values,
}
