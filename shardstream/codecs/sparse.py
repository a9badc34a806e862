"""Sparse blocks: sets of indices, optionally with values, in the fewest bytes (docs/FORMAT.md, section 4).

``encode`` measures every form exactly and writes the smallest, or a faster one within 2% of it;
whether zstd serves a section is part of that choice, whatever the writer's ``compression=`` says.
``decode`` is a total function of bytes. Rows are as in scipy CSR: row ``i`` is
``indices[indptr[i]:indptr[i + 1]]``.

======================  ==================================================================
form                    where it wins
======================  ==================================================================
rows, rice              uniform or hashed sets: within 3% of log2 C(dim, k)
rows, bitmap            more than about 1 in 8 of all indices present
columns, rice           texts: frequent indices cost less, and row lengths nothing
rows, bytes + zstd      tables of correlated categories; rows that repeat
rows, bitmap + zstd     the same with few dimensions
======================  ==================================================================

Twin: ``tests/twins/sparse.py``. C side: ``csrc/include/ss_sparse.h``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import zstandard

from shardstream._native import sparse as native
from shardstream._native.sparse import sort_rows
from shardstream.errors import CodecError

__all__ = ["decode", "encode", "sort_rows"]

TIE = 1.02  # as ss_sparse_plan_choose() has it: within that of the smallest, what is read faster wins
# Forms that are worth handing to zstd; it finds nothing in bit-packed streams.
ZSTD_FORMS = (("bytes", "rows"), ("bytes", "remap"), ("bitmap", "rows"))
ZSTD_MAX_INPUT_RATIO = 16  # times the best form without zstd; a larger input is not tried
ZSTD_TRIAL_LEVEL = 1
# Level 17 takes 0.1 to 0.4 us a byte of input, so it is for what is small and what the trial at least
# halved; on all data measured it takes at most 35% more off that. Level 9 takes a tenth of the time, and
# at most 5% off the rest.
ZSTD_LEVEL, ZSTD_HOPELESS = 9, 1.05
ZSTD_SMALL_NBYTES, ZSTD_SMALL_LEVEL, ZSTD_SMALL_HOPELESS = 1 << 18, 17, 1.4
# A larger input is tried whole only if an eighth of the rows comes within 5% of being worth it: for sets without
# repetition the trial, and the ranks that a remap needs, would cost as much as all the rest of encoding.
SAMPLE_SHARE, SAMPLE_HOPELESS = 8, 1.05 * ZSTD_HOPELESS


@dataclass(frozen=True)
class Section:
    """A section as it will be stored."""

    coder: str
    view: str
    data: bytes
    raw_nbytes: int
    zstd: bool


def _compress(data: bytes, level: int) -> bytes:
    return zstandard.ZstdCompressor(level=level).compress(data)


def _smaller_with_zstd(coder: str, view: str, data: bytes, best: Section, num_indices: int) -> Section:
    """Return ``best``, or this section compressed if that is smaller by more than a tie."""
    if not data:
        return best
    trial_nbytes = len(_compress(data, ZSTD_TRIAL_LEVEL))
    level, hopeless = ZSTD_LEVEL, ZSTD_HOPELESS
    if len(data) <= ZSTD_SMALL_NBYTES and 2 * trial_nbytes <= len(data):
        level, hopeless = ZSTD_SMALL_LEVEL, ZSTD_SMALL_HOPELESS
    if trial_nbytes > hopeless * len(best.data):
        return best
    packed = _compress(data, level)
    if TIE * len(packed) >= len(best.data) or not native.may_hold(num_indices, len(data), len(packed)):
        return best
    return Section(coder, view, packed, len(data), True)


def _index_section(indices: np.ndarray, indptr: np.ndarray, dim: int) -> Section:
    """Return the index section in its smallest form, or in a faster one of nearly that size."""
    plan = native.Plan(indices, indptr, dim)
    coder, view, smallest = plan.choose()
    data = plan.write(coder, view)
    best = Section(coder, view, data, len(data), False)
    sample = None
    for form in ZSTD_FORMS:
        nbytes, most = plan.least_nbytes(*form), ZSTD_MAX_INPUT_RATIO * smallest
        if nbytes is None or nbytes > most:
            continue
        if nbytes > ZSTD_SMALL_NBYTES:
            sample = sample or _Sample(indices, indptr, dim)
            if sample.is_hopeless(*form):
                continue
        nbytes = plan.nbytes(*form)
        if nbytes is not None and nbytes <= most and native.may_hold(len(indices), nbytes, nbytes):
            best = _smaller_with_zstd(*form, plan.write(*form), best, len(indices))
    return best


class _Sample:
    """The first rows of a block, as many as hold an eighth of its indices; tells what zstd would do to all."""

    def __init__(self, indices: np.ndarray, indptr: np.ndarray, dim: int):
        num_rows = int(np.searchsorted(indptr, len(indices) // SAMPLE_SHARE))
        self._plan = None
        if SAMPLE_SHARE * int(indptr[num_rows]) <= 2 * len(indices):  # else a row is so long that there is no sample
            self._plan = native.Plan(indices[: indptr[num_rows]], indptr[: num_rows + 1], dim)
            coder, view, _ = self._plan.choose()
            self._nbytes = self._plan.nbytes(coder, view)

    def is_hopeless(self, coder: str, view: str) -> bool:
        """Whether the rows in this form and zstd are far above their best form."""
        if self._plan is None:
            return False
        trial_nbytes = len(_compress(self._plan.write(coder, view), ZSTD_TRIAL_LEVEL))
        return trial_nbytes > SAMPLE_HOPELESS * self._nbytes


def _values_section(values: np.ndarray) -> Section:
    """Return the values section in its smallest form."""
    sizes = {
        coder: nbytes for coder in native.VALUES_CODERS if (nbytes := native.values_nbytes(values, coder)) is not None
    }
    coder = min(sizes, key=sizes.get)
    data = native.write_values(values, coder)
    best = Section(coder, "rows", data, len(data), False)
    for coder in ("plain", "planes"):
        best = _smaller_with_zstd(coder, "rows", native.write_values(values, coder), best, len(values))
    return best


def encode(indices: np.ndarray, indptr: np.ndarray, dim: int, values: np.ndarray | None = None) -> bytes:
    """Return rows as one sparse block, in the form with the smallest exact size.

    Args:
        indices: Integers in ``[0, dim)``, strictly ascending in each row (``sort_rows`` makes them so).
        indptr: ``num_rows + 1`` bounds that rise from 0; at most 2**24 rows.
        dim: From 1 to 2**32.
        values: One float32, float16 or int32 for each index; None for a binary set.

    Raises:
        SampleError: A row is not strictly ascending or an index is not below ``dim``; ``key`` is the row.
        CodecError: An array is not as described above.

    Decoding a block costs 4 to 30 ns an index by form; encoding up to 0.5 us where zstd competes.
    """
    indices, indptr = np.asarray(indices), np.asarray(indptr)
    if indices.ndim != 1 or indptr.ndim != 1 or not 1 <= dim <= 2**32:
        raise CodecError(f"indices and indptr must be one-dimensional, and dim={dim} from 1 to 2**32.")
    exact = indices.dtype == np.uint32 or not len(indices)
    if not exact and (indices.dtype.kind not in "iu" or indices.min() < 0 or indices.max() >= 2**32):
        raise CodecError(f"indices of dtype {indices.dtype} must be integers from 0 to 2**32 - 1.")
    index = _index_section(indices, indptr, dim)
    fields = {
        "num_rows": len(indptr) - 1,
        "dim": dim,
        "num_indices": len(indices),
        "index_nbytes": len(index.data),
        "index_raw_nbytes": index.raw_nbytes,
        "coder": native.CODERS.index(index.coder),
        "view": native.VIEWS.index(index.view),
        "index_zstd": index.zstd,
    }
    if values is None:
        return native.write_header(**fields) + index.data
    values = np.ascontiguousarray(values)
    if values.dtype.name not in native.DTYPES or values.shape != indices.shape:
        raise CodecError(f"values must be {len(indices)} float32, float16 or int32, not {values.dtype} {values.shape}.")
    section = _values_section(values)
    fields |= {
        "dtype": native.DTYPES.index(values.dtype.name),
        "values_coder": native.VALUES_CODERS.index(section.coder),
        "values_nbytes": len(section.data),
        "values_raw_nbytes": section.raw_nbytes,
        "values_zstd": section.zstd,
    }
    return native.write_header(**fields) + index.data + section.data


def _unpack(stored: memoryview, raw_nbytes: int, offset: int) -> bytes:
    """Return a zstd section's bytes, exactly ``raw_nbytes`` of them."""
    try:
        # The frame's own claim is what zstandard allocates, so it must be the one that was checked.
        content_nbytes = zstandard.get_frame_parameters(stored).content_size
        if content_nbytes != raw_nbytes:
            raise CodecError(
                f"a sparse block's zstd frame claims {content_nbytes} bytes, not {raw_nbytes}.", offset=offset
            )
        return zstandard.ZstdDecompressor().decompress(stored, max_output_size=raw_nbytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CodecError(f"a sparse block's zstd frame cannot be read: {error}.", offset=offset) from error


def decode(buffer, dim: int, num_rows: int, values_dtype: str | None = None, *, sort: bool = True,
           allocate: native.Allocate = native.new_array):  # fmt: skip
    """Return ``(indices uint32, indptr int64, values or None)`` of a block; each row ascending and below ``dim``.

    Any bytes give a value or a :class:`CodecError` whose ``offset`` is in the block. What is allocated is
    bounded by the block's size: 2**24 indices, or 8 a byte if that is more.

    Args:
        buffer: The block, bytes-like; not copied unless compressed.
        dim, num_rows, values_dtype: What the block must be; another is an error. ``values_dtype`` is
            "float32", "float16", "int32", or None for a binary set.
        sort: False lets rows come in another order where that is faster (remapped binary sets).
        allocate: Makes the memory of all three, by its size.
    """
    # An array, not a memoryview: one that cffi holds, in a cycle (errors make them), crashes Python 3.11 when it is
    # collected.
    block = np.frombuffer(buffer, np.uint8) if memoryview(buffer).nbytes else np.empty(0, np.uint8)
    header = native.parse(block)
    found = header.dim, header.num_rows, native.DTYPES[header.dtype]
    if found != (dim, num_rows, values_dtype):
        raise CodecError(
            f"a sparse block has (dim, num_rows, values) = {found}, not {(dim, num_rows, values_dtype)}.", offset=0
        )
    index = block[header.index_offset : header.values_offset]
    values = block[header.values_offset :]
    if header.index_zstd:
        index = _unpack(index, header.index_raw_nbytes, header.index_offset)
    if header.values_zstd:
        values = _unpack(values, header.values_raw_nbytes, header.values_offset)
    return native.decode(header, index, values, sort=sort, allocate=allocate)
