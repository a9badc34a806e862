"""Columns from a worker process to the loader through shared memory: ``Slot``, ``Packer``, ``Wire``.

A slot is a memfd: memory without a name, gone with the last process that holds it. A worker writes the arrays of
a portion into a slot, one after the other at multiples of 64 bytes, and sends the list of :class:`Wire`, which
says where each is. No array is ever pickled:

=============  ============================================  ================================================
kind           column                                        arrays
=============  ============================================  ================================================
``tensor``     tensor                                        data
``array``      numpy array                                   data
``jagged``     Jagged                                        values, offsets, and weights if it has any
``keyed``      KeyedJagged                                   values, offsets, and weights if it has any
``csr``        torch.sparse_csr tensor                       col_indices, crow_indices, values
``rows``       list of 1-D tensors                           values, offsets
``pairs``      list of pairs of such, of equal lengths       values, offsets, weights
``str``        list of str                                   UTF-8, offsets
``bytes``      list of bytes                                 bytes, offsets
``items``      list, or array of objects, that pickles       pickle, and out-of-band the arrays in it (PEP 574)
=============  ============================================  ================================================

``merge.py`` makes columns of wires.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import pickle
from typing import Any, NamedTuple

import numpy as np
import torch

from shardstream.collate import Jagged, KeyedJagged
from shardstream.errors import TransformError

ALIGN_NBYTES = 64
MIN_SLOT_NBYTES = 2**20

# Dtypes that numpy does not have, and integers of their size.
BITS = {getattr(torch, name): integer for name, integer in {
    "bfloat16": torch.int16, "complex32": torch.int32, "float8_e4m3fn": torch.uint8, "float8_e5m2": torch.uint8,
    "float8_e4m3fnuz": torch.uint8, "float8_e5m2fnuz": torch.uint8}.items() if hasattr(torch, name)}  # fmt: skip


class Array(NamedTuple):
    """Where an array is in a slot."""

    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]


class Wire(NamedTuple):
    """A column in a slot.

    Attributes:
        kind: See the module.
        form: What columns of equal kind must share to be joined array by array: dtypes, shape of a row.
        origin: See ``collate.py``; None if the column was not collated from rows.
        arrays: In the order of the module's table.
    """

    kind: str
    form: Any
    origin: str | None
    arrays: tuple[Array, ...]


class Slot:
    """Shared memory that one process writes and another reads, in turns.

    Args:
        fd: A memfd; the slot owns it.
    """

    def __init__(self, fd: int):
        self.fd = fd
        self._map()

    @classmethod
    def create(cls) -> Slot:
        """Return a new slot of ``MIN_SLOT_NBYTES``; its pages are there once they are written to."""
        fd = os.memfd_create("shardstream", os.MFD_CLOEXEC)
        os.ftruncate(fd, MIN_SLOT_NBYTES)
        return cls(fd)

    def _map(self) -> None:
        # The old map, if any, goes when the last array in it does.
        self.memory = np.frombuffer(mmap.mmap(self.fd, os.fstat(self.fd).st_size), np.uint8)
        self.address = self.memory.ctypes.data

    @property
    def nbytes(self) -> int:
        return len(self.memory)

    def reserve(self, nbytes: int) -> None:
        """Make room for ``nbytes``. OSError if the machine has no memory for them, rather than a signal later."""
        if nbytes > self.nbytes:
            os.posix_fallocate(self.fd, 0, -(-nbytes * 5 // 4 // mmap.PAGESIZE) * mmap.PAGESIZE)
            self._map()

    def array(self, where: Array) -> np.ndarray:
        """Return a view of an array that the other side has written."""
        end = where.offset + where.dtype.itemsize * math.prod(where.shape)
        if end > self.nbytes:
            self._map()
        return self.memory[where.offset : end].view(where.dtype).reshape(where.shape)

    def close(self) -> None:
        self.memory = None
        os.close(self.fd)


class Packer:
    """Writes columns into a slot. Use: ``begin``, ``empty`` and ``pack`` in any number, ``finish``."""

    def begin(self, slot: Slot) -> None:
        self._slot, self._end = slot, 0
        self._outside: list[tuple[Array, np.ndarray]] = []  # arrays to copy into the slot

    def empty(self, shape: tuple[int, ...], dtype: np.dtype | str) -> np.ndarray:
        """Return an uninitialised array, in the slot if there is room: what is written to it need not be copied."""
        dtype = np.dtype(dtype)
        nbytes = dtype.itemsize * math.prod(shape)
        if self._end + nbytes > self._slot.nbytes:
            return np.empty(shape, dtype)
        begin = self._take(nbytes)
        return self._slot.memory[begin : begin + nbytes].view(dtype).reshape(shape)

    def _take(self, nbytes: int) -> int:
        begin = self._end
        self._end += -(-nbytes // ALIGN_NBYTES) * ALIGN_NBYTES
        return begin

    def pack(self, column: Any, origin: str | None = None) -> Wire:
        """Return where a column will be; it must not change until ``finish``.

        Raises:
            TransformError: It holds something that does not pickle.
        """
        if isinstance(column, (Jagged, KeyedJagged)):
            weights = () if column.weights is None else (column.weights,)
            form = (column.values.dtype, *(part.dtype for part in weights))
            if any(dtype.itemsize > 8 for dtype in form):
                raise TransformError(f"a worker process can't hand over a {type(column).__name__} of "
                                     f"{' and '.join(map(str, form))}.")  # fmt: skip
            arrays = to_array(column.values), to_array(column.offsets), *map(to_array, weights)
            if isinstance(column, KeyedJagged):
                return self._wire("keyed", (tuple(column.keys), *form), origin, *arrays)
            return self._wire("jagged", form, origin, *arrays)
        if isinstance(column, torch.Tensor) and column.layout == torch.sparse_csr:
            parts = column.col_indices(), column.crow_indices(), column.values()
            return self._wire("csr", (*(part.dtype for part in parts), column.shape[1]), origin, *map(to_array, parts))
        if isinstance(column, torch.Tensor) and column.layout == torch.strided:
            return self._wire("tensor", (column.dtype, tuple(column.shape[1:])), origin, to_array(column))
        if isinstance(column, np.ndarray) and not column.dtype.hasobject:
            return self._wire("array", (column.dtype, column.shape[1:]), origin, column)
        return self._pack_list(column, origin)

    def array(self, array: np.ndarray) -> Array:
        """Return where an array will be; one that ``empty`` gave stays where it is."""
        array = np.ascontiguousarray(array) if array.ndim else array.reshape(())
        offset = array.ctypes.data - self._slot.address
        if 0 <= offset and offset + array.nbytes <= self._slot.nbytes and array.nbytes:
            return Array(offset, array.dtype, array.shape)
        where = Array(self._take(array.nbytes), array.dtype, array.shape)
        self._outside.append((where, array))
        return where

    def finish(self) -> None:
        """Copy what is not in the slot yet; the slot grows as needed."""
        self._slot.reserve(max((where.offset + array.nbytes for where, array in self._outside), default=0))
        for where, array in self._outside:
            self._slot.array(where)[...] = array

    def _wire(self, kind: str, form: Any, origin: str | None, *arrays: np.ndarray) -> Wire:
        return Wire(kind, form, origin, tuple(map(self.array, arrays)))

    def _pack_list(self, column: Any, origin: str | None) -> Wire:
        for kind, of_kind in (("str", str), ("bytes", bytes)):
            if isinstance(column, list) and all(type(item) is of_kind for item in column):
                encoded = [item.encode("utf-8", "surrogatepass") for item in column] if kind == "str" else column
                return self._wire(kind, None, origin, np.frombuffer(b"".join(encoded), np.uint8),
                                  _offsets(map(len, encoded)))  # fmt: skip
        if isinstance(column, list) and _are_rows(column):
            return self._wire("rows", column[0].dtype, origin, to_array(torch.cat(column)), _offsets(map(len, column)))
        if isinstance(column, list) and all(type(item) is tuple and len(item) == 2 for item in column):
            values, weights = [item[0] for item in column], [item[1] for item in column]
            if _are_rows(values) and _are_rows(weights) and list(map(len, values)) == list(map(len, weights)):
                form = values[0].dtype, weights[0].dtype
                return self._wire("pairs", form, origin, to_array(torch.cat(values)), _offsets(map(len, values)),
                                  to_array(torch.cat(weights)))  # fmt: skip
        if isinstance(column, torch.Tensor):
            raise TransformError(f"a worker process can't hand over a tensor of layout {column.layout}.")
        data, buffers = _pickled(column)
        return self._wire("items", type(column) is list, origin, data, *buffers)


def to_array(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as a numpy array, on the CPU and of integers where numpy has no such dtype."""
    tensor = tensor.detach()
    return (tensor.view(BITS[tensor.dtype]) if tensor.dtype in BITS else tensor).numpy(force=True)


def to_tensor(array: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """Return the tensor that :func:`to_array` made an array of; it shares the array's memory."""
    tensor = torch.from_numpy(array)
    return tensor.view(dtype) if dtype in BITS else tensor


def _offsets(lengths) -> np.ndarray:
    return np.cumsum(np.fromiter((0, *lengths), np.int64))


def _are_rows(items: list) -> bool:
    return bool(items) and all(
        type(item) is torch.Tensor and item.ndim == 1 and item.layout == torch.strided and item.dtype == items[0].dtype for item in items)  # fmt: skip


class _Pickler(pickle.Pickler):
    """Pickles tensors by way of numpy, whose arrays travel out of band."""

    def reducer_override(self, value: Any):
        if type(value) is torch.Tensor and value.layout == torch.strided:
            return to_tensor, (to_array(value), value.dtype)
        return NotImplemented


def _pickled(column: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    out, buffers = io.BytesIO(), []
    try:
        _Pickler(out, protocol=5, buffer_callback=buffers.append).dump(column)
    except Exception as error:  # whatever the user's own __reduce__ raises
        raise TransformError(f"a worker process can't hand over what the transform returned: {error}") from error
    return np.frombuffer(out.getbuffer(), np.uint8), [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers]
