"""Feature hashing (``csrc/include/ss_hash.h``)."""

from __future__ import annotations

import numpy as np

from shardstream._native import ffi, lib
from shardstream.errors import ConfigError, TextError

UNITS = {"word": lib.SS_HASH_WORD, "char": lib.SS_HASH_CHAR, "char_wb": lib.SS_HASH_CHAR_WB}
MAX_DIM = lib.SS_HASH_MAX_DIM
MAX_N = lib.SS_HASH_MAX_N
MAX_TEXT_NBYTES = lib.SS_HASH_MAX_TEXT_NBYTES


def unicode_version() -> str:
    """Return the Unicode version of the letter-case and word tables, such as ``"14.0.0"``."""
    version = lib.ss_hash_unicode_version()
    return f"{version >> 16}.{version >> 8 & 255}.{version & 255}"


def murmur3(data: bytes, seed: int = 0) -> int:
    """Return MurmurHash3_x86_32 of ``data`` as an unsigned integer."""
    return lib.ss_hash_murmur3(data, len(data), seed)


def hash_texts(values, offsets, *, dim: int, ngrams: tuple[int, int], unit: str, lowercase: bool, weights: str | None,
               first_row: int = 0):  # fmt: skip
    """Return ``(indices, indptr, weights)`` of a batch of UTF-8 texts, in one call without the GIL.

    Args:
        values: uint8, the texts end to end.
        offsets: int64 ``(num_texts + 1,)``; text ``i`` is ``values[offsets[i]:offsets[i + 1]]``.
        weights: ``"counts"`` (int32), ``"sums"`` of signs (float32), or ``None``, which returns ``None``.
        first_row: Number of the first text in the caller's batch, for messages.

    Raises:
        TextError: A text is not UTF-8 or too long; ``e.index`` says which.
        ConfigError: An option is out of its range.
    """
    options = ffi.new("struct ss_hash_options *", (dim, *ngrams, UNITS[unit], lowercase))
    place = ffi.new("struct ss_hash_place *")
    bound = ffi.new("uint64_t *")
    num_texts = len(offsets) - 1
    values_ptr, offsets_ptr = ffi.from_buffer("uint8_t[]", values), ffi.from_buffer("int64_t[]", offsets)
    status = lib.ss_hash_texts_bound(options, len(values), offsets_ptr, num_texts, bound, place)
    _check(status, place, first_row)
    indices = np.empty(bound[0], np.uint32)
    indptr = np.empty(num_texts + 1, np.int64)
    out = None if weights is None else np.empty(bound[0], np.int32 if weights == "counts" else np.float32)
    status = lib.ss_hash_texts(
        options, values_ptr, len(values), offsets_ptr, num_texts, ffi.from_buffer("uint32_t[]", indices),
        ffi.from_buffer("int32_t[]", out) if weights == "counts" else ffi.NULL,
        ffi.from_buffer("float[]", out) if weights == "sums" else ffi.NULL,
        len(indices), ffi.from_buffer("int64_t[]", indptr), place,
    )  # fmt: skip
    _check(status, place, first_row)
    num = int(indptr[-1])
    return _shrunk(indices, num), indptr, None if out is None else _shrunk(out, num)


def _shrunk(array: np.ndarray, num: int) -> np.ndarray:
    """Return the array cut to ``num`` elements, giving the rest back to the allocator without a copy."""
    array.resize(num, refcheck=False)
    return array


def _check(status: int, place, first_row: int) -> None:
    if status == lib.SS_OK:
        return
    index = first_row + place.row
    if status == lib.SS_ERR_CORRUPT:
        raise TextError(f"texts[{index}] is not UTF-8 at byte {place.offset}.", index=index)
    if status == lib.SS_ERR_RANGE:
        raise TextError(
            f"texts[{index}] is longer than {MAX_TEXT_NBYTES} bytes, has more than 2**31 - 1 n-grams, or its offsets "
            "descend or leave the buffer.", index=index)  # fmt: skip
    if status == lib.SS_ERR_NOMEM:
        raise MemoryError("No memory to hash texts.")
    raise ConfigError(f"dim must be from 1 to {MAX_DIM} and ngrams 1 <= min <= max <= {MAX_N}.")
