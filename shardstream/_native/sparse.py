"""Sparse blocks (``csrc/include/ss_sparse.h``): sections in and out, without zstd.

``Plan`` measures and writes the index section in any form; ``write_values`` does the same for
values; ``parse`` and ``decode`` read. Which form to take, and zstd, is up to ``codecs/sparse.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from shardstream._native import ffi, lib
from shardstream.errors import CodecError, SampleError

CODERS = ("rice", "bytes", "raw16", "raw32", "bitmap")
VIEWS = ("rows", "remap", "columns")
VALUES_CODERS = ("plain", "planes", "palette", "counts")
DTYPES = (None, "float32", "float16", "int32")
MAX_ROWS = lib.SS_SPARSE_MAX_ROWS
UNWRITABLE = 2**64 - 1

MESSAGES = {
    lib.SS_ERR_TRUNCATED: "a sparse block ends too early.",
    lib.SS_ERR_CORRUPT: "a sparse block breaks the rules of its format.",
    lib.SS_ERR_UNSUPPORTED: "a sparse block is of a version or kind unknown here.",
    lib.SS_ERR_RANGE: "a sparse block claims more than its size allows.",
}


Allocate = Callable[[int], np.ndarray]


def new_array(nbytes: int) -> np.ndarray:
    return np.empty(nbytes, np.uint8)


def beyond_limits(amount: int, always_legal: int, block_nbytes: int) -> bool:
    """Whether a block of this size may not hold ``amount`` indices or unpacked bytes (docs/FORMAT.md, 4.1)."""
    return amount > always_legal and amount > lib.SS_SPARSE_MAX_EXPANSION * block_nbytes


def may_hold(num_indices: int, raw_nbytes: int, block_nbytes: int) -> bool:
    """Whether readers accept a block of ``block_nbytes`` with these contents."""
    return not (
        beyond_limits(num_indices, lib.SS_SPARSE_FREE_INDICES, block_nbytes)
        or beyond_limits(raw_nbytes, lib.SS_SPARSE_FREE_NBYTES, block_nbytes)
    )


def _check_memory(condition: bool) -> None:
    if not condition:
        raise MemoryError("no memory for a sparse block.")


class Plan:
    """Rows ready to be written: strictly ascending uint32 ``indices`` and int64 ``indptr``.

    Raises :class:`SampleError` (key = row) if a row is not strictly ascending or reaches ``dim``.
    """

    def __init__(self, indices: np.ndarray, indptr: np.ndarray, dim: int):
        self._arrays = np.ascontiguousarray(indices, np.uint32), np.ascontiguousarray(indptr, np.int64)
        if not len(indptr) or len(indices) != indptr[-1]:
            raise CodecError("indptr must end with the number of indices.")
        status, row = ffi.new("enum ss_status *"), ffi.new("size_t *")
        plan = lib.ss_sparse_plan_new(
            ffi.from_buffer("uint32_t[]", self._arrays[0]),
            ffi.from_buffer("int64_t[]", self._arrays[1]),
            len(indptr) - 1,
            dim,
            status,
            row,
        )
        if status[0] == lib.SS_ERR_ARGUMENT:
            raise CodecError(
                f"indptr must rise from 0, with at most {MAX_ROWS} rows and fewer than 2**32 indices in a block."
            )
        if status[0] in (lib.SS_ERR_RANGE, lib.SS_ERR_DUPLICATE):
            rule = (
                f"an index is not below dim={dim}"
                if status[0] == lib.SS_ERR_RANGE
                else "indices are not strictly ascending"
            )
            raise SampleError(f"{rule}.", key=row[0])
        _check_memory(plan != ffi.NULL)
        self._plan = ffi.gc(plan, lib.ss_sparse_plan_free, 24 * len(indices))

    def choose(self) -> tuple[str, str, int]:
        """Return ``(coder, view, smallest size of any form)`` of the form to write, as ``ss_sparse_plan_choose()``
        says.
        """
        choice = lib.ss_sparse_plan_choose(self._plan)
        _check_memory(choice.nbytes != UNWRITABLE)
        return CODERS[choice.coder], VIEWS[choice.view], choice.smallest_nbytes

    def nbytes(self, coder: str, view: str) -> int | None:
        """Return the exact size of the index section in this form; None if it has none."""
        nbytes = lib.ss_sparse_plan_nbytes(self._plan, CODERS.index(coder), VIEWS.index(view))
        return None if nbytes == UNWRITABLE else nbytes

    def least_nbytes(self, coder: str, view: str) -> int | None:
        """Return a size that the form is not below, and that is cheap to find; None if it has none."""
        nbytes = lib.ss_sparse_plan_least_nbytes(self._plan, CODERS.index(coder), VIEWS.index(view))
        return None if nbytes == UNWRITABLE else nbytes

    def write(self, coder: str, view: str) -> bytes:
        """Return the index section in a form that has a size."""
        nbytes = self.nbytes(coder, view)
        out = np.empty(nbytes + lib.SS_SPARSE_SLACK_NBYTES, np.uint8)
        written = lib.ss_sparse_plan_write(
            self._plan, CODERS.index(coder), VIEWS.index(view), ffi.from_buffer("uint8_t[]", out)
        )
        _check_memory(written == nbytes)
        return out[:nbytes].tobytes()


def values_nbytes(values: np.ndarray, coder: str) -> int | None:
    """Return the exact size of C-contiguous ``values`` in this coder; None if it can't write them."""
    nbytes = lib.ss_sparse_values_nbytes(
        ffi.from_buffer(values), len(values), DTYPES.index(values.dtype.name), VALUES_CODERS.index(coder)
    )
    return None if nbytes == UNWRITABLE else nbytes


def write_values(values: np.ndarray, coder: str) -> bytes:
    """Return the values section in a coder that has a size."""
    nbytes = values_nbytes(values, coder)
    out = np.empty(nbytes + lib.SS_SPARSE_SLACK_NBYTES, np.uint8)
    written = lib.ss_sparse_values_write(
        ffi.from_buffer(values),
        len(values),
        DTYPES.index(values.dtype.name),
        VALUES_CODERS.index(coder),
        ffi.from_buffer("uint8_t[]", out),
    )
    _check_memory(written == nbytes)
    return out[:nbytes].tobytes()


def write_header(**fields: int) -> bytes:
    """Return the header with the fields of ``struct ss_sparse_header``; coders, views and dtypes as numbers."""
    header, out = ffi.new("struct ss_sparse_header *", fields), ffi.new("uint8_t[]", lib.SS_SPARSE_MAX_HEADER_NBYTES)
    return bytes(ffi.buffer(out, lib.ss_sparse_write_header(header, out)))


def parse(block) -> object:
    """Return the checked ``struct ss_sparse_header`` of a bytes-like block, or raise with the offset in it."""
    view = ffi.from_buffer("uint8_t[]", block)
    header, offset = ffi.new("struct ss_sparse_header *"), ffi.new("size_t *")
    status = lib.ss_sparse_parse(view, len(view), header, offset)
    if status != lib.SS_OK:
        raise CodecError(MESSAGES[status], offset=offset[0])
    return header


def decode(header, index, values, *, sort: bool, allocate: Allocate = new_array) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return ``(indices uint32, indptr int64, values or None)`` of unpacked sections and their header, parts of one array.

    The sizes of the sections must be those of the header. An error's offset is in the block as
    far as the section is not compressed, else where the section begins. ``allocate`` makes uint8 arrays aligned to 8.
    """
    dtype = DTYPES[header.dtype]
    indptr_nbytes, indices_nbytes = 8 * (header.num_rows + 1), 4 * header.num_indices
    values_nbytes = 0 if dtype is None else header.num_indices * np.dtype(dtype).itemsize
    memory = allocate(indptr_nbytes + indices_nbytes + values_nbytes)
    indptr = memory[:indptr_nbytes].view(np.int64)
    indices = memory[indptr_nbytes : indptr_nbytes + indices_nbytes].view(np.uint32)
    out = None if dtype is None else memory[indptr_nbytes + indices_nbytes :].view(dtype)
    offset, in_values = ffi.new("size_t *"), ffi.new("int *")
    status = lib.ss_sparse_decode(
        header,
        ffi.from_buffer("uint8_t[]", index),
        ffi.NULL if out is None else ffi.from_buffer("uint8_t[]", values),
        sort,
        ffi.from_buffer("uint32_t[]", indices),
        ffi.from_buffer("int64_t[]", indptr),
        ffi.NULL if out is None else ffi.from_buffer(out),
        offset,
        in_values,
    )
    if status != lib.SS_OK:
        _check_memory(status != lib.SS_ERR_NOMEM)
        packed, begin = (
            (header.values_zstd, header.values_offset) if in_values[0] else (header.index_zstd, header.index_offset)
        )
        raise CodecError(MESSAGES[status], offset=begin if packed else begin + offset[0])
    return indices, indptr, out


def _are_sorted(indices: np.ndarray, bounds: np.ndarray, dim: int) -> bool:
    """Tell whether rows need no sorting, without copying them to int64 for it."""
    if indices.ndim != 1 or bounds.ndim != 1 or not len(bounds):
        return False
    arrays = ffi.from_buffer("uint32_t[]", indices), len(indices), ffi.from_buffer("int64_t[]", bounds)
    return bool(lib.ss_sparse_rows_are_sorted(*arrays, len(bounds) - 1, dim))


def sort_rows(indices: np.ndarray, indptr: np.ndarray, dim: int, values: np.ndarray | None = None):
    """Return ``(uint32 indices, values)``, each row in ascending order; values move with their index.

    ``indices`` may be of any integer dtype, ``values`` float32, float16 or int32. Raises
    :class:`SampleError` with ``key`` = the row where an index repeats or lies outside ``[0, dim)``.
    """
    bounds = np.ascontiguousarray(indptr, np.int64)
    if values is None and indices.dtype == np.uint32 and _are_sorted(np.ascontiguousarray(indices), bounds, dim):
        return indices.copy(), None
    wide = np.ascontiguousarray(indices, np.int64)
    if wide.ndim != 1 or bounds.ndim != 1 or not len(bounds) or (values is not None and values.shape != wide.shape):
        raise SampleError("indices, indptr and values must be one-dimensional, values as many as indices.")
    weights = None if values is None else np.ascontiguousarray(values)
    out, out_values = np.empty(len(wide), np.uint32), None if values is None else np.empty_like(weights)
    row = ffi.new("size_t *")
    status = lib.ss_sparse_sort_rows(
        ffi.from_buffer("int64_t[]", wide),
        len(wide),
        ffi.from_buffer("int64_t[]", bounds),
        len(bounds) - 1,
        dim,
        ffi.NULL if values is None else ffi.from_buffer(weights),
        0 if values is None else weights.itemsize,
        ffi.from_buffer("uint32_t[]", out),
        ffi.NULL if values is None else ffi.from_buffer(out_values),
        row,
    )
    if status == lib.SS_ERR_ARGUMENT:
        raise SampleError(f"indptr must rise from 0 to the number of indices, {len(wide)}.", key=row[0])
    if status == lib.SS_ERR_RANGE:
        raise SampleError(f"an index is outside [0, {dim}).", key=row[0])
    if status == lib.SS_ERR_DUPLICATE:
        raise SampleError("an index is repeated.", key=row[0])
    _check_memory(status == lib.SS_OK)
    return out, out_values
