"""What a user hands to a writer, checked against the schema and made uniform.

A *part* is some rows of one column: an array ``(n, *shape)`` for Dense, ``(values, lengths)`` for Ragged,
Text and Bytes, ``(indices, lengths, values or None)`` for Sparse. A single sample is a part of one row.
Errors name the field, and the row within the call as ``key``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from shardstream._native.sparse import sort_rows
from shardstream.codecs import columns
from shardstream.codecs.shard import MAX_BLOCK_NBYTES
from shardstream.errors import SampleError
from shardstream.schema import Bytes, Dense, Field, Ragged, Schema, Sparse, Text


def check_sample(schema: Schema, sample: dict) -> dict[str, Any]:
    """Return the parts of one sample; :class:`SampleError` names the field that does not fit."""
    _check_names(schema, sample)
    return {name: _row_part(name, field, sample[name]) for name, field in schema.items()}


def check_batch(schema: Schema, batch: dict) -> tuple[dict[str, Any], int]:
    """Return the parts of a batch of samples and their number."""
    _check_names(schema, batch)
    parts = {name: _batch_part(name, field, batch[name]) for name, field in schema.items()}
    counts = {name: num_rows(part) for name, part in parts.items()}
    if len(set(counts.values())) > 1:
        raise SampleError(f"fields differ in their number of samples: {counts}.")
    return parts, next(iter(counts.values()))


def num_rows(part) -> int:
    """Return the number of rows of a part."""
    return len(part) if isinstance(part, np.ndarray) else len(part[1])


def row_nbytes(part) -> np.ndarray:
    """Return int64 ``(n,)``: what each row counts towards a block's payload (docs/FORMAT.md, section 3)."""
    if isinstance(part, np.ndarray):
        return np.full(len(part), part.nbytes // max(1, len(part)), np.int64)
    element = sum(array.itemsize for array in (part[0], *part[2:]) if array is not None)
    return part[1] * element + 8


def check_compressible(parts: Mapping[str, Any]) -> None:
    """Raise :class:`SampleError` for a row that readers would refuse to decompress: about 2 GiB in one member."""
    limit = columns.MAX_MEMBER_NBYTES - 2 * MAX_BLOCK_NBYTES  # beside it its block may hold others, and a header
    for name, part in parts.items():
        if isinstance(part, np.ndarray):
            largest = part.nbytes // max(1, len(part))
        elif len(part) == 2:
            largest = int(part[1].max(initial=0)) * part[0].itemsize
        else:
            continue  # sparse sets are not zstd members
        if largest > limit:
            raise SampleError(f"a sample of {largest:,} bytes; with compression='zstd' at most {limit:,} can be read back. "
                              "Write it without compression.", field=name)  # fmt: skip


def slice_part(part, begin: int, end: int):
    """Return rows ``begin`` to ``end`` (exclusive) of a part, as views."""
    if isinstance(part, np.ndarray):
        return part[begin:end]
    first, count = int(part[1][:begin].sum()), int(part[1][begin:end].sum())
    cut = [None if array is None else array[first : first + count] for array in (part[0], *part[2:])]
    return (cut[0], part[1][begin:end], *cut[1:])


def copy_part(part):
    """Return a part that shares no memory with ``part``."""
    if isinstance(part, np.ndarray):
        return part.copy()
    return tuple(None if array is None else array.copy() for array in part)


def concatenate(parts: Sequence) -> Any:
    """Return parts end to end in a column's decoded form (``codecs/columns.py``): lengths become offsets."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    lengths = np.concatenate([part[1] for part in parts])
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    values = np.concatenate([part[0] for part in parts])
    if len(parts[0]) == 2:
        return values, offsets
    return values, offsets, None if parts[0][2] is None else np.concatenate([part[2] for part in parts])


def rows_of_column(column, begin: int, end: int):
    """Return rows ``begin`` to ``end`` (exclusive) of a column in its decoded form as a part, as views."""
    if isinstance(column, np.ndarray):
        return column[begin:end]
    offsets = column[1]
    first, last = int(offsets[begin]), int(offsets[end])
    cut = [None if array is None else array[first:last] for array in (column[0], *column[2:])]
    return (cut[0], np.diff(offsets[begin : end + 1]), *cut[1:])


def _check_names(schema: Schema, given: dict) -> None:
    if not isinstance(given, dict):
        raise SampleError(f"a sample is a dict of fields, not {type(given).__name__}.")
    if given.keys() != schema.keys():
        missing, extra = sorted(schema.keys() - given.keys()), sorted(map(str, given.keys() - schema.keys()))
        names = [f"missing {missing}"] * bool(missing) + [f"not in the schema {extra}"] * bool(extra)
        raise SampleError(f"a sample has the fields {list(schema)}; {', '.join(names)}.",
                          field=str((missing + extra)[0]))  # fmt: skip


def _row_part(name: str, field: Field, value):
    if isinstance(field, Dense):
        return _dense(name, field, _exact(name, value, field.dtype)[None])
    if isinstance(field, Ragged):
        array = _exact(name, value, field.dtype)
        if array.ndim != 1:
            raise SampleError(f"a ragged sample is a 1-D array, not {array.ndim}-D.", field=name)
        return array, np.array([len(array)], np.int64)
    if isinstance(field, Sparse):
        if field.values is None:
            indices, values = value, None
        else:
            indices, values = _pair(name, value, 2, "(indices, values)")
        count = len(indices) if hasattr(indices, "__len__") else 0
        return _sparse(name, field, indices, np.array([0, count], np.int64), values, single=True)
    return _strings(name, field, [value], single=True)


def _batch_part(name: str, field: Field, value):
    if isinstance(field, Dense):
        return _dense(name, field, _exact(name, value, field.dtype))
    if isinstance(field, Sparse):
        form = "(indices, indptr)" if field.values is None else "(indices, indptr, values)"
        indices, indptr, *values = _pair(name, value, 2 + (field.values is not None), form)
        return _sparse(name, field, indices, indptr, values[0] if values else None)
    if isinstance(field, Ragged) or (isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], np.ndarray)):
        values, offsets = _pair(name, value, 2, "(values, offsets)")
        values = _exact(name, values, field.dtype if isinstance(field, Ragged) else "uint8")
        lengths = _lengths(name, offsets, len(values))
        if isinstance(field, Text):
            _check_utf8(name, values, np.asarray(offsets))
        return values, lengths
    return _strings(name, field, value)


def _exact(name: str, value, dtype: str) -> np.ndarray:
    """Return ``value`` as an array of ``dtype`` if that changes no value's kind or size, else raise."""
    wanted = np.dtype(dtype)
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise SampleError(f"not an array: {error}", field=name) from error
    if array.dtype == wanted:
        return np.ascontiguousarray(array) if array.ndim else array
    if array.dtype.kind not in "biuf" or (array.size and not _fits(array, wanted)):
        shown = repr(value) if array.ndim == 0 else f"an array of {array.dtype}"
        raise SampleError(f"{shown} does not fit dtype {dtype}.", field=name)
    return np.ascontiguousarray(array.astype(wanted)) if array.ndim else array.astype(wanted)


def _fits(array: np.ndarray, wanted: np.dtype) -> bool:
    """Tell whether a cast keeps every value: integers exactly, floats up to rounding of float64 literals."""
    if wanted.kind == "b":
        return array.dtype.kind == "b"
    if wanted.kind in "iu":
        if array.dtype.kind not in "biu":
            return False
        info = np.iinfo(wanted)
        return int(array.min()) >= info.min and int(array.max()) <= info.max
    if array.dtype.kind == "f" and array.dtype != np.float64:
        return array.dtype.itemsize <= wanted.itemsize
    limit = float(np.finfo(wanted).max)
    finite = array[np.isfinite(array)]
    return not finite.size or float(np.abs(finite.astype(np.float64)).max()) <= limit


def _dense(name: str, field: Dense, array: np.ndarray) -> np.ndarray:
    if array.shape[1:] != field.shape or array.ndim == 0:
        raise SampleError(f"shape {array.shape[1:]} of a sample is not the schema's {field.shape}.", field=name)
    return array


def _pair(name: str, value, count: int, form: str) -> tuple:
    if not isinstance(value, (tuple, list)) or len(value) != count:
        raise SampleError(f"takes a tuple {form}, not {type(value).__name__}.", field=name)
    return tuple(value)


def _lengths(name: str, offsets, num_values: int) -> np.ndarray:
    offsets = np.asarray(offsets)
    if offsets.ndim != 1 or not len(offsets) or offsets.dtype.kind not in "iu":
        raise SampleError("offsets must be a 1-D array of integers with one more element than samples.", field=name)
    lengths = np.diff(offsets.astype(np.int64))
    if offsets[0] != 0 or offsets[-1] != num_values or (lengths < 0).any():
        raise SampleError(f"offsets must ascend from 0 to the {num_values} values.", field=name)
    return lengths


def _sparse(name: str, field: Sparse, indices, indptr, values, single: bool = False):
    try:
        array = np.asarray(indices)
    except (ValueError, TypeError) as error:
        raise SampleError(f"indices are not an array: {error}", field=name) from error
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise SampleError(f"indices must be a 1-D array of integers, not {array.ndim}-D of {array.dtype}.", field=name)
    lengths = _lengths(name, indptr, len(array))
    if values is not None:
        values = _exact(name, values, field.values)
        if values.shape != array.shape:
            raise SampleError(f"{values.shape} values for {array.shape} indices.", field=name)
    try:
        indices, values = sort_rows(array, np.asarray(indptr, np.int64), field.dim, values)
    except SampleError as error:
        raise SampleError(error.message, field=name, key=None if single else error.key) from None
    return indices, lengths, values


def _strings(name: str, field: Text | Bytes, rows, single: bool = False):
    kind = str if isinstance(field, Text) else (bytes, bytearray, memoryview)
    if isinstance(rows, (str, bytes)) or not hasattr(rows, "__iter__"):
        raise SampleError(f"takes a list of {'str' if kind is str else 'bytes'}, not {type(rows).__name__}.",
                          field=name)  # fmt: skip
    if kind is str and isinstance(rows, list) and set(map(type, rows)) == {str} and (joined := "".join(rows)).isascii():
        return np.frombuffer(joined.encode(), np.uint8), np.fromiter(map(len, rows), np.int64, len(rows))
    chunks = []
    for number, row in enumerate(rows):
        if not isinstance(row, kind):
            expected = "str" if kind is str else "bytes"
            raise SampleError(f"{expected} expected, not {type(row).__name__}.", field=name,
                              key=None if single else number)  # fmt: skip
        try:
            chunks.append(row.encode() if isinstance(row, str) else bytes(row))
        except UnicodeEncodeError as error:
            raise SampleError(f"a text with a lone surrogate is not UTF-8: {error}", field=name,
                              key=None if single else number) from error  # fmt: skip
    return np.frombuffer(b"".join(chunks), np.uint8), np.array([len(chunk) for chunk in chunks], np.int64)


def _check_utf8(name: str, values: np.ndarray, offsets: np.ndarray) -> None:
    """Raise unless every row is UTF-8 by itself: the whole is, and no row begins inside a character."""
    try:
        values.tobytes().decode()
    except UnicodeDecodeError as error:
        row = int(np.searchsorted(offsets, error.start, "right")) - 1
        raise SampleError(f"a text is not UTF-8: {error.reason} at byte {error.start}.", field=name, key=row) from error
    begins = offsets[:-1][offsets[:-1] < len(values)].astype(np.int64)
    split = np.flatnonzero((values[begins] & 0xC0) == 0x80)
    if len(split):
        raise SampleError("a text begins inside a UTF-8 character.", field=name, key=int(split[0]))
