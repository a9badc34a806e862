"""Rows of a batch collected from many decoded blocks (``csrc/include/ss_gather.h``).

``DenseBlocks`` and ``RaggedBlocks`` hold one column of the blocks of a chunk, ``KeyedBlocks`` several; each ``gather*`` is one GIL-free call.
Rows are named by two uint32 arrays: row ``i`` of the batch is row ``row[i]`` of block ``slot[i]``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from shardstream._native import ffi, lib
from shardstream.errors import CodecError
from shardstream.locks import lazy

DTYPES = {name: getattr(lib, f"SS_{name.upper()}") for name in (
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64")}  # fmt: skip

INT64S, UINT32S = ffi.typeof("int64_t[]"), ffi.typeof("uint32_t[]")  # a name would be looked up at each call

DTYPE_OF = {np.dtype(name): number for name, number in DTYPES.items()}  # looked up for each batch: dtype.name is slow


def _check(status: int, what: str) -> None:
    if status == lib.SS_ERR_RANGE:
        raise CodecError(f"{what}: an index is not below dim.")
    if status != lib.SS_OK:
        raise IndexError(f"{what}: a row lies outside its block.")


class Rows:
    """The rows of a batch: uint32 ``slot`` and ``row``, C-contiguous and of one length.

    ``part`` costs no numpy: a batch is a part of the rows that were planned together.
    """

    def __init__(self, slot: np.ndarray, row: np.ndarray):
        if slot.dtype != np.uint32 or row.dtype != np.uint32 or slot.shape != row.shape or slot.ndim != 1:
            raise ValueError("slot and row must be uint32 arrays of one length.")
        self._arrays, self._begin, self.num_rows = (np.ascontiguousarray(slot), np.ascontiguousarray(row)), 0, len(slot)
        self.pointers = tuple(ffi.from_buffer("uint32_t[]", array) for array in self._arrays)

    def part(self, begin: int, end: int) -> Rows:
        """Return rows ``[begin, end)`` of these."""
        if not 0 <= begin <= end <= self.num_rows:
            raise IndexError(f"rows [{begin}, {end}) are not among {self.num_rows}.")
        part = object.__new__(Rows)
        part._arrays, part._begin, part.num_rows = self._arrays, self._begin + begin, end - begin
        slot, row = self.pointers
        part.pointers = slot + begin, row + begin
        return part

    @property
    def slot(self) -> np.ndarray:
        return self._arrays[0][self._begin : self._begin + self.num_rows]

    @property
    def row(self) -> np.ndarray:
        return self._arrays[1][self._begin : self._begin + self.num_rows]


class RowNumbers:
    """Numbers of rows of blocks laid end to end: block ``s`` has those from ``starts[s]`` up to ``starts[s + 1]``."""

    def __init__(self, num_rows_of: Sequence[int]):
        self._starts = np.cumsum([0, *num_rows_of], dtype=np.int64)
        self._pointer, self._num_slots = ffi.from_buffer("int64_t[]", self._starts), len(num_rows_of)
        self.num_rows = int(self._starts[-1])

    def find(self, numbers: np.ndarray) -> Rows:
        """Return the rows of int64 ``numbers``, 1-D and C-contiguous; -1 is the last row.

        Raises:
            IndexError: A number is outside the rows.
        """
        num_rows = len(numbers)
        places, bad = np.empty((2, num_rows), np.uint32), ffi.new("size_t *")
        slot = ffi.from_buffer(UINT32S, places)
        row = slot + num_rows
        if lib.ss_locate_rows(self._pointer, self._num_slots, ffi.from_buffer(INT64S, numbers), num_rows, slot, row, bad):
            raise IndexError(f"row {numbers[bad[0]]} is outside the {self.num_rows} rows.")
        rows = object.__new__(Rows)
        rows._arrays, rows._begin, rows.num_rows, rows.pointers = places, 0, num_rows, (slot, row)
        return rows


class NeededBlocks:
    """Blocks numbered in the order in which rows need them.

    Args:
        begins: int64, ascending: where each block begins.
        places: int64, of each row, none below the first block; a block's rows are at most 2**32 from its begin.

    Attributes:
        rows: Which block each row is in, by its number in this order, and which of its rows it is.
        num_needed: int64: how many blocks rows ``0 .. i`` need.
        blocks: int64: which of ``begins`` each numbered block is.
        first_rows: int64: the row that needs it first.
    """

    def __init__(self, begins: np.ndarray, places: np.ndarray):
        begins, places = np.ascontiguousarray(begins, np.int64), np.ascontiguousarray(places, np.int64)
        slot, row = np.empty((2, len(places)), np.uint32)
        blocks, self.num_needed = np.empty((2, len(begins)), np.int64), np.empty(len(places), np.int64)
        scratch = np.empty(len(begins), np.uint32)
        if len(places) and (not len(begins) or places.min() < begins[0]):
            raise ValueError("a row lies before all blocks.")
        self.rows = Rows(slot, row)
        num_blocks = lib.ss_number_blocks(
            ffi.from_buffer(INT64S, begins), len(begins), ffi.from_buffer(INT64S, places), len(places), *self.rows.pointers,
            ffi.from_buffer(INT64S, self.num_needed), ffi.from_buffer(INT64S, blocks[0]), ffi.from_buffer(INT64S, blocks[1]),
            ffi.from_buffer(UINT32S, scratch))  # fmt: skip
        self.blocks, self.first_rows = blocks[:, :num_blocks]


class DenseBlocks:
    """One dense column: an array ``(num_samples, *row_shape)`` a slot, all of one dtype; slots without one have no rows."""

    def __init__(self, num_slots: int, dtype: np.dtype | str, row_shape: tuple[int, ...]):
        self._arrays: list[np.ndarray | None] = [None] * num_slots
        self.dtype, self.row_shape = np.dtype(dtype), row_shape
        self._stored, self._row_num_elements = DTYPE_OF[self.dtype], math.prod(row_shape)
        self._pointers, self._num_rows = ffi.new("void *[]", num_slots), ffi.new("int64_t[]", num_slots)

    @classmethod
    def of(cls, arrays: Sequence[np.ndarray]) -> DenseBlocks:
        """Return these arrays, one a slot."""
        blocks = cls(len(arrays), arrays[0].dtype, arrays[0].shape[1:])
        for slot, array in enumerate(arrays):
            blocks.set(slot, array)
        return blocks

    def set(self, slot: int, array: np.ndarray) -> None:
        """Put an array into a slot."""
        if array.dtype != self.dtype or array.shape[1:] != self.row_shape:
            raise ValueError(f"a block is {array.dtype}{array.shape[1:]}, the column {self.dtype}{self.row_shape}.")
        self._arrays[slot] = array = np.ascontiguousarray(array)
        self._pointers[slot], self._num_rows[slot] = ffi.from_buffer(array), len(array)

    def gather(self, rows: Rows, out: np.ndarray) -> None:
        """Fill ``out``, C-contiguous ``(num_rows, *row_shape)``, with the rows cast to its dtype."""
        if out.shape != (rows.num_rows, *self.row_shape) or not out.flags.c_contiguous:
            raise ValueError(f"out has shape {out.shape}, not {(rows.num_rows, *self.row_shape)}.")
        status = lib.ss_gather_dense(
            self._pointers, self._num_rows, len(self._arrays), *rows.pointers, rows.num_rows, self._row_num_elements,
            self._stored, DTYPE_OF[out.dtype], ffi.from_buffer(out))  # fmt: skip
        if status:
            _check(status, "dense gather")


class RaggedBlocks:
    """One ragged column: int64 ``offsets (num_samples + 1,)`` and 1-D ``values``, of any number of kinds, a slot.

    Slots that hold nothing have no rows.
    """

    def __init__(self, num_slots: int, *dtypes: np.dtype | str):
        self._arrays: list[tuple[np.ndarray, ...] | None] = [None] * num_slots
        self.dtypes = tuple(map(np.dtype, dtypes))
        self._offset_pointers, self._num_rows = ffi.new("int64_t *[]", num_slots), ffi.new("int64_t[]", num_slots)
        self._value_pointers = [ffi.new("void *[]", num_slots) for _ in dtypes]

    @classmethod
    def of(cls, offsets: Sequence[np.ndarray], *values: Sequence[np.ndarray]) -> RaggedBlocks:
        """Return these offsets and values, one of each a slot."""
        blocks = cls(len(offsets), *(arrays[0].dtype for arrays in values))
        for slot, arrays in enumerate(zip(offsets, *values, strict=True)):
            blocks.set(slot, *arrays)
        return blocks

    def set(self, slot: int, offsets: np.ndarray, *values: np.ndarray) -> None:
        """Put offsets and values into a slot."""
        if tuple(array.dtype for array in values) != self.dtypes:
            raise ValueError(f"a block's values are {[array.dtype for array in values]}, the column's {list(self.dtypes)}.")
        if any(len(array) < offsets[-1] for array in values):
            raise ValueError("offsets reach beyond their values.")
        arrays = np.ascontiguousarray(offsets, np.int64), *map(np.ascontiguousarray, values)
        self._arrays[slot], self._num_rows[slot] = arrays, len(offsets) - 1
        self._offset_pointers[slot] = ffi.from_buffer("int64_t[]", arrays[0])
        for pointers, array in zip(self._value_pointers, arrays[1:]):
            pointers[slot] = ffi.from_buffer(array)

    def arrays(self, slot: int) -> tuple[np.ndarray, ...]:
        """Return the offsets and values in a slot."""
        return self._arrays[slot]

    def gather_offsets(self, rows: Rows) -> np.ndarray:
        """Return the int64 offsets ``(num_rows + 1,)`` of the batch."""
        out = np.empty(rows.num_rows + 1, np.int64)
        status = lib.ss_gather_offsets(self._offset_pointers, self._num_rows, len(self._arrays), *rows.pointers,
                                       rows.num_rows, ffi.from_buffer("int64_t[]", out))  # fmt: skip
        if status:
            _check(status, "ragged gather")
        return out

    def gather_values(self, rows: Rows, out: np.ndarray, which: int = 0) -> None:
        """Fill ``out`` (``offsets[-1]`` elements) with the rows' values, cast to its dtype."""
        status = lib.ss_gather_ragged(
            self._value_pointers[which], self._offset_pointers, self._num_rows, len(self._arrays), *rows.pointers,
            rows.num_rows, DTYPE_OF[self.dtypes[which]], DTYPE_OF[out.dtype], ffi.from_buffer(out))  # fmt: skip
        if status:
            _check(status, "ragged gather")

    def gather_padded(self, rows: Rows, out: np.ndarray, filler: np.ndarray, keeps_end: bool = False, stands_left: bool = False,
                      mask: np.ndarray | None = None) -> None:  # fmt: skip
        """Fill ``out (num_rows, length)`` with the rows, cast, each cut or filled up with ``filler``, one element of its dtype.

        ``mask``, bool of the same shape, becomes True where values of the rows stand.
        """
        if out.ndim != 2 or len(out) != rows.num_rows or not out.flags.c_contiguous or filler.dtype != out.dtype:
            raise ValueError(f"out is {out.dtype}{out.shape} for {rows.num_rows} rows padded with {filler.dtype}.")
        if mask is not None and (mask.dtype != bool or mask.shape != out.shape or not mask.flags.c_contiguous):
            raise ValueError(f"mask is {mask.dtype}{mask.shape}, not bool{out.shape}.")
        padding = ffi.new("struct ss_padding *", (out.shape[1], keeps_end, stands_left, ffi.from_buffer(filler)))
        status = lib.ss_gather_padded(
            self._value_pointers[0], self._offset_pointers, self._num_rows, len(self._arrays), *rows.pointers, rows.num_rows,
            DTYPE_OF[self.dtypes[0]], DTYPE_OF[out.dtype], padding, ffi.from_buffer(out),
            ffi.NULL if mask is None else ffi.cast("uint8_t *", ffi.from_buffer(mask)))  # fmt: skip
        if status:
            _check(status, "padded gather")

    def gather_expanded(self, rows: Rows, dim: int, out: np.ndarray) -> None:
        """Fill ``out (num_rows, dim)`` with 0, and with the row's values (or 1) at the row's indices.

        The first values given are uint32 indices; the second, if any, what stands there.
        """
        if out.shape != (rows.num_rows, dim) or not out.flags.c_contiguous:
            raise ValueError(f"out has shape {out.shape}, not {(rows.num_rows, dim)}.")
        has_values = len(self.dtypes) > 1
        weights, dtype = (self._value_pointers[1], DTYPE_OF[self.dtypes[1]]) if has_values else (ffi.NULL, lib.SS_UINT8)
        status = lib.ss_gather_sparse(
            self._index_pointers, self._offset_pointers, weights, dtype, self._num_rows, len(self._arrays), *rows.pointers,
            rows.num_rows, dim, DTYPE_OF[out.dtype], ffi.from_buffer(out))  # fmt: skip
        if status:
            _check(status, "sparse gather")

    @lazy
    def _index_pointers(self):
        return ffi.cast("uint32_t **", self._value_pointers[0])

    def described(self, which: int) -> tuple:
        """Return a ``struct ss_ragged`` of these blocks with values number ``which``, or a 1 for each if they have none."""
        values, dtype = (self._value_pointers[which], self.dtypes[which]) if which < len(self.dtypes) else (ffi.NULL, self.dtypes[0])
        return values, self._offset_pointers, self._num_rows, DTYPE_OF[dtype]


class KeyedBlocks:
    """Several ragged columns of the same blocks, gathered key by key: all rows of the first, then these rows of the second, and so on."""

    def __init__(self, columns: Sequence[RaggedBlocks], num_slots: int):
        self.columns, self._num_slots = tuple(columns), num_slots
        self._descriptions = [ffi.new("struct ss_ragged[]", [column.described(which) for column in columns]) for which in (0, 1)]

    def gather_offsets(self, rows: Rows) -> np.ndarray:
        """Return the int64 offsets ``(num_columns * num_rows + 1,)``."""
        out = np.empty(len(self.columns) * rows.num_rows + 1, np.int64)
        status = lib.ss_gather_keyed_offsets(self._descriptions[0], len(self.columns), self._num_slots, *rows.pointers, rows.num_rows,
                                             ffi.from_buffer("int64_t[]", out))  # fmt: skip
        if status:
            _check(status, "keyed gather")
        return out

    def gather_values(self, rows: Rows, offsets: np.ndarray, out: np.ndarray, which: int = 0) -> None:
        """Fill ``out`` (``offsets[-1]`` elements) with the rows' values, cast; columns without values number ``which`` give ones."""
        if len(out) < offsets[-1] or not out.flags.c_contiguous:
            raise ValueError(f"out has {len(out)} elements, not {offsets[-1]}.")
        status = lib.ss_gather_keyed_values(self._descriptions[which], len(self.columns), self._num_slots, *rows.pointers, rows.num_rows,
                                            ffi.from_buffer("int64_t[]", offsets), DTYPE_OF[out.dtype], ffi.from_buffer(out))  # fmt: skip
        if status:
            _check(status, "keyed gather")
