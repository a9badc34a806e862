"""Rows of a batch collected from many decoded blocks (``csrc/include/ss_gather.h``).

``Blocks`` holds one column of the blocks of a window; each ``gather_*`` is one GIL-free call a batch.
Rows are named by two uint32 arrays: row ``i`` of the batch is row ``row[i]`` of block ``slot[i]``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shardstream._native import ffi, lib
from shardstream.errors import CodecError, ConfigError

DTYPES = {name: getattr(lib, f"SS_{name.upper()}") for name in (
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64")}  # fmt: skip

DTYPE_OF = {np.dtype(name): number for name, number in DTYPES.items()}  # looked up for each batch: dtype.name is slow


def _dtype(array: np.ndarray) -> int:
    return DTYPE_OF[array.dtype]


def _pointers(ctype: str, arrays: Sequence[np.ndarray]):
    return ffi.new(f"{ctype}[]", [ffi.cast("void *", array.ctypes.data) for array in arrays])


def _check(status: int, what: str) -> None:
    if status == lib.SS_ERR_UNSUPPORTED:
        raise ConfigError(f"{what}: a float column can't become integers or bools.")
    if status == lib.SS_ERR_RANGE:
        raise CodecError(f"{what}: an index is not below dim.")
    if status != lib.SS_OK:
        raise IndexError(f"{what}: a row lies outside its block.")


class Rows:
    """The rows of a batch: C-contiguous uint32 ``slot`` and ``row`` of one length."""

    def __init__(self, slot: np.ndarray, row: np.ndarray):
        if slot.dtype != np.uint32 or row.dtype != np.uint32 or slot.shape != row.shape or slot.ndim != 1:
            raise ValueError("slot and row must be uint32 arrays of one length.")
        self.slot, self.row = np.ascontiguousarray(slot), np.ascontiguousarray(row)
        self.num_rows = len(slot)
        self.pointers = ffi.from_buffer("uint32_t[]", self.slot), ffi.from_buffer("uint32_t[]", self.row)


class DenseBlocks:
    """One dense column: an array ``(num_samples, *shape)`` a slot, all of one dtype and row shape."""

    def __init__(self, arrays: Sequence[np.ndarray]):
        self._arrays = [np.ascontiguousarray(array) for array in arrays]
        self.row_shape = self._arrays[0].shape[1:]
        self._row_num_elements = int(np.prod(self.row_shape, dtype=np.int64))
        self._pointers = _pointers("void *", self._arrays)
        self._num_rows = ffi.new("int64_t[]", [len(array) for array in self._arrays])

    def gather(self, rows: Rows, out: np.ndarray) -> None:
        """Fill ``out``, C-contiguous ``(num_rows, *row_shape)``, with the rows cast to its dtype."""
        if out.shape != (rows.num_rows, *self.row_shape) or not out.flags.c_contiguous:
            raise ValueError(f"out has shape {out.shape}, not {(rows.num_rows, *self.row_shape)}.")
        status = lib.ss_gather_dense(
            self._pointers, self._num_rows, len(self._arrays), *rows.pointers, rows.num_rows, self._row_num_elements,
            _dtype(self._arrays[0]), _dtype(out), ffi.from_buffer(out))  # fmt: skip
        _check(status, "dense gather")


class RaggedBlocks:
    """One ragged column: int64 ``offsets (num_samples + 1,)`` and 1-D ``values`` arrays a slot."""

    def __init__(self, offsets: Sequence[np.ndarray], *values: Sequence[np.ndarray]):
        self._offsets = [np.ascontiguousarray(array, np.int64) for array in offsets]
        self._values = [[np.ascontiguousarray(array) for array in arrays] for arrays in values]
        for arrays in self._values:
            if any(len(array) < bounds[-1] for array, bounds in zip(arrays, self._offsets, strict=True)):
                raise ValueError("offsets reach beyond their values.")
        self._offset_pointers = _pointers("int64_t *", self._offsets)
        self._value_pointers = [_pointers("void *", arrays) for arrays in self._values]
        self._num_rows = ffi.new("int64_t[]", [len(array) - 1 for array in self._offsets])

    def gather_offsets(self, rows: Rows) -> np.ndarray:
        """Return the int64 offsets ``(num_rows + 1,)`` of the batch."""
        out = np.empty(rows.num_rows + 1, np.int64)
        status = lib.ss_gather_offsets(self._offset_pointers, self._num_rows, len(self._offsets), *rows.pointers,
                                       rows.num_rows, ffi.from_buffer("int64_t[]", out))  # fmt: skip
        _check(status, "ragged gather")
        return out

    def gather_values(self, rows: Rows, out: np.ndarray, which: int = 0) -> None:
        """Fill ``out`` (``offsets[-1]`` elements) with the rows' values, cast to its dtype."""
        status = lib.ss_gather_ragged(
            self._value_pointers[which], self._offset_pointers, self._num_rows, len(self._offsets), *rows.pointers,
            rows.num_rows, _dtype(self._values[which][0]), _dtype(out), ffi.from_buffer(out))  # fmt: skip
        _check(status, "ragged gather")

    def gather_expanded(self, rows: Rows, dim: int, out: np.ndarray) -> None:
        """Fill ``out (num_rows, dim)`` with 0, and with the row's values (or 1) at the row's indices.

        The first values given are uint32 indices; the second, if any, what stands there.
        """
        if out.shape != (rows.num_rows, dim) or not out.flags.c_contiguous:
            raise ValueError(f"out has shape {out.shape}, not {(rows.num_rows, dim)}.")
        has_values = len(self._values) > 1
        weights = self._value_pointers[1] if has_values else ffi.NULL
        dtype = _dtype(self._values[1][0]) if has_values else lib.SS_UINT8
        status = lib.ss_gather_sparse(
            ffi.cast("uint32_t **", self._value_pointers[0]), self._offset_pointers, weights, dtype,
            self._num_rows, len(self._offsets), *rows.pointers, rows.num_rows, dim, _dtype(out),
            ffi.from_buffer(out))  # fmt: skip
        _check(status, "sparse gather")
