"""Feature hashing (``csrc/include/ss_hash.h``)."""

from __future__ import annotations

import numpy as np

from shardstream._native import ffi, lib
from shardstream.errors import ConfigError, TextError

UNITS = {"word": lib.SS_HASH_WORD, "char": lib.SS_HASH_CHAR, "char_wb": lib.SS_HASH_CHAR_WB}
MAX_DIM = lib.SS_HASH_MAX_DIM
MAX_N = lib.SS_HASH_MAX_N
MAX_TEXT_NBYTES = lib.SS_HASH_MAX_TEXT_NBYTES
MAX_OFFSET = 2**63 - 1  # the room that texts need does not depend on the buffer; append() looks at that


def unicode_version() -> str:
    """Return the Unicode version of the letter-case and word tables, such as ``"14.0.0"``."""
    version = lib.ss_hash_unicode_version()
    return f"{version >> 16}.{version >> 8 & 255}.{version & 255}"


def murmur3(data: bytes, seed: int = 0) -> int:
    """Return MurmurHash3_x86_32 of ``data`` as an unsigned integer."""
    return lib.ss_hash_murmur3(data, len(data), seed)


class TextHasher:
    """The C hasher with its options; ``weights`` is ``"counts"``, ``"sums"`` (of signs) or ``None``."""

    def __init__(self, dim: int, ngrams: tuple[int, int], unit: str, lowercase: bool, weights: str | None):
        self.weights = weights
        self._options = {
            dtype: ffi.new("struct ss_hash_options *", (dim, *ngrams, UNITS[unit], lowercase, encoding))
            for dtype, encoding in ((np.dtype(np.uint8), lib.SS_HASH_UTF8), (np.dtype("<u2"), lib.SS_HASH_UTF16))
        }

    def rows(self, offsets: np.ndarray, dtype=np.uint8, first_row: int = 0) -> Rows:
        """Return empty outputs with room for the texts with these offsets into codes of ``dtype``."""
        place, bound = ffi.new("struct ss_hash_place *"), ffi.new("uint64_t *")
        status = lib.ss_hash_texts_bound(
            self._options[np.dtype(dtype)], MAX_OFFSET, ffi.from_buffer("int64_t[]", offsets),
            len(offsets) - 1, bound, place,
        )  # fmt: skip
        _check(status, place, first_row)
        values = {None: None, "counts": np.int32, "sums": np.float32}[self.weights]
        indptr = np.zeros(len(offsets), np.int64)
        return Rows(np.empty(bound[0], np.uint32), indptr, values and np.empty(bound[0], values), first_row)

    def append(self, rows: Rows, values: np.ndarray, offsets: np.ndarray) -> None:
        """Append a row for each text to ``rows``, in one call without the GIL.

        Args:
            values: The texts end to end: UTF-8 as uint8, or little-endian UTF-16 as uint16.
            offsets: int64 ``(num_texts + 1,)``; text ``i`` is ``values[offsets[i]:offsets[i + 1]]``.

        Raises:
            TextError: A text is not well-formed or too long; ``e.index`` counts from ``rows.first_row``.
            ConfigError: An option is out of its range.
        """
        place = ffi.new("struct ss_hash_place *")
        begin, num_texts = int(rows.indptr[rows.num_rows]), len(offsets) - 1
        indptr = np.empty(num_texts + 1, np.int64)
        weights = ffi.NULL if rows.values is None else ffi.from_buffer(rows.values[begin:])
        status = lib.ss_hash_texts(
            self._options[values.dtype], ffi.from_buffer("uint8_t[]", values), len(values),
            ffi.from_buffer("int64_t[]", offsets), num_texts, ffi.from_buffer("uint32_t[]", rows.indices[begin:]),
            ffi.cast("int32_t *", weights) if self.weights == "counts" else ffi.NULL,
            ffi.cast("float *", weights) if self.weights == "sums" else ffi.NULL,
            len(rows.indices) - begin, ffi.from_buffer("int64_t[]", indptr), place,
        )  # fmt: skip
        _check(status, place, rows.first_row + rows.num_rows)
        rows.indptr[rows.num_rows + 1 : rows.num_rows + num_texts + 1] = indptr[1:] + begin
        rows.num_rows += num_texts


class Rows:
    """Sparse rows as they are written: outputs with room for all, of which ``num_rows`` rows are there."""

    def __init__(self, indices: np.ndarray, indptr: np.ndarray, values: np.ndarray | None, first_row: int):
        self.indices, self.indptr, self.values = indices, indptr, values
        self.first_row, self.num_rows = first_row, 0

    def finish(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return ``(indices, indptr, values)``, cut to size; the rest goes back to the allocator uncopied."""
        for array in (self.indices, self.values):
            if array is not None:
                array.resize(int(self.indptr[-1]), refcheck=False)
        return self.indices, self.indptr, self.values


def hash_names(names: np.ndarray, name_offsets: np.ndarray, values: np.ndarray | None, row_offsets: np.ndarray, *,
               dim: int, signed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Return ``(indices, indptr, sums)`` of rows of named features, in one call without the GIL.

    Args:
        names: uint8, the names of all features end to end.
        name_offsets: int64; feature ``f`` has the name ``names[name_offsets[f]:name_offsets[f + 1]]``.
        values: float64, one for each feature, or ``None`` for 1.
        row_offsets: int64; row ``r`` has the features from ``row_offsets[r]`` to ``row_offsets[r + 1]``.

    Raises:
        TextError: A row has a name or a number of features of 2**31 or more, or offsets that are not legal.
        ConfigError: ``dim`` is out of its range.
    """
    place = ffi.new("struct ss_hash_place *")
    num_features, num_rows = int(row_offsets[-1]), len(row_offsets) - 1
    if num_features >= len(name_offsets) or (values is not None and num_features > len(values)):
        raise ConfigError(f"{num_features} features need as many values and names, and one name offset more.")
    indices, sums = np.empty(num_features, np.uint32), np.empty(num_features, np.float32)
    indptr = np.empty(num_rows + 1, np.int64)
    status = lib.ss_hash_names(
        dim, signed, ffi.from_buffer("uint8_t[]", names), len(names), ffi.from_buffer("int64_t[]", name_offsets),
        ffi.NULL if values is None else ffi.from_buffer("double[]", values), ffi.from_buffer("int64_t[]", row_offsets),
        num_rows, ffi.from_buffer("uint32_t[]", indices), ffi.from_buffer("float[]", sums),
        ffi.from_buffer("int64_t[]", indptr), place,
    )  # fmt: skip
    if status == lib.SS_ERR_RANGE:
        raise TextError(
            f"rows[{place.row}] has a name or a number of features of 2**31 or more, or offsets that descend or leave "
            "the buffer.", index=place.row)  # fmt: skip
    _check(status, place, 0)
    for array in (indices, sums):
        array.resize(int(indptr[-1]), refcheck=False)
    return indices, indptr, sums


def _check(status: int, place, first_row: int) -> None:
    if status == lib.SS_OK:
        return
    index = first_row + place.row
    if status == lib.SS_ERR_CORRUPT:
        raise TextError(f"texts[{index}] is not UTF-8 at byte {place.offset}.", index=index)
    if status == lib.SS_ERR_RANGE:
        raise TextError(
            f"texts[{index}] has more than {MAX_TEXT_NBYTES} bytes or 2**31 - 1 n-grams, or its offsets "
            "descend or leave the buffer.", index=index)  # fmt: skip
    if status == lib.SS_ERR_NOMEM:
        raise MemoryError("No memory to hash texts.")
    raise ConfigError(f"dim must be from 1 to {MAX_DIM} and ngrams 1 <= min <= max <= {MAX_N}.")
